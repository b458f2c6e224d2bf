"""Two gloo processes on the CPU, started by Lightning as a user would start them; scores at 1, 2 and 3 processes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conftest import ROOT, SMALL, run_command

ITERATIONS = 20


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("ddp")
    arguments = [
        "train.py",
        *SMALL,
        "trainer=ddp_cpu",
        f"trainer.max_steps={ITERATIONS}",
        "metrics=digits",
        "metrics.num_samples=101",
        "metrics.block_size=16",
        f"paths.output_dir={folder}/runs",
        "run_name=ddp",
        "+callbacks.spy._target_=tests.spies.RankSpy",
        f"+callbacks.spy.folder={folder}",
    ]
    result = run_command(*arguments, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    return folder, folder / "runs" / "tiny" / "ddp"


def test_ranks_draw_their_own_noise_and_images_and_keep_equal_parameters(run: tuple[Path, Path]) -> None:
    folder, _ = run
    first, second = (json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2))
    assert len(first["latents"]) == len(second["latents"]) == ITERATIONS
    assert not set(first["latents"]) & set(second["latents"])
    # Some digits occur twice in the set, so a few equal images are no sign of a shared shard.
    assert len(set(first["images"]) & set(second["images"])) < 0.02 * len(first["images"])
    assert first["parameters"] == second["parameters"]


def test_the_record_counts_both_ranks(run: tuple[Path, Path]) -> None:
    record = json.loads((run[1] / "result.json").read_text())
    assert record["status"] == "completed"
    assert record["iterations"] == ITERATIONS
    assert record["images_seen"] == ITERATIONS * 32 * 2
    assert record["hardware"]["processes"] == 2
    assert len((run[1] / "metrics.jsonl").read_text().splitlines()) == 1


def test_scores_are_equal_at_one_two_and_three_processes(run: tuple[Path, Path]) -> None:
    scores = []
    for processes in ("1", "2", "3"):
        result = run_command("lightning-gen", "evaluate", str(run[1]), "--nproc", processes, "--json", cwd=run[0])
        assert result.returncode == 0, result.stderr
        scores.append(json.loads(result.stdout)["scores"])
    scores.append(json.loads((run[1] / "result.json").read_text())["scores"])  # while training, on two ranks
    assert scores[0][0]["protocol"]["num_samples"] == 101
    for other in scores[1:]:
        for one, two in zip(scores[0], other, strict=True):
            assert one["protocol_hash"] == two["protocol_hash"]
            assert two["value"] == pytest.approx(one["value"], rel=1e-9)
