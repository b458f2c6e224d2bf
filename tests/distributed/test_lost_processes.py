"""Two gloo processes of which one dies, hangs or goes its own way: an error within the timeout, never a hang."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from lightning_gen.data.plan import BatchPlan
from lightning_gen.models import read_checkpoint
from lightning_gen.tracking.record import read_record
from tests.conftest import ROOT, SMALL, run_command

TIMEOUT_SECONDS = 6
LATEST = 60
"""Seconds to import, start and fail on a busy machine; a hang would last for minutes."""


def train(folder: Path, *overrides: str) -> tuple[subprocess.CompletedProcess[str], float]:
    begin = time.monotonic()
    result = run_command(
        "train.py",
        *SMALL,
        "trainer=ddp_cpu",
        "trainer.max_steps=30",
        "callbacks.checkpoint.every_n_iterations=4",
        "callbacks.samples=null",
        "callbacks.interpolation=null",
        f"timeout_minutes={TIMEOUT_SECONDS / 60}",
        "run_name=run",
        "resume=auto",
        f"paths.output_dir={folder}/runs",
        *overrides,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=150,
    )
    return result, time.monotonic() - begin


def spy(name: str, **options: object) -> list[str]:
    return [f"+callbacks.spy._target_=tests.spies.{name}", *(f"+callbacks.spy.{k}={v}" for k, v in options.items())]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_dead_process_ends_the_run(tmp_path: Path, rank: int) -> None:
    result, seconds = train(tmp_path, *spy("KillAt", iteration=10, rank=rank))
    assert result.returncode not in (0, 75)
    assert seconds < LATEST
    record = read_record(tmp_path / "runs" / "tiny" / "run" / "result.json")
    assert record["status"] in ("interrupted", "failed")
    last = read_checkpoint(tmp_path / "runs" / "tiny" / "run" / "checkpoints" / "last.ckpt")
    assert last["generative_model"]["iteration"] == 8


def test_a_process_that_hangs_ends_the_run_within_the_timeout_and_is_ended(tmp_path: Path) -> None:
    result, seconds = train(tmp_path, *spy("HangAt", iteration=10, rank=1, file=tmp_path / "pid"))
    assert result.returncode not in (0, 75)
    assert seconds < LATEST + TIMEOUT_SECONDS
    assert "imed out" in result.stderr
    pid = int((tmp_path / "pid").read_text())
    assert not is_running(pid)


def test_a_score_on_one_process_only_ends_the_run(tmp_path: Path) -> None:
    result, seconds = train(tmp_path, *spy("ScoreAlone", iteration=10))
    assert result.returncode not in (0, 75)
    assert seconds < LATEST + TIMEOUT_SECONDS


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_either_process_stops_both(tmp_path: Path, rank: int) -> None:
    options = ("trainer.max_steps=1000", "callbacks.checkpoint.every_n_iterations=100")
    result, _ = train(tmp_path, *options, *spy("SignalAt", iteration=10, signal="SIGTERM", rank=rank))
    assert result.returncode == 75, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("stopped: ") == 1
    run = tmp_path / "runs" / "tiny" / "run"
    record = read_record(run / "result.json")
    assert record["status"] == "interrupted"
    assert 11 <= record["iterations"] < 1000
    last = read_checkpoint(run / "checkpoints" / "last.ckpt")["generative_model"]
    assert (last["iteration"], last["images_seen"]) == (record["iterations"], record["iterations"] * 64)


def test_epochs_that_do_not_divide_end_at_once_on_both_processes(tmp_path: Path) -> None:
    # 1437 images are 7 batches of 2 x 100 and 37 left over.
    options = ("trainer.max_steps=-1", "trainer.max_epochs=2", "data.batch_size=100")
    result, _ = train(tmp_path, *options, *spy("RankSpy", folder=tmp_path))
    assert result.returncode == 0, result.stderr
    assert read_record(tmp_path / "runs" / "tiny" / "run" / "result.json")["iterations"] == 14
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [len(rank["images"]) for rank in ranks] == [1400, 1400]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_every_rank_has_as_many_whole_batches(world_size: int) -> None:
    plans = [BatchPlan([1437], [10], seed=0, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {plan.batches_per_epoch for plan in plans} == {1437 // (10 * world_size)}
    last = 2 * plans[0].batches_per_epoch - 1
    indices = [int(index) for plan in plans for draw in plan.draws(last) for index in draw.indices]
    assert len(indices) == len(set(indices)) == 10 * world_size
