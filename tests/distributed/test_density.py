"""A model with a mixture and a likelihood on two gloo processes: their scores are those of one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from lightning_gen.scoring import ScoringJob, score
from tests.conftest import ROOT, run_command

OPTIONS = (
    "experiment_name=tiny",
    "run_name=run",
    "logger=none",
    "trainer=ddp_cpu",
    "trainer.max_steps=4",
    "callbacks=density",
    "callbacks.likelihood.num_images=60",
    "callbacks.likelihood.block_size=16",
    "callbacks.latent_mixture.every_n_images=null",
    "callbacks.interpolation=null",
    "model=vae_mlp",
    "model.encoder.hidden=[12]",
    "model.decoder.hidden=[12]",
    "model.latent_dim=3",
    "model.importance_samples=2",
    "model.sampler=mixture",
    "model.mixture={components:2,num_images:100}",
    "metrics=random",
    "metrics.num_samples=48",
    "metrics.block_size=16",
)


def test_scores_of_two_processes_are_those_of_the_checkpoint_in_one(tmp_path: Path) -> None:
    arguments = ["train.py", *OPTIONS, f"paths.output_dir={tmp_path}/runs"]
    result = run_command(*arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    run = tmp_path / "runs" / "tiny" / "run"
    record = json.loads((run / "result.json").read_text())
    assert record["hardware"]["processes"] == 2
    # Sums are the same bits at any number of processes of as many threads each.
    threads = torch.get_num_threads()
    torch.set_num_threads(record["hardware"]["threads"])
    try:
        found = {each["name"]: each for each in score(ScoringJob(run))}
    finally:
        torch.set_num_threads(threads)
    recorded = {each["name"]: each for each in record["scores"]}
    assert found.keys() == recorded.keys()
    for name in ("bits_per_dim", "nll", "reconstruction_error", "active_units"):
        assert found[name] == recorded[name]
    sampler = recorded["fd_random"]["protocol"]["sampler"]
    assert sampler["latents"] == {"name": "mixture", "components": 2, "num_images": 100, "fitted": True}
    assert {name: each["protocol"] for name, each in found.items()} == {
        name: each["protocol"] for name, each in recorded.items()
    }
    for name, each in found.items():
        assert abs(each["value"] - recorded[name]["value"]) <= 1e-6 * abs(each["value"])
