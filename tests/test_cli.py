from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from lightning_gen.cli import app
from lightning_gen.errors import UserError


@pytest.fixture
def run(train_here: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    record = train_here("trainer.max_steps=5", "metrics=digits", "metrics.num_samples=100", "run_name=one")
    return tmp_path / "runs" / record["experiment"] / "one"


def call(*arguments: object) -> str:
    """Standard output of a command; mistakes are raised as they are."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_evaluate_repeats_the_runs_own_scores(run: Path) -> None:
    recorded = json.loads((run / "result.json").read_text())["scores"]
    for path in (run, run / "checkpoints" / "last.ckpt"):
        scores = json.loads(call("evaluate", path, "--json"))["scores"]
        assert scores == recorded


def test_evaluate_under_another_protocol_can_be_recorded(run: Path) -> None:
    recorded = json.loads((run / "result.json").read_text())["scores"]
    scores = json.loads(call("evaluate", run, "metrics.num_samples=120", "--record", "--json"))["scores"]
    assert [score["protocol"]["num_samples"] for score in scores] == [120] * 4
    assert json.loads((run / "result.json").read_text())["scores"] == [*recorded, *scores]
    call("evaluate", run, "metrics.num_samples=120", "--record")
    assert json.loads((run / "result.json").read_text())["scores"] == [*recorded, *scores]
    boards = json.loads(call("leaderboard", run.parents[1], "--json"))["boards"]
    assert {(board["score"], board["protocol"]["num_samples"]) for board in boards} == {
        (name, number)
        for name in ("fd_digits", "class_score_digits", "recall_digits", "coverage_digits")
        for number in (100, 120)
    }
    random = json.loads(call("evaluate", run, "metrics=random", "metrics.num_samples=50", "--json"))["scores"]
    assert random[0]["name"] == "fd_random"


def test_samples_as_a_grid_and_as_files(run: Path, tmp_path: Path) -> None:
    call("sample", run, "-o", tmp_path / "grid.png", "-n", 9)
    assert Image.open(tmp_path / "grid.png").size == (2 * (3 * 33 - 1),) * 2
    result = json.loads(call("sample", run, "-o", tmp_path / "files", "-n", 70, "--json"))
    assert result["num_samples"] == 70
    files = sorted(path.name for path in (tmp_path / "files").iterdir())
    assert files == [f"{index:06d}.png" for index in range(70)]
    assert Image.open(tmp_path / "files" / "000069.png").size == (32, 32)
    call("sample", run, "-o", tmp_path / "again", "-n", 70)
    assert (tmp_path / "files" / "000069.png").read_bytes() == (tmp_path / "again" / "000069.png").read_bytes()


def test_interpolations(run: Path, tmp_path: Path) -> None:
    call("interpolate", run, "-o", tmp_path / "a.png", "--rows", 2, "--steps", 4)
    assert Image.open(tmp_path / "a.png").size == (2 * (4 * 33 - 1), 2 * (2 * 33 - 1))
    call("interpolate", run, "-o", tmp_path / "a.gif", "--steps", 6)
    assert getattr(Image.open(tmp_path / "a.gif"), "n_frames", 1) == 6


def test_mistakes_are_one_line_and_overwrite_nothing(run: Path, tmp_path: Path) -> None:
    (tmp_path / "taken.png").write_text("mine")
    for arguments, message in (
        (("sample", run, "-o", tmp_path / "taken.png"), "--force"),
        (("sample", tmp_path / "nothing", "-o", tmp_path / "a.png"), "No run directory or checkpoint"),
        (("sample", run, "-o", tmp_path / "taken.png" / "a.png"), "Cannot write"),
        (("sample", run, "-o", tmp_path / "a.png", "--device", "tpu9"), "No device"),
        (("interpolate", run, "-o", tmp_path / "a.txt"), ".png or .gif"),
        (("evaluate", run, "metrics.num_sample=5"), "num_sample"),
        (("evaluate", run, "nonsense"), "key=value"),
        (("evaluate", run, "--nproc", 0), "--nproc"),
        (("leaderboard", tmp_path / "nowhere"), "No folder"),
    ):
        with pytest.raises(UserError) as caught:
            call(*arguments)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "taken.png").read_text() == "mine"
