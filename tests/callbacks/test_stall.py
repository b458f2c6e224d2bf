"""A run that hangs says where and ends; one that only takes its time does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_gen.callbacks.stall import StallWatchdog
from lightning_gen.errors import UserError
from lightning_gen.tracking.record import read_record
from lightning_gen.tracking.run_directory import RunDirectory
from tests.conftest import ROOT, SMALL, run_command

QUIET = ("callbacks.samples=null", "callbacks.interpolation=null", "run_name=run", "resume=auto")


def test_a_hanging_run_writes_its_stacks_and_ends_so_that_it_can_be_resumed(tmp_path: Path) -> None:
    arguments = ["train.py", *SMALL, *QUIET, "trainer.max_steps=20", "callbacks.checkpoint.every_n_iterations=4"]
    arguments.append(f"paths.output_dir={tmp_path}/runs")
    hang = ("+callbacks.hang._target_=tests.spies.HangAt", "+callbacks.hang.iteration=10", "+callbacks.hang.rank=0")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = run_command(
        *arguments,
        *hang,
        f"+callbacks.hang.file={tmp_path}/pid",
        "callbacks.stall.timeout=2",
        cwd=tmp_path,
        env=environment,
        timeout=90,
    )
    run = tmp_path / "runs" / "tiny" / "run"
    assert result.returncode == 75, result.stderr
    assert "error: no iteration in 2 s (callbacks.stall.timeout)" in result.stderr
    for stacks in (result.stderr, (run / "stall_rank0.txt").read_text()):
        assert "in hang" in stacks
        assert "spies.py" in stacks
        assert "stall-watchdog" in stacks or "in _give_up" in stacks
    assert read_record(run / "result.json")["status"] == "interrupted"
    resumed = run_command(*arguments, cwd=tmp_path, env=environment)
    assert resumed.returncode == 0, resumed.stderr
    assert read_record(run / "result.json")["iterations"] == 20


def test_iterations_and_blocks_of_samples_are_signs_of_life(
    train_here: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[int] = []
    monkeypatch.setattr(StallWatchdog, "beat", lambda self: beats.append(1))
    train_here(*QUIET, "trainer.max_steps=3")
    assert len(beats) == 2 * 3 + 4  # 100 samples in blocks of 32


def test_a_slow_run_is_left_alone_and_the_watchdog_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading
    import time
    from types import SimpleNamespace

    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    watchdog = StallWatchdog(RunDirectory(tmp_path), timeout=1.0)
    trainer: Any = SimpleNamespace(global_rank=0)
    model: Any = None
    watchdog.on_train_start(trainer, model)
    for _ in range(4):
        time.sleep(0.5)
        watchdog.on_train_batch_start(trainer, model)
    watchdog.teardown(trainer, model, "fit")
    time.sleep(0.3)
    assert not ended
    assert "stall-watchdog" not in [thread.name for thread in threading.enumerate()]


def test_a_timeout_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"callbacks\.stall\.timeout=0"):
        StallWatchdog(RunDirectory(tmp_path), timeout=0)
