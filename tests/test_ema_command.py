"""A run with ema=power, and a checkpoint of another width made of it, by the commands that a user types."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lightning_gen.cli import app
from lightning_gen.errors import UserError
from lightning_gen.models import load_model, read_checkpoint


def command(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_a_run_gets_a_checkpoint_of_another_width_that_can_be_sampled(
    train_here: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    train_here(
        "run_name=one",
        "ema=power",
        "callbacks.snapshots.every_n_images=64",
        "callbacks.scores=null",
        "callbacks.interpolation=null",
        "trainer.max_steps=20",
    )
    (run,) = (tmp_path / "runs").glob("*/one")
    assert len(list((run / "snapshots").iterdir())) == 10
    found = json.loads(command("ema", run, "--width", 0.12, "--json"))
    target = run / "checkpoints" / "ema_0.12.ckpt"
    assert found == {
        "output": str(target),
        "width": 0.12,
        "images_seen": 640,
        "snapshots": 9,
        "profile_error": pytest.approx(0.01, abs=0.005),
    }
    model = load_model(read_checkpoint(target))
    assert model.average is not None
    assert model.average.settings == {"relative_widths": [0.12]}
    command("sample", target, "-n", 4, "-o", tmp_path / "grid.png")
    assert (tmp_path / "grid.png").exists()
    with pytest.raises(UserError, match="exists: name another --output or pass --force"):
        command("ema", run, "--width", 0.12)
    assert command("ema", run, "--width", 0.12, "--force").strip() == str(target)
