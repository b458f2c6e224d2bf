"""Trains every model for a few iterations on this rank and writes what it ended with; see test_family.py."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch

from lightning_gen.callbacks.fit_classifier import FitClassifier
from lightning_gen.data import ImageDataModule
from lightning_gen.registry import construct
from lightning_gen.training import build_model, quieten
from tests.models.tiny import EVERY_MODEL, tiny_config
from tests.trainers import quiet_trainer


def digest(model: torch.nn.Module) -> str:
    """SHA-256 of all parameters."""
    sha = hashlib.sha256()
    for parameter in model.parameters():
        sha.update(parameter.detach().contiguous().numpy().tobytes())
    return sha.hexdigest()


def main(folder: Path) -> None:
    """Train and write ``rank<r>.json``: model -> digest before and after."""
    quieten()
    torch.set_num_threads(1)
    digests = {}
    rank = -1
    for name in EVERY_MODEL:
        config = tiny_config(name)
        torch.manual_seed(0)
        data = construct(config["data"], ImageDataModule)  # type: ignore[type-abstract]
        model = build_model(config, data)
        before = digest(model)
        trainer = quiet_trainer(
            config["trainer"]["max_steps"],
            FitClassifier(),
            devices=2,
            strategy="ddp_find_unused_parameters_true",
            use_distributed_sampler=False,
        )
        trainer.fit(model, datamodule=data)
        rank = trainer.global_rank
        digests[name] = {"before": before, "after": digest(model), "iterations": trainer.global_step}
    (folder / f"rank{rank}.json").write_text(json.dumps(digests))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
