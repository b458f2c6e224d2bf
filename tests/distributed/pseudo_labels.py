"""Makes rounds of pseudo labels on this rank and writes what it ended with; see test_pseudo_labels.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from lightning_gen.callbacks.pseudo_labels import PseudoLabels, propose_in_blocks, unlabelled_images
from lightning_gen.data import ImageDataModule
from lightning_gen.models.co_training import CoTraining
from lightning_gen.registry import construct
from lightning_gen.tracking.run_directory import RunDirectory
from lightning_gen.training import build_model, quieten
from tests.distributed.family import digest
from tests.models.tiny import tiny_config
from tests.trainers import quiet_trainer


def main(folder: Path) -> None:
    """Write ``rank<r>.json`` and, on rank zero, ``rounds.jsonl``."""
    quieten()
    torch.set_num_threads(1)
    overrides = ["model.warmup_iterations=2", "model.round_iterations=2", "model.rounds=3", "model.balance=false"]
    config = tiny_config("co_training", *overrides, "model.pool=separate")
    torch.manual_seed(0)
    data = construct(config["data"], ImageDataModule)  # type: ignore[type-abstract]
    model = build_model(config, data)
    assert isinstance(model, CoTraining)
    # The last iteration ends with a round.
    trainer = quiet_trainer(
        4,
        PseudoLabels(RunDirectory(folder), block_size=100),
        devices=2,
        strategy="ddp_find_unused_parameters_true",
        use_distributed_sampler=False,
    )
    trainer.fit(model, datamodule=data)
    together = model.pool_labels.clone()
    indices = unlabelled_images(data)
    with model.evaluation():
        proposed = propose_in_blocks(model, data.reference_set("train"), indices, 100)
    model.forget_pool()
    model.label_pool(*proposed, indices)
    report = {"parameters": digest(model), "together": together.tolist(), "alone": model.pool_labels.tolist()}
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
