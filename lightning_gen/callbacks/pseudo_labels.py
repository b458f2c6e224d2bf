"""Rounds of pseudo labels: what a model makes of the training images that have no label, and which it learns from."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_gen.callbacks.schedule import batch_draws, training_loader
from lightning_gen.callbacks.scores import synchronize_buffers
from lightning_gen.data import ImageDataModule
from lightning_gen.data.batches import UNLABELLED
from lightning_gen.data.image_set import ImageSet
from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import LabelsPool
from lightning_gen.tracking.run_directory import RunDirectory


class PseudoLabels(Callback):
    """Makes a model's rounds when it says so, and hands it every batch's pseudo labels.

    The pool is what is left of the split ``train`` without its labelled images; images held out as ``val`` are not in
    that split. They are classified by the averaged weights, not augmented; all ranks take part: the images are cut into
    blocks, of which process r of w classifies r, r + w, ..., and each process makes the same choice of all. Every round
    adds a line to ``rounds.jsonl``. Its numbers of wrong labels are for the reader: nothing depends on them. Nothing
    happens to a model that is no `lightning_gen.models.capabilities.LabelsPool`. It must come before the callbacks that
    save checkpoints.

    Args:
        run: where ``rounds.jsonl`` is.
        block_size: images classified at once.

    Raises:
        UserError: a size out of range.
    """

    def __init__(self, run: RunDirectory, block_size: int = 500) -> None:
        if block_size < 1:
            raise UserError(f"callbacks.pseudo_labels.block_size must be at least 1, not {block_size}")
        self.run = run
        self.block_size = block_size
        self._images: ImageSet | None = None
        self._unlabelled = torch.empty(0, dtype=torch.int64)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the images at hand; a run that begins has no pseudo labels, even with another run's weights."""
        assert isinstance(pl_module, GenerativeModel)
        if not isinstance(pl_module, LabelsPool):
            return
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        self._images = data.reference_set("train")
        number = pl_module.pool_labels.shape[1]
        if len(self._images) != number or training_loader(trainer).plan.lengths[0] != number:
            raise UserError(
                f"{data.name} has {len(self._images)} training images and the model {number} places for pseudo labels: "
                "begin a new run, without damaged images or data.generated"
            )
        self._unlabelled = unlabelled_images(data)
        if not len(self._unlabelled):
            raise UserError(
                "every training image is labelled, and none is left to label: lower data.labelled_per_class"
            )
        if not pl_module.iteration:
            pl_module.forget_pool()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Hand over the pseudo labels of the batch's images."""
        if self._images is None:
            return
        assert isinstance(pl_module, LabelsPool)
        # The first set of a batch is that of all training images.
        indices = batch_draws(trainer)[0].indices
        pl_module.batch_pool_labels = pl_module.pool_labels[:, indices.to(pl_module.pool_labels.device)]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Make a round if one is due."""
        if self._images is None:
            return
        assert isinstance(pl_module, GenerativeModel)
        assert isinstance(pl_module, LabelsPool)
        number = pl_module.round_due()
        if number:
            self.make_round(trainer, pl_module, number)

    def make_round(self, trainer: Trainer, model: GenerativeModel, number: int) -> None:
        """Make the round that is due, of this number; every rank must call it."""
        assert isinstance(model, LabelsPool)
        assert self._images is not None
        with model.evaluation():
            synchronize_buffers(trainer, model)
            place = {"rank": trainer.global_rank, "world_size": trainer.world_size}
            proposed = propose_in_blocks(model, self._images, self._unlabelled, self.block_size, **place)
        if trainer.world_size > 1:
            for part in proposed:
                torch.distributed.all_reduce(part)
        before = model.pool_labels.cpu().clone()
        confidences, labels = (part.cpu() for part in proposed)
        sure = model.label_pool(confidences, labels, self._unlabelled)
        if trainer.is_global_zero:
            line = {"iteration": model.iteration, "images_seen": model.images_seen, "round": number}
            pools = describe_pools(before, model.pool_labels.cpu(), sure, self._images.labels)
            self.run.append_round({**line, "over": bool(model.rounds_over), "pools": pools})


def unlabelled_images(data: ImageDataModule) -> Tensor:
    """(U,) int64, ascending: the images of the split ``train`` whose label is not told."""
    hidden = torch.ones(len(data.split("train")), dtype=torch.bool)
    if data.labelled_indices is not None:
        hidden[data.labelled_indices] = False
    return hidden.nonzero().flatten()


def propose_in_blocks(
    model: GenerativeModel,
    images: ImageSet,
    indices: Tensor,
    block_size: int,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[Tensor, Tensor]:
    """What a model proposes for images; zeros for those of other processes, so that sums over all are the whole.

    Args:
        model: that `LabelsPool`, in evaluation mode.
        images: the training set.
        indices: (U,) int64 of the images to label, U > 0.
        block_size: images classified at once.
        rank: this process, from 0.
        world_size: number of processes.

    Returns:
        Confidences (V, U) float32 and labels (V, U) int64, on the model's device.
    """
    assert isinstance(model, LabelsPool)

    def propose(chosen: Tensor) -> tuple[Tensor, Tensor]:
        read = images.subset(chosen.to(images.images.device)).images
        return model.propose_labels(to_float(read.to(model.device)).contiguous())

    # One image says how many classifiers there are, to processes without a block too.
    confidences, labels = (part.new_zeros(len(part), len(indices)) for part in propose(indices[:1]))
    for first in range(rank * block_size, len(indices), world_size * block_size):
        block = slice(first, first + block_size)
        confidences[:, block], labels[:, block] = propose(indices[block])
    return confidences, labels


def describe_pools(before: Tensor, after: Tensor, confidences: Tensor, true: Tensor | None) -> list[dict[str, Any]]:
    """What a line of ``rounds.jsonl`` says of each pool.

    Args:
        before: pseudo labels (P, N) int64.
        after: those after the round.
        confidences: (P, U) with which labels were given, NaN where none was.
        true: labels (N,) int64 of the images.

    Returns:
        For each pool the number of images, how many of each class that occurs, the mean confidence of the labels given
        in this round (None if none was), how many images have another label than before or no longer one, or got one,
        and how many labels are wrong.
    """
    lines = []
    for old, new, sure in zip(before, after, confidences, strict=True):
        chosen = new != UNLABELLED
        counts = torch.bincount(new[chosen]).tolist()
        given = sure[~sure.isnan()].double()
        lines.append(
            {
                "images": int(chosen.sum()),
                "per_class": {str(label): count for label, count in enumerate(counts) if count},
                "mean_confidence": float(given.mean()) if len(given) else None,
                "changed": int((old != new).sum()),
                "wrong": None if true is None else int((new != true.cpu())[chosen].sum()),
            }
        )
    return lines
