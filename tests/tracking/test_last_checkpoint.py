"""A damaged last checkpoint gives way to the one before it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_gen.errors import UserError
from lightning_gen.models import read_checkpoint
from lightning_gen.tracking.last_checkpoint import damage, mend_last_checkpoint
from lightning_gen.tracking.run_directory import RunDirectory
from tests.end_to_end.test_resume import assert_equal

Train = Callable[..., dict[str, Any]]

OPTIONS = (
    "callbacks.samples=null",
    "callbacks.interpolation=null",
    "callbacks.checkpoint.every_n_iterations=5",
    "run_name=run",
    "resume=auto",
)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Change one byte of a weight, which `torch.load` does not notice."""
    weights = read_checkpoint(path)["state_dict"]
    largest = max(weights.values(), key=lambda tensor: tensor.numel())
    content = bytearray(path.read_bytes())
    at = content.find(largest.numpy().tobytes())
    assert at > 0
    content[at] ^= 1
    path.write_bytes(content)
    read_checkpoint(path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [cut, flip, empty])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    train_here: Train, tmp_path: Path, capfd: pytest.CaptureFixture[str], spoil: Callable[[Path], None]
) -> None:
    train_here(*OPTIONS, "trainer.max_steps=20", "run_name=whole")
    run = RunDirectory(tmp_path / "runs" / "tiny" / "run")
    train_here(*OPTIONS, "trainer.max_steps=15")
    spoil(run.last_checkpoint)  # and iteration_00000015.ckpt with it: they are one file
    capfd.readouterr()
    train_here(*OPTIONS, "trainer.max_steps=20")
    (warning,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning")]
    assert f"{run.last_checkpoint} is damaged" in warning
    assert f"going on from {run.checkpoints}/iteration_00000010.ckpt" in warning
    whole = RunDirectory(tmp_path / "runs" / "tiny" / "whole")
    expected, mended = read_checkpoint(whole.last_checkpoint), read_checkpoint(run.last_checkpoint)
    for part in ("state_dict", "optimizer_states", "generative_model"):
        assert_equal(expected[part], mended[part], part)
    assert all(damage(path) is None for path in run.checkpoints.iterdir())


def test_no_whole_checkpoint_is_an_error_and_nothing_is_trained_over(train_here: Train, tmp_path: Path) -> None:
    train_here(*OPTIONS, "trainer.max_steps=15")
    run = RunDirectory(tmp_path / "runs" / "tiny" / "run")
    for path in run.checkpoints.iterdir():
        cut(path)
    before = {path.name: path.read_bytes() for path in run.checkpoints.iterdir()}
    with pytest.raises(UserError, match="no whole checkpoint is beside it") as caught:
        train_here(*OPTIONS, "trainer.max_steps=20")
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in run.checkpoints.iterdir()} == before


def test_a_last_checkpoint_that_is_missing_is_found_again(train_here: Train, tmp_path: Path) -> None:
    train_here(*OPTIONS, "trainer.max_steps=15")
    run = RunDirectory(tmp_path / "runs" / "tiny" / "run")
    run.last_checkpoint.unlink()
    mend_last_checkpoint(run)
    assert run.last_checkpoint.samefile(run.checkpoints / "iteration_00000015.ckpt")


def test_the_best_checkpoint_is_linked_before_the_last(
    train_here: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two, a run goes on from the older one and finds its best again."""
    names: list[str] = []
    monkeypatch.setattr("lightning_gen.callbacks.checkpoints.link", lambda source, name: names.append(name.name))
    train_here(*OPTIONS, "trainer.max_steps=3")
    assert names == ["best.ckpt", "last.ckpt"]
