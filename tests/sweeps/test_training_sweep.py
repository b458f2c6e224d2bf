"""A sweep of real trainings, as small as they get."""

from __future__ import annotations

import json
import os
from pathlib import Path

import yaml

from tests.conftest import ROOT, SMALL, run_command


def test_a_sweep_of_real_runs_with_two_seeds(tmp_path: Path) -> None:
    file = {
        "program": "train.py",
        "method": "grid",
        "metric": {"name": "score/fd_random", "goal": "minimize"},
        "parameters": {"model.loss": {"values": ["hinge"]}, "model.generator_optimizer.lr": {"value": 1e-05}},
        "command": ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(file))
    sizes = ("trainer.max_steps=3", "callbacks.interpolation=null", "callbacks.samples=null")
    result = run_command(
        "lightning-gen",
        "sweep",
        str(tmp_path / "tiny.yaml"),
        *("--storage", str(tmp_path / "storage"), "--output-dir", str(tmp_path / "runs of it, =1")),
        *("--seeds", "0,1", "--json", "--", *SMALL, *sizes),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    (trial,) = json.loads(result.stdout)["trials"]
    assert trial["state"] == "completed", trial
    scores = []
    for seed, run in trial["runs"].items():
        record = json.loads((Path(run) / "result.json").read_text())
        assert (record["status"], record["seed"], record["iterations"]) == ("completed", int(seed), 3)
        config = yaml.safe_load((Path(run) / "config.yaml").read_text())
        assert (config["model"]["loss"], config["model"]["generator_optimizer"]["lr"]) == ("hinge", 1e-05)
        scores.append(next(score["value"] for score in record["scores"] if score["name"] == "fd_random"))
    assert scores[0] != scores[1]
    assert trial["score"] == sum(scores) / 2
