"""Codes: projections, their pictures, the manifold of two latents, and the commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from lightning_gen.configuration import compose_config
from lightning_gen.data.image_set import ImageSet
from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.tools import codes as tool
from lightning_gen.training import train
from tests.models.small_vae import small_vae
from tests.tools.test_commands import call


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_codes_of_all_blocks_are_those_of_the_model() -> None:
    model = small_vae()
    images = ImageSet(torch.randint(0, 256, (260, 1, 8, 8), dtype=torch.uint8, generator=rng()))
    with model.evaluation():
        found = tool.encode(model, images)
        torch.testing.assert_close(found, model.encode(to_float(images.images)))


def test_principal_components_are_the_directions_of_most_variance() -> None:
    # Long along (1, 1, 0), less long along (0, 0, 1).
    drawn = torch.randn(400, 2, generator=rng(), dtype=torch.float64)
    weights = torch.linalg.qr(drawn - drawn.mean(0))[0] * torch.tensor([5.0, 2.0])
    axes = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    codes = weights @ (axes / axes.norm(dim=1, keepdim=True)) + 7
    points = tool.project(codes, "pca", 0).double()
    torch.testing.assert_close(points.abs(), weights.abs(), atol=1e-5, rtol=0)


def test_tsne_keeps_clusters_apart_and_repeats_itself() -> None:
    labels = torch.arange(60) % 3
    codes = torch.randn(60, 8, generator=rng()) + 20 * torch.eye(8)[labels]
    points = tool.project(codes, "tsne", 3)
    assert torch.equal(points, tool.project(codes, "tsne", 3))
    distances = torch.cdist(points, points).fill_diagonal_(torch.inf)
    assert torch.equal(labels[distances.argmin(1)], labels)


def test_too_few_codes_are_refused() -> None:
    with pytest.raises(UserError, match="3 codes of 5 numbers"):
        tool.project(torch.zeros(3, 5), "pca", 0)


def test_points_are_drawn_in_the_colours_of_their_classes_and_upward() -> None:
    points = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    picture = tool.scatter(points, torch.tensor([0, 1, 2]), ["low", "right", "high"])
    colors = [tuple(bytes.fromhex(color[1:])) for color in tool.palette(3)]
    left, far = tool.MARGIN, tool.SCATTER_SIZE - tool.MARGIN
    places = [(left, far), (far, far), (left, left)]
    assert [tuple(picture[:, y, x].tolist()) for x, y in places] == colors
    assert picture.shape[2] > tool.SCATTER_SIZE, "a legend beside the plot"
    plain = tool.scatter(points, None, [])
    assert plain.shape == (3, tool.SCATTER_SIZE, tool.SCATTER_SIZE)


@pytest.mark.parametrize("number", [1, 8, 10, 47])
def test_classes_have_different_colours(number: int) -> None:
    found = tool.palette(number)
    assert len(set(found)) == len(found) == number
    assert all(len(color) == 7 for color in found)


def test_a_manifold_goes_through_the_quantiles_of_the_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = small_vae(latent_dim=2), []
    original = model.decode
    monkeypatch.setattr(model, "decode", lambda latents, labels: seen.append(latents) or original(latents, labels))
    with model.evaluation():
        images = tool.manifold(model, 4, None, rng())
    assert images.shape == (16, 1, 8, 8)
    grid = torch.cat(seen).view(4, 4, 2)
    quantiles = torch.tensor(stats.norm.ppf([0.125, 0.375, 0.625, 0.875])).float()
    torch.testing.assert_close(grid[0, :, 0], quantiles, atol=0.05, rtol=0)
    torch.testing.assert_close(grid[:, 0, 1], quantiles.flip(0), atol=0.05, rtol=0)
    assert torch.equal(grid[0, :, 0], grid[3, :, 0])
    with pytest.raises(UserError, match=r"3 latents: train one with model\.latent_dim=2"):
        tool.manifold(small_vae(), 4, None, rng())


OPTIONS = (
    "experiment_name=tiny",
    "run_name=one",
    "logger=none",
    "trainer=cpu",
    "trainer.max_steps=2",
    "callbacks.interpolation=null",
    "metrics=none",
    "data.image_size=16",
    "model.encoder.hidden=[12]",
    "model.decoder.hidden=[12]",
)


def trained(tmp_path: Path, *overrides: str) -> Path:
    train(compose_config([*OPTIONS, *overrides]))
    return tmp_path / "runs" / "tiny" / "one"


def test_every_command_draws_and_repeats_itself(tmp_path: Path) -> None:
    run = trained(tmp_path, "model=vae_mlp", "model.latent_dim=2")
    commands: dict[str, list[object]] = {
        "reconstructions": ["-n", 20, "--columns", 8],
        "scatter": ["-n", 40],
        "manifold": ["--steps", 3],
        "interpolate": ["--rows", 2, "--steps", 3],
    }
    for name, options in commands.items():
        pictures = [tmp_path / f"{name}{number}.png" for number in range(2)]
        results = [call("codes", name, run, "-o", picture, *options) for picture in pictures]
        assert {**results[0], "output": ""} == {**results[1], "output": ""}
        assert pictures[0].read_bytes() == pictures[1].read_bytes()
        assert np.asarray(Image.open(pictures[0])).std() > 0
    # two rows of 3 images between 2 ends, 66 pixels each
    assert Image.open(tmp_path / "interpolate0.png").width >= 5 * 66
    found = call("probe", run, "--labels-per-class", 4, "--draws", 1)["results"]
    assert found["features"]["num_features"] == 2


def test_more_latents_are_projected(tmp_path: Path) -> None:
    run = trained(tmp_path, "model=denoising_autoencoder")
    for method in ("pca", "tsne"):
        found = call("codes", "scatter", run, "-o", tmp_path / f"{method}.png", "-n", 30, "--method", method)
        assert found["method"] == method
    with pytest.raises(UserError, match="32 latents"):
        call("codes", "manifold", run, "-o", tmp_path / "m.png")


def test_a_conditional_model_shows_one_class(tmp_path: Path) -> None:
    run = trained(tmp_path, "model=cvae", "model.latent_dim=2")
    pictures = [tmp_path / f"{label}.png" for label in (0, 7)]
    for label, picture in zip((0, 7), pictures, strict=True):
        call("codes", "manifold", run, "-o", picture, "--steps", 3, "--label", label)
    assert pictures[0].read_bytes() != pictures[1].read_bytes()
    call("codes", "reconstructions", run, "-o", tmp_path / "r.png", "-n", 4)
    with pytest.raises(UserError, match="--label goes from 0 to 9, not 10"):
        call("codes", "manifold", run, "-o", tmp_path / "x.png", "--label", 10)
    with pytest.raises(UserError, match="conditional"):
        call("codes", "interpolate", run, "-o", tmp_path / "x.png")


def test_models_without_codes_are_refused(train_here: Callable[..., dict[str, object]], tmp_path: Path) -> None:
    train_here("trainer.max_steps=1", "run_name=one")
    run = tmp_path / "runs" / "tiny" / "one"
    with pytest.raises(UserError, match="GAN does not encode images"):
        call("codes", "scatter", run, "-o", tmp_path / "x.png")
    with pytest.raises(UserError, match="GAN does not reconstruct images"):
        call("codes", "reconstructions", run, "-o", tmp_path / "x.png")
