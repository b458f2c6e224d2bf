"""Trains CycleGAN on this rank, whole and in two halves, and writes what it ended with; see test_pools.py."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch

from lightning_gen.data import ImageDataModule
from lightning_gen.models.cyclegan import CycleGAN
from lightning_gen.registry import construct
from lightning_gen.training import build_model, quieten
from tests.distributed.family import digest
from tests.models.tiny import tiny_config
from tests.trainers import quiet_trainer

ITERATIONS = 6


def train(steps: int, checkpoint: Path | None = None) -> tuple[CycleGAN, pl.Trainer]:
    """A model after ``steps``, of which those before the checkpoint are taken from there."""
    config = tiny_config("cyclegan", "trainer.max_steps=20")
    torch.manual_seed(0)
    data = construct(config["data"], ImageDataModule)  # type: ignore[type-abstract]
    model = build_model(config, data)
    assert isinstance(model, CycleGAN)
    trainer = quiet_trainer(steps, devices=2, strategy="ddp_find_unused_parameters_true", use_distributed_sampler=False)
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return model, trainer


def report(model: CycleGAN) -> dict[str, str]:
    """Digests of the parameters and of this rank's pools."""
    pools = {domain: pool.images for domain, pool in model.pools.items()}
    return {"parameters": digest(model), **{name: digest_of(images) for name, images in pools.items()}}


def digest_of(images: torch.Tensor | None) -> str:
    """SHA-256 of a tensor."""
    assert images is not None
    return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()


def main(folder: Path) -> None:
    """Write ``rank<r>.json`` and, on rank zero, ``half.ckpt``."""
    quieten()
    torch.set_num_threads(1)
    whole, _ = train(ITERATIONS)
    half, trainer = train(ITERATIONS // 2)
    trainer.save_checkpoint(folder / "half.ckpt")
    resumed, trainer = train(ITERATIONS, folder / "half.ckpt")
    results = {"whole": report(whole), "half": report(half), "resumed": report(resumed)}
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
