from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from lightning_gen.cli import app
from lightning_gen.errors import UserError
from lightning_gen.evaluation import load_trained

CONDITIONAL = (
    "model.conditional=true",
    "model.generator._target_=tests.tools.conditional.Generator",
    "~model.discriminator.norm",
    "model.discriminator._target_=tests.tools.conditional.Projection",
)


@pytest.fixture
def train_run(train_here: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., Path]:
    """Trains for two iterations and gives the run directory."""

    def train(*overrides: str) -> Path:
        options = ("trainer.max_steps=2", "metrics=digits", "metrics.num_samples=90", "metrics.minimum_reference=2")
        return tmp_path / "runs" / train_here(*options, "run_name=one", *overrides)["experiment"] / "one"

    return train


def call(*arguments: object) -> dict[str, Any]:
    """What a command prints as JSON; mistakes are raised as they are."""
    given = [str(argument) for argument in (*arguments, "--json")]
    result = CliRunner().invoke(app, given, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_pictures_of_latents(train_run: Callable[..., Path], tmp_path: Path) -> None:
    run, picture = train_run(), tmp_path / "pictures" / "a.png"
    found = call("latents", "traverse", run, "-o", picture, "--units", "3,1", "--steps", 3, "--rows", 2)
    assert found["blocks"] == ["unit 3, from -3 to 3", "unit 1, from -3 to 3"]
    # Two blocks of 3 images of 66 pixels, side by side.
    assert Image.open(picture).width == 2 * 3 * 66 + 3 * 14
    first = picture.read_bytes()
    call("latents", "traverse", run, "-o", picture, "--units", "3,1", "--steps", 3, "--rows", 2, "--force")
    assert picture.read_bytes() == first
    call("latents", "traverse", run, "-o", picture, "--units", "3,1", "--steps", 3, "--rows", 2, "--force", "--seed", 1)
    assert picture.read_bytes() != first


def test_codes_have_blocks_of_their_own(train_run: Callable[..., Path], tmp_path: Path) -> None:
    run = train_run("++model.codes={categorical:[4],continuous:1}")
    found = call("latents", "traverse", run, "-o", tmp_path / "codes.png")
    assert found["blocks"] == ["code 0: 4 categories", "code 1: from -2 to 2"]
    found = call("latents", "traverse", run, "-o", tmp_path / "unit.png", "--units", "0", "--span", 1.5)
    assert found["blocks"] == ["unit 0, from -1.5 to 1.5"]


def test_arithmetic_of_classes_that_the_model_makes(train_run: Callable[..., Path], tmp_path: Path) -> None:
    run = train_run()
    made = {name: row["samples"] for name, row in call("modes", run, "-n", 200)["classes"].items()}
    assert sum(made.values()) == 200
    usual = max(made, key=lambda name: made[name])
    arguments = ("--a", usual, "--b", usual, "--c", usual)
    found = call("latents", "arithmetic", run, "-o", tmp_path / "a.png", *arguments)
    # z - z + z is z.
    assert found["result_looks_like"] == found["means_look_like"][0]
    assert found["classifier_accuracy"] > 0.98
    with pytest.raises(UserError, match="No class 'cat'"):
        call("latents", "arithmetic", run, "-o", tmp_path / "b.png", "--a", "cat", "--b", usual, "--c", usual)


def test_conditional_models_switch_labels(train_run: Callable[..., Path], tmp_path: Path) -> None:
    run, picture = train_run(*CONDITIONAL), tmp_path / "classes.png"
    assert call("latents", "class-means", run, "-o", picture, "--rows", 2)["conditional"]
    pixels = np.asarray(Image.open(picture))[:, :, 0]
    expected = [round(255 * label / 9) for label in range(10)]
    for row in (1, 2):
        assert pixels[-14 - 66 * row + 33, 14 + 33 :: 66][:10].tolist() == expected
    call("latents", "traverse", run, "-o", tmp_path / "units.png")
    with pytest.raises(UserError, match="conditional"):
        call("latents", "arithmetic", run, "-o", tmp_path / "b.png", "--a", 1, "--b", 2, "--c", 3)


def test_each_truncation_is_scored_under_a_protocol_of_its_own(train_run: Callable[..., Path], tmp_path: Path) -> None:
    run = train_run()
    recorded = json.loads((run / "result.json").read_text())["scores"]
    found = call("latents", "truncation", run, "-o", tmp_path / "t.png", "--values", "0.2 1 inf", "--score")["results"]
    assert [result["truncation"] for result in found] == [0.2, 1.0, None]
    assert found[2]["scores"] == recorded
    samplers = [result["scores"][0]["protocol"]["sampler"] for result in found]
    assert samplers == [{"truncation": 0.2}, {"truncation": 1.0}, {}]
    assert len({result["scores"][0]["protocol_hash"] for result in found}) == 3
    assert found[0]["scores"][0]["value"] != found[2]["scores"][0]["value"]


def test_truncation_needs_gaussian_latents(train_run: Callable[..., Path], tmp_path: Path) -> None:
    run = train_run("++model.latent_range=1.0")
    with pytest.raises(UserError, match=r"model\.truncation"):
        call("latents", "truncation", run, "-o", tmp_path / "t.png")
    found = call("latents", "traverse", run, "-o", tmp_path / "a.png", "--units", "0")
    assert found["blocks"] == ["unit 0, from -1 to 1"]


def test_neighbors_probe_and_filters(train_run: Callable[..., Path], tmp_path: Path) -> None:
    run = train_run()
    picture = tmp_path / "n.png"
    found = call("neighbors", run, "-o", picture, "-n", 2, "-k", 3, "--num-scored", 20)["scores"]
    assert set(found) == {"pixels", "digits features"}
    # Samples after two iterations are noise, far from every digit.
    assert all(scores["closer_share"] == 0 and scores["distance_ratio"] > 1 for scores in found.values())
    assert Image.open(picture).size[0] == 66 + 2 * 3 * 66 + 4 * 14
    assert set(call("neighbors", run, "-o", tmp_path / "p.png", "--space", "pixels")["scores"]) == {"pixels"}

    rows = call("probe", run, "--labels-per-class", 2, "--draws", 2)["results"]
    assert set(rows) == {"features", "untrained features", "pixels"}
    assert {name: row["num_features"] for name, row in rows.items()} == {
        # base_channels=4: maps of 4, 8 and 16 channels, 4x4 each.
        "features": 28 * 16,
        "untrained features": 28 * 16,
        "pixels": 1024,
    }
    assert all(len(row["accuracies"]) == 2 and 0.2 < row["mean"] < 1 for row in rows.values())
    again = call("probe", run, "--labels-per-class", 2, "--draws", 2, "--data", "digits")
    assert again["results"] == rows
    with pytest.raises(UserError, match="less than"):
        call("probe", run, "--labels-per-class", 1000)

    call("filters", run, "-o", tmp_path / "f.png", "--block", 0, "--channels", 2, "--top", 3, "-n", 100)
    assert Image.open(tmp_path / "f.png").height > 4 * 66


def test_labels_in_the_head_leave_features_alone_and_labels_in_the_image_are_refused(
    train_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = train_run(*CONDITIONAL)
    model = load_trained(run, device="cpu").model
    assert model.features(torch.zeros(3, 1, 32, 32)).shape == (3, 32)  # type: ignore[operator]
    last = "model.discriminator._target_=tests.tools.conditional.Concatenation"
    other = train_run(*CONDITIONAL[:-1], last, "experiment_name=other")
    with pytest.raises(UserError, match="labels beside the pixels"):
        call("probe", other, "--labels-per-class", 2)
    with pytest.raises(UserError, match="labels beside the pixels"):
        call("filters", other, "-o", tmp_path / "f.png")


def test_mistakes_are_one_line_and_come_before_the_work(train_run: Callable[..., Path], tmp_path: Path) -> None:
    run, taken = train_run(), tmp_path / "taken.png"
    taken.write_text("mine")
    free = tmp_path / "free.png"
    for arguments, message in (
        (("latents", "traverse", run, "-o", taken), "--force"),
        (("filters", run, "-o", tmp_path / "a.gif"), ".png"),
        (("latents", "traverse", run, "-o", free, "--units", "8"), "--units go from 0 to 7"),
        (("latents", "traverse", run, "-o", free, "--units", "x"), "--units takes numbers"),
        (("latents", "truncation", run, "-o", free, "--values", "-1"), "above 0"),
        (("filters", run, "-o", free, "--block", 3), "--block goes from -3 to 2"),
        (("modes", run, "metrics=none"), "metrics=NAME"),
        (("neighbors", run, "metrics=none", "-o", free), "metrics=NAME"),
        (("latents", "class-means", run, "metrics=none", "-o", free), "metrics=NAME"),
    ):
        with pytest.raises(UserError) as caught:
            call(*arguments)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert taken.read_text() == "mine"
    assert not free.exists()


def test_tables_are_readable(train_run: Callable[..., Path], tmp_path: Path) -> None:
    run = train_run("metrics=random")
    for arguments, words in (
        (("modes", run, "-n", 64), ["KL(samples || data)", "nats", "note: random classifies only"]),
        (("probe", run, "--labels-per-class", 2, "--draws", 1), ["untrained features", "2 labels a class"]),
        (("neighbors", run, "-o", tmp_path / "n.png", "--num-scored", 9), ["random features: ", "held-out images"]),
        (("latents", "truncation", run, "-o", tmp_path / "t.png", "--score"), ["fd_random", "0.7"]),
    ):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == 0
        assert all(word in result.output for word in words), result.output
