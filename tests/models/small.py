"""A GAN small enough to be fitted in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.models.gan import GAN
from tests.trainers import quiet_trainer

ADAM = {"name": "Adam", "lr": 1e-3, "betas": [0.5, 0.999]}


def small_gan(**options: Any) -> GAN:
    torch.manual_seed(0)
    networks = {
        "generator": {"_target_": "lightning_gen.networks.dcgan.DCGANGenerator", "base_channels": 2},
        "discriminator": {"_target_": "lightning_gen.networks.dcgan.DCGANDiscriminator", "base_channels": 2},
    }
    optimizers = {"generator_optimizer": ADAM, "discriminator_optimizer": ADAM}
    return GAN(**{"image_shape": (1, 32, 32), "latent_dim": 4, **networks, **optimizers, **options})


def fit(model: GAN, steps: int, *callbacks: pl.Callback, checkpoint: Path | None = None) -> pl.Trainer:
    trainer = quiet_trainer(steps, *callbacks)
    data = DigitsDataModule("unused", batch_size=16)
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return trainer
