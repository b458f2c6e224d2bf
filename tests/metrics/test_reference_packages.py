"""Scores of two folders of images against the packages that the field uses, on one random Inception weight file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import prdc
import pytest
import pytorch_fid.fid_score
import pytorch_fid.inception
import scipy.linalg
import torch
import torch_fidelity
from torch import Tensor
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchmetrics.image.fid import FrechetInceptionDistance

from lightning_gen.images import save_png
from lightning_gen.metrics.base import ScoreMetric, score_metrics
from lightning_gen.metrics.extractors import Features, create_extractor
from lightning_gen.metrics.neighbors import ReferenceFeatures
from lightning_gen.metrics.reference import Reference
from lightning_gen.metrics.shared import FeatureReservoir
from lightning_gen.scoring import ScoringJob, score
from tests.metrics.inception_weights import make_inception_weights, photograph_crops

NUMBER = 16
SUBSETS = 20
SUBSET_SIZE = 12


class Sides(NamedTuple):
    first: Path
    second: Path
    weights: Path
    cache_dir: Path


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Sides:
    """Two folders of photographs, the second darker, and a random weight file."""
    folder = tmp_path_factory.mktemp("sides")
    images = photographs()
    make_inception_weights(folder / "inception.pth", images[0])
    paths = []
    for name, part in zip(("first", "second"), images, strict=True):
        paths.append(folder / name)
        paths[-1].mkdir()
        for index, image in enumerate(part):
            save_png(image, paths[-1] / f"{index:03d}.png")
    return Sides(*paths, folder / "inception.pth", folder / "cache")


def photographs() -> tuple[Tensor, Tensor]:
    """The images of both sides, uint8 (N, 3, 64, 64)."""
    first, second = photograph_crops(2 * NUMBER).chunk(2)
    return first, second // 2


@pytest.fixture(scope="module")
def ours(sides: Sides) -> dict[str, Any]:
    """Our scores of the first folder against the second."""
    subsets = f"{{name:kid,subsets:{SUBSETS},subset_size:{SUBSET_SIZE}}}"
    job = ScoringJob(
        sides.first,
        str(sides.second),
        [f"metrics.metrics=[fid,inception_score,{subsets}]", f"paths.cache_dir={sides.cache_dir}"],
        weights=str(sides.weights),
    )
    return {found["name"]: found for found in score(job)}


@pytest.fixture(scope="module")
def theirs(sides: Sides) -> dict[str, float]:
    """torch-fidelity's."""
    return torch_fidelity.calculate_metrics(
        input1=str(sides.first),
        input2=str(sides.second),
        cuda=False,
        fid=True,
        isc=True,
        kid=True,
        kid_subsets=SUBSETS,
        kid_subset_size=SUBSET_SIZE,
        feature_extractor_weights_path=str(sides.weights),
        batch_size=16,
        cache=False,
        verbose=False,
    )


def test_fid_inception_score_and_kid_are_torch_fidelitys(ours: dict[str, Any], theirs: dict[str, float]) -> None:
    fid, inception_score, kid = (ours[name] for name in ("fid", "inception_score", "kid"))
    assert fid["value"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert inception_score["value"] == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert inception_score["std"] == pytest.approx(theirs["inception_score_std"], rel=1e-3)
    assert kid["value"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert kid["std"] == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-3)
    assert fid["value"] > 1
    assert kid["value"] > 3 * kid["std"] / SUBSETS**0.5


def test_fid_is_that_of_pytorch_fids_network_and_distance(
    sides: Sides, ours: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytorch-fid's own resize and scaling, (x - 127.5) / 127.5, are others, so that its FID differs."""
    state = torch.load(sides.weights)
    monkeypatch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *args, **options: state)
    _accept_disp(monkeypatch)
    network = pytorch_fid.inception.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    statistics = []
    for images in photographs():
        resized = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(299, 299), align_corners=False)
        with torch.no_grad():
            features = network((resized - 128) / 128)[0][:, :, 0, 0].numpy()
        statistics += [features.mean(0), np.cov(features, rowvar=False)]
    expected = pytorch_fid.fid_score.calculate_frechet_distance(*statistics)
    assert ours["fid"]["value"] == pytest.approx(expected, rel=1e-4)


def test_fid_is_torchmetrics_without_antialiasing(sides: Sides, ours: dict[str, Any]) -> None:
    metric = FrechetInceptionDistance(2048, antialias=False, feature_extractor_weights_path=str(sides.weights))
    for images, real in zip(photographs(), (False, True), strict=True):
        metric.update(images, real=real)
    assert ours["fid"]["value"] == pytest.approx(float(metric.compute()), rel=1e-4)


def test_precision_recall_density_and_coverage_are_prdcs() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(150, 6)).astype(np.float32)
    reference = (rng.normal(size=(200, 6)) * 1.2 + 0.3).astype(np.float32)
    features = ReferenceFeatures(torch.from_numpy(reference))
    reservoir = FeatureReservoir(6, len(samples), features, 1000)
    reservoir.update(Features(torch.from_numpy(samples), None), torch.arange(len(samples)))
    extractor = create_extractor("random")

    def made(name: str) -> ScoreMetric:
        return score_metrics[name](extractor, len(samples), Reference(features=features), reservoir=reservoir)

    for names, neighbors in ((("precision", "recall"), 3), (("density", "coverage"), 5)):
        expected = prdc.compute_prdc(reference, samples, nearest_k=neighbors)
        for name in names:
            metric = made(name)
            metric.update(Features(torch.from_numpy(samples), None), torch.arange(len(samples)))
            assert metric.compute().value == expected[name]
            assert 0 < expected[name] < 1.5


def _accept_disp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give sqrtm the argument ``disp`` that pytorch-fid passes and SciPy 1.18 took away."""
    root: Callable[..., Any] = scipy.linalg.sqrtm
    monkeypatch.setattr(scipy.linalg, "sqrtm", lambda matrix, disp=True: (root(matrix), 0.0))
