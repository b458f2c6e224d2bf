"""The pictures of diffusion models and the commands that draw them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_gen.diffusion.film import Film
from lightning_gen.diffusion.schedules import Level
from lightning_gen.errors import UserError
from lightning_gen.images import to_float, to_uint8
from lightning_gen.seeds import make_rng
from lightning_gen.tools import diffusion as tool
from lightning_gen.training import train
from tests.models.small_diffusion import LABELS, small_diffusion
from tests.models.tiny import tiny_config
from tests.tools.test_commands import call

LABELLED = torch.tensor([0, 1, 2, 0, 1, 2])
QUIET = ("callbacks.samples=null", "callbacks.interpolation=null")


def test_the_first_column_of_noise_is_the_image_and_the_last_is_noise() -> None:
    images = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for schedule in ("cosine", "edm", "straight"):
        model = small_diffusion(schedule={"name": schedule})
        with model.evaluation():
            panels, ratios = tool.noising(model, to_float(images), 5, seed=0)
        assert torch.equal(panels[0].images, images)
        assert panels[0].caption == "t = 0.00\nimage"
        assert panels[2].caption.startswith("t = 0.50\nlog-SNR ")
        # Of unit noise 0.317 lies outside of what a picture can show.
        outside = ((panels[-1].images == 0) | (panels[-1].images == 255)).float().mean()
        assert outside.item() == pytest.approx(0.317, abs=0.04)
        assert ratios == sorted(ratios, reverse=True)
        assert math.isinf(ratios[0])


def test_log_snr_is_that_of_powers() -> None:
    assert tool.log_snr(Level(0.6, 0.8, 0.0)) == pytest.approx(math.log(0.36 / 0.64))
    assert tool.log_snr(Level(1.0, 0.0, 0.0)) == math.inf
    assert tool.log_snr(Level(0.0, 1.0, 0.0)) == -math.inf


def test_guidance_of_1_is_the_conditional_and_of_0_the_unconditional_model() -> None:
    model = small_diffusion(guidance_scale=3.0, **LABELS)
    with model.evaluation():
        zero, one, four = tool.guided(model, [0.0, 1.0, 4.0], LABELLED, seed=2)
        assert model.guidance_scale == 3.0
        model.guidance_scale = 1.0
        plain = model.sample(6, LABELLED, generator=make_rng("guidance", 2))
        nothing = model.sample(6, torch.full((6,), 3), generator=make_rng("guidance", 2))
    assert torch.equal(one, to_uint8(plain))
    assert torch.equal(zero, to_uint8(nothing))
    assert not torch.equal(one, zero)
    assert not torch.equal(four, one)


def test_a_scale_that_the_model_was_not_trained_for_leaves_its_own() -> None:
    model = small_diffusion(label_drop=0.0, **LABELS)
    with pytest.raises(UserError, match="label_drop"), model.evaluation():
        tool.guided(model, [1.0, 2.0], LABELLED, seed=0)
    assert model.guidance_scale == 1.0


@pytest.mark.parametrize(
    ("hidden", "rows"),
    [
        ("left", ["00111", "00111", "00111", "00111"]),
        ("right", ["11000", "11000", "11000", "11000"]),
        ("top", ["00000", "00000", "11111", "11111"]),
        ("bottom", ["11111", "11111", "00000", "00000"]),
        ("center", ["11111", "10001", "10001", "11111"]),
        ("outer", ["00000", "01110", "01110", "00000"]),
    ],
)
def test_masks_hide_what_they_are_named_after(hidden: tool.Hidden, rows: list[str]) -> None:
    found = tool.known_pixels(hidden, 4, 5).int().tolist()
    assert ["".join(map(str, row)) for row in found] == rows


def test_filled_images_keep_what_is_known() -> None:
    images = torch.randint(0, 256, (3, 1, 4, 4), dtype=torch.uint8)
    known = tool.known_pixels("bottom", 4, 4)
    model = small_diffusion(**LABELS)
    with model.evaluation():
        whole, given, filled = tool.inpainting(model, to_float(images), LABELLED[:3], known, 4, 2, seed=0)
    assert torch.equal(whole.images, images)
    assert (given.images[:, :, 2:] == tool.GREY).all()
    assert torch.equal(given.images[:, :, :2], images[:, :, :2])
    assert filled.columns == 4
    draws = filled.images.unflatten(0, (3, 4))
    assert torch.equal(draws[..., :2, :], images[:, None, :, :2].expand(3, 4, 1, 2, 4))
    assert not torch.equal(draws[:, 0], draws[:, 1]), "every draw is another"


def test_a_film_is_drawn_state_by_state() -> None:
    noisy, images = torch.zeros(3, 2, 1, 8, 8), torch.ones(3, 2, 1, 8, 8)
    levels = [Level(0.0, 1.0, 0.0), Level(0.8, 0.6, 0.0), Level(1.0, 0.0, 0.0)]
    states, estimates = tool.denoising_strip(Film(levels, noisy, images))
    assert [panel.caption for panel in states] == ["state\nnoise", "state\nlog-SNR 0.6", "state\nimage"]
    assert [panel.caption for panel in estimates] == ["estimate\nnoise", "estimate\nlog-SNR 0.6", "estimate\nimage"]
    assert all((panel.images == 128).all() and panel.columns == 1 for panel in states)
    assert all((panel.images == 255).all() and panel.columns == 1 for panel in estimates)
    frames = tool.denoising_frames(Film(levels, noisy, images), hold=4)
    assert len(frames) == 3 + 3
    assert len({frame.shape for frame in frames}) == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional model, DDIM in 3 steps."""
    folder = tmp_path_factory.mktemp("runs")
    options = ("experiment_name=tiny", "run_name=run", f"paths.output_dir={folder}", *QUIET)
    # With the schedule of a long run nothing would be learned, and labels would change nothing.
    assert train(tiny_config("ddim", *options, "trainer.max_steps=10", "model.optimizer={lr:0.01,schedule:null}"))
    return folder / "tiny" / "run"


COMMANDS = {
    "noising": ["-n", 2, "--columns", 4],
    "denoising": ["-n", 2, "--frames", 3],
    "guidance": ["--scales", "0,1", "--rows", 2],
    "inpaint": ["-n", 2, "--mask", "center", "--resamples", 2, "--draws", 2],
    "edit": ["-n", 2, "--strength", "0,0.5,1"],
}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_draws_and_repeats_itself(name: str, run: Path, tmp_path: Path) -> None:
    pictures = [tmp_path / f"{number}.png" for number in range(3)]
    for picture, seed in zip(pictures, (0, 0, 1), strict=True):
        call("diffusion", name, run, "-o", picture, *COMMANDS[name], "--seed", seed)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    assert pictures[0].read_bytes() != pictures[2].read_bytes()
    assert np.asarray(Image.open(pictures[0])).std() > 0


def test_columns_and_blocks_are_as_many_as_asked(run: Path, tmp_path: Path) -> None:
    found = call("diffusion", "noising", run, "-o", tmp_path / "n.png", *COMMANDS["noising"])
    assert found["log_snr"][0] is None
    assert len(found["log_snr"]) == 4
    found = call("diffusion", "guidance", run, "-o", tmp_path / "g.png", *COMMANDS["guidance"])
    assert (found["scales"], found["classes"]) == ([0, 1], 10)
    # Two blocks of ten classes, 66 pixels each.
    assert Image.open(tmp_path / "g.png").width == 2 * 10 * 66 + 3 * 14
    found = call("diffusion", "denoising", run, "-o", tmp_path / "d.gif", "-n", 4, "--sampler", "heun", "--steps", 5)
    assert found["sampler"]["evaluations"] == 9
    assert found["frames"] == 6
    gif = Image.open(tmp_path / "d.gif")
    durations = []
    for frame in range(6):
        gif.seek(frame)
        durations.append(gif.info["duration"])
    assert durations == [60] * 5 + [900], "the samples stay a while"


def test_edits_take_the_class_that_is_named(run: Path, tmp_path: Path) -> None:
    pictures = []
    for label in (2, 7):
        picture = tmp_path / f"{label}.png"
        call("diffusion", "edit", run, "-o", picture, "--strength", "0.9", "--label", label, "--guidance-scale", 4)
        pictures.append(picture.read_bytes())
    assert pictures[0] != pictures[1]


def test_walks_through_noise_are_drawn(run: Path, tmp_path: Path) -> None:
    for name in ("w.png", "w.gif"):
        assert call("interpolate", run, "-o", tmp_path / name, "--rows", 2, "--steps", 4)["rows"] == 2
    assert Image.open(tmp_path / "w.png").width == (4 * 9 - 1) * 8


def test_latent_diffusion_is_drawn_too(tmp_path: Path) -> None:
    options = ("experiment_name=latent", "run_name=run", f"paths.output_dir={tmp_path}", *QUIET)
    assert train(tiny_config("latent_diffusion", *options))
    for name, arguments in COMMANDS.items():
        call("diffusion", name, tmp_path / "latent" / "run", "-o", tmp_path / f"{name}.png", *arguments)
        assert np.asarray(Image.open(tmp_path / f"{name}.png")).std() > 0


def test_other_models_are_refused_in_a_line(tmp_path: Path) -> None:
    options = ("experiment_name=gan", "run_name=run", f"paths.output_dir={tmp_path}", *QUIET)
    assert train(tiny_config("gan", *options, "trainer.max_steps=1"))
    for name in COMMANDS:
        with pytest.raises(UserError) as caught:
            call("diffusion", name, tmp_path / "gan" / "run", "-o", tmp_path / "x.png")
        message = "has no guidance" if name == "guidance" else "does not make images from noise step by step"
        assert str(caught.value) == f"GAN {message}"
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["edit", "--strength", "0.5,1.2"], "--strength.* must be from 0 to 1, not 1.2"),
        (["edit", "--strength", "much"], "--strength takes numbers"),
        (["edit", "--label", "10"], "--label goes from 0 to 9, not 10"),
        (["inpaint", "--sampler", "ode"], "the sampler ode .* cannot inpaint"),
        (["guidance", "--scales", "x"], "--scales takes numbers"),
        (["denoising", "--steps", "2000"], "2000 steps are more than the 1000 of the schedule"),
    ],
)
def test_mistakes_are_named(run: Path, arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call("diffusion", arguments[0], run, "-o", tmp_path / "x.png", *arguments[1:])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.png").exists()


def test_labels_need_a_model_that_has_some(tmp_path: Path) -> None:
    options = ("experiment_name=plain", "run_name=run", f"paths.output_dir={tmp_path}", *QUIET)
    assert train(tiny_config("ddpm", *options, "trainer.max_steps=1"))
    run, picture = tmp_path / "plain" / "run", tmp_path / "x.png"
    with pytest.raises(UserError, match=r"train one with model\.conditional=true"):
        call("diffusion", "guidance", run, "-o", picture)
    with pytest.raises(UserError, match="leave --label out"):
        call("diffusion", "edit", run, "-o", picture, "--label", 3)
    for name in ("noising", "denoising", "inpaint", "edit"):
        call("diffusion", name, run, "-o", tmp_path / f"{name}.png", *COMMANDS[name])
