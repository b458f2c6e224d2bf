"""A run killed anywhere and resumed ends with the same bits as one that was not."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gen.models import read_checkpoint
from lightning_gen.tracking.record import read_record
from tests.conftest import ROOT, SMALL, run_command

ITERATIONS = 150
EPOCH = 1437 // 32


def train(output: Path, *overrides: str) -> int:
    arguments = [
        *SMALL,
        f"trainer.max_steps={ITERATIONS}",
        "callbacks.scores.every_n_images=640",
        "callbacks.checkpoint.every_n_iterations=7",
        "callbacks.interpolation=null",
        "model.generator_optimizer.schedule={name:LinearLR,start_factor:1.0,end_factor:0.1,total_iters:150}",
        "run_name=run",
        f"paths.output_dir={output}",
        *overrides,
    ]
    result = run_command("train.py", *arguments, cwd=output, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode in (0, -signal.SIGKILL), result.stderr
    return result.returncode


def state(output: Path) -> tuple[dict[str, Any], str]:
    run = output / "tiny" / "run"
    return read_checkpoint(run / "checkpoints" / "last.ckpt"), (run / "metrics.jsonl").read_text()


def assert_equal(first: Any, second: Any, where: str = "") -> None:
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_equal(*pair, f"{where}[{index}]")
    else:
        assert first == second, where


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    output = tmp_path_factory.mktemp("whole")
    assert train(output) == 0
    return state(output)


# Two points drawn at random each time, and the corners: mid-epoch between two checkpoints, just after an epoch's end
# and just after an evaluation that no checkpoint holds yet.
KILLS = [
    [random.Random(os.urandom(8)).randrange(8, EPOCH)],
    [EPOCH + 1, 2 * EPOCH + 13],
    [7 * 9 - 1, random.Random(os.urandom(8)).randrange(100, ITERATIONS)],
]


# Names without the random points, so that processes that share the tests agree on them.
@pytest.mark.parametrize("kills", KILLS, ids=["once", "about the ends of epochs", "about a score"])
def test_killed_and_resumed_equals_never_killed(
    whole: tuple[dict[str, Any], str], kills: list[int], tmp_path: Path
) -> None:
    print(f"killed at iterations {kills}")
    for kill in kills:
        kill_options = ["+callbacks.kill._target_=tests.spies.KillAt", f"+callbacks.kill.iteration={kill}"]
        assert train(tmp_path, "resume=auto", *kill_options) == -signal.SIGKILL
        record = read_record(tmp_path / "tiny" / "run" / "result.json")
        assert record["status"] == "interrupted"
        assert record["iterations"] >= kill - 640 // 32 - 7
    assert train(tmp_path, "resume=auto") == 0
    (expected, expected_metrics), (resumed, metrics) = whole, state(tmp_path)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "generative_model", "global_step"):
        assert_equal(expected[part], resumed[part], part)
    assert any(name.startswith("average.") for name in expected["state_dict"])
    assert metrics == expected_metrics


def test_a_finished_run_is_left_as_it_is(whole: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    assert train(tmp_path) == 0
    before = state(tmp_path)[1]
    record = read_record(tmp_path / "tiny" / "run" / "result.json")
    assert train(tmp_path, "resume=auto") == 0
    assert read_record(tmp_path / "tiny" / "run" / "result.json") == record
    assert state(tmp_path)[1] == before == whole[1]
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["run"]
