"""Fit the mixture that a model draws latents from, before anything samples."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_gen.callbacks.schedule import EveryImages
from lightning_gen.data import ImageDataModule
from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import FitsLatents


class FitMixture(Callback):
    """Fits a model's `lightning_gen.models.latent_mixture.LatentMixture` at a period and at the end.

    On the first training images, not augmented, as the averaged weights encode them; a conditional model is given
    their labels. Rank zero fits and the other processes get its numbers. Nothing happens to a model that has no
    mixture. It must come before the callbacks that sample.

    Args:
        every_n_images: how often, in images seen; null for the end alone.
        block_size: images encoded at once.
    """

    def __init__(self, every_n_images: int | None = None, block_size: int = 500) -> None:
        if block_size < 1:
            raise UserError(f"callbacks.latent_mixture.block_size must be at least 1, not {block_size}")
        self.every = EveryImages(every_n_images)
        self.block_size = block_size
        self.fitted_iteration = -1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Fit if it is time."""
        assert isinstance(pl_module, GenerativeModel)
        if self.every.due(trainer, pl_module):
            self.fit(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit to the final weights, unless that is done."""
        assert isinstance(pl_module, GenerativeModel)
        if self.fitted_iteration != pl_module.iteration and pl_module.iteration:
            self.fit(trainer, pl_module)

    def fit(self, trainer: Trainer, model: GenerativeModel) -> None:
        """Fit now; every rank must call it."""
        self.fitted_iteration = model.iteration
        if not isinstance(model, FitsLatents) or model.mixture is None:
            return
        if trainer.is_global_zero:
            fit_mixture(model, trainer.datamodule, self.block_size)  # type: ignore[attr-defined]
        if trainer.world_size > 1:
            for buffer in model.mixture.buffers():
                torch.distributed.broadcast(buffer, src=0)


def fit_mixture(model: GenerativeModel, data: ImageDataModule, block_size: int = 500) -> None:
    """Fit the mixture of a model that has one on the first images of the training set."""
    assert isinstance(model, FitsLatents)
    assert model.mixture is not None
    chosen = data.reference_set("train", model.mixture.num_images)
    codes = []
    with model.evaluation():
        for first in range(0, len(chosen), block_size):
            block = slice(first, first + block_size)
            labels = None if chosen.labels is None else chosen.labels[block].to(model.device)
            codes.append(model.encode(to_float(chosen.images[block].to(model.device)), labels))
    model.mixture.fit(torch.cat(codes))
