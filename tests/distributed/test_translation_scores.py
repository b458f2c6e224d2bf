"""A model that translates on two gloo processes: its scores are those of one process and of three."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lightning_gen.cli import app
from tests.callbacks.test_translation import TINY
from tests.conftest import ROOT, run_command

TRAIN = """
import sys
from lightning_gen.configuration import compose_config
from lightning_gen.training import train
from tests.models.translator import TARGET

if __name__ == "__main__":
    train({**compose_config(sys.argv[1:]), "model": {"_target_": TARGET, "noise": 0.1}})
"""


def test_scores_are_equal_at_one_two_and_three_processes(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    (tmp_path / "train.py").write_text(TRAIN)
    output = f"paths.output_dir={tmp_path}/runs"
    arguments = (*TINY, "data=inverted", "run_name=ddp", "trainer=ddp_cpu", output)
    command = [sys.executable, str(tmp_path / "train.py"), *arguments]
    trained = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert trained.returncode == 0, trained.stderr
    run = tmp_path / "runs" / "tiny" / "ddp"
    record = json.loads((run / "result.json").read_text())
    assert record["hardware"]["processes"] == 2
    alone = json.loads(CliRunner().invoke(app, ["evaluate", str(run), "--json"], catch_exceptions=False).stdout)
    three = run_command("lightning-gen", "evaluate", str(run), "--nproc", "3", "--json", cwd=tmp_path, env=environment)
    assert three.returncode == 0, three.stderr
    for scores in (alone["scores"], json.loads(three.stdout)["scores"]):
        for one, other in zip(record["scores"], scores, strict=True):
            assert one["protocol_hash"] == other["protocol_hash"]
            assert other["value"] == pytest.approx(one["value"], rel=1e-9), one["name"]
