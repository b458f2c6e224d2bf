"""Fit a model's classifier to the features of the training images, before the first iteration."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_gen.data import ImageDataModule
from lightning_gen.data.loaders import OrderedLoader
from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import FitsFeatures
from lightning_gen.tracking.logs import log_scalars


class FitClassifier(Callback):
    """Hands a model all training images once, in order and not augmented, with the labels that training may see.

    The other images' labels are -1. Images of ``val`` and ``test`` are never among them. Rank zero fits and the other
    processes get its numbers. A model that was fitted before, as one from a checkpoint is, stays as it is. Nothing
    happens to a model that is no `lightning_gen.models.capabilities.FitsFeatures`.

    Args:
        block_size: images whose features are computed at once.
    """

    def __init__(self, block_size: int = 250) -> None:
        if block_size < 1:
            raise UserError(f"callbacks.fit_classifier.block_size must be at least 1, not {block_size}")
        self.block_size = block_size

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit, unless that is done."""
        if not isinstance(pl_module, FitsFeatures) or pl_module.fitted:
            return
        assert isinstance(pl_module, GenerativeModel)
        if trainer.is_global_zero:
            data: ImageDataModule = trainer.datamodule
            with pl_module.evaluation():
                facts = pl_module.fit_images(training_blocks(data, pl_module.uses_unlabelled, self.block_size))
            log_scalars(trainer, {f"fit/{name}": value for name, value in facts.items()}, pl_module.images_seen)
        if trainer.world_size > 1:
            for tensor in [*pl_module.parameters(), *pl_module.buffers()]:
                torch.distributed.broadcast(tensor.data, src=0)


def training_blocks(data: ImageDataModule, unlabelled: bool, block_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The training images (N, C, H, W) in [-1, 1] and their labels (N,) int64, -1 where hidden, in blocks.

    Args:
        data: a set with classes.
        unlabelled: whether images without a label are among them.
        block_size: N, but in the last block.
    """
    everything, *labelled = data.training_sources()
    source = everything if unlabelled or not labelled else labelled[0]
    for (batch,) in OrderedLoader(source, block_size, num_workers=data.workers()):
        assert batch.labels is not None
        yield to_float(batch.images.contiguous()), batch.labels
