"""SGAN on two gloo processes: the error that both count together is that of one process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from lightning_gen.callbacks.classification import count_errors
from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.models import load_model, read_checkpoint
from tests.callbacks.test_classification import TINY
from tests.conftest import ROOT, run_command


def test_two_processes_count_the_errors_of_one(tmp_path: Path) -> None:
    arguments = ["train.py", *TINY, "trainer=ddp_cpu", "metrics=none", f"paths.output_dir={tmp_path}/runs"]
    arguments += ["+callbacks.spy._target_=tests.spies.RankSpy", f"+callbacks.spy.folder={tmp_path}"]
    result = run_command(*arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    run = tmp_path / "runs" / "tiny" / "run"
    record = json.loads((run / "result.json").read_text())
    (error,) = record["scores"]
    assert record["hardware"]["processes"] == 2
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 6

    model = load_model(read_checkpoint(run / "checkpoints" / "last.ckpt"))
    test = DigitsDataModule("unused", image_size=28).split("test")
    assert isinstance(test, ImageSet)
    with model.evaluation():
        alone = int(count_errors(model, test, 64))
    assert error["value"] == 100 * alone / 360
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first["parameters"] == second["parameters"]
    assert first["labelled"] == second["labelled"]
    assert torch.tensor(first["labelled"]).shape == (30,)
