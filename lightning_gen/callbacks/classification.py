"""Score how well a model that classifies does so."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lightning_gen.callbacks.scores import ScoringCallback
from lightning_gen.data.image_set import ImageSet
from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.metrics.base import SCORING_VERSION, Score
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import Classifies
from lightning_gen.tracking.run_directory import RunDirectory


class ClassificationError(ScoringCallback):
    """Percent of a split's images that the averaged model gives another class than their label.

    The score ``<split>_error`` stands beside the other scores of its iteration in ``metrics.jsonl`` and in the run's
    record, and needs none of them. All ranks take part: the images are cut into blocks, of which process r of w
    classifies r, r + w, ..., and the numbers of errors are added, so the score is the same at any number of processes.

    Args:
        run: where ``metrics.jsonl`` is.
        every_n_images: how often, in images seen; null for the end alone.
        split: of the data set.
        block_size: images classified at once.
    """

    def __init__(
        self, run: RunDirectory, every_n_images: int | None = None, split: str = "test", block_size: int = 500
    ) -> None:
        if block_size < 1:
            raise UserError(f"callbacks.classification_error.block_size must be at least 1, not {block_size}")
        super().__init__(run, every_n_images)
        self.split = split
        self.block_size = block_size
        self._images: ImageSet | None = None
        self._protocol: dict[str, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the images and their digest at hand."""
        if not isinstance(pl_module, Classifies):
            raise UserError(f"{type(pl_module).__name__} does not classify: set callbacks.classification_error=null")
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._images = data.reference_set(self.split)
        assert self._images is not None
        if self._images.labels is None:
            raise UserError(f"{data.name} has no classes: set callbacks.classification_error=null")
        self._protocol = error_protocol(
            data.name, self.split, self._images, data.labelled_indices, data.generated_set, data.generated.only
        )

    def measure(self, trainer: Trainer, model: GenerativeModel) -> list[Score]:
        """The error."""
        assert self._images is not None
        place = {"rank": trainer.global_rank, "world_size": trainer.world_size}
        wrong = count_errors(model, self._images, self.block_size, **place)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(wrong)
        score = Score(
            name=f"{self.split}_error",
            value=100 * int(wrong) / len(self._images),
            std=None,
            images_seen=model.images_seen,
            lower_is_better=True,
            ranked=True,
            protocol={**self._protocol, "weights": "raw" if model.average is None else "ema"},
        )
        return [score]


def count_errors(
    model: GenerativeModel, images: ImageSet, block_size: int, *, rank: int = 0, world_size: int = 1
) -> Tensor:
    """Wrongly classified images in this process's blocks, a scalar int64 on the model's device.

    Args:
        model: one that classifies, in evaluation mode.
        images: with labels.
        block_size: images classified at once.
        rank: this process, from 0.
        world_size: number of processes.
    """
    assert isinstance(model, Classifies)
    assert images.labels is not None
    wrong = torch.zeros((), dtype=torch.int64, device=model.device)
    for first in range(rank * block_size, len(images), world_size * block_size):
        block = slice(first, first + block_size)
        logits = model.classify(to_float(images.images[block].to(model.device)))
        wrong += (logits.argmax(1) != images.labels[block].to(model.device)).sum()
    return wrong


def error_protocol(
    dataset: str,
    split: str,
    images: ImageSet,
    labelled: Tensor | None,
    generated: ImageSet | None = None,
    only_generated: bool = False,
) -> dict[str, Any]:
    """What two errors must share to be compared, but for the weights.

    Args:
        dataset: name of the set.
        split: that is classified.
        images: the split, with labels. The digest of those stays the same where images are resized.
        labelled: (M,) int64 real training images that kept their label, or None for all.
        generated: generated images that were trained on, which ``labels`` of the protocol does not count.
        only_generated: whether no real image was.
    """
    if only_generated:
        labelled = torch.empty(0, dtype=torch.int64)
    assert images.labels is not None
    labels = None
    if labelled is not None:
        labels = {"number": len(labelled), "digest": _digest(labelled)}
    protocol = {
        "metric": {"name": "classification_error"},
        "reference": {
            "dataset": dataset,
            "split": split,
            "size": len(images),
            "digest": images.digest,
            "labels_digest": _digest(images.labels),
        },
        "labels": labels,
        "scoring_version": SCORING_VERSION,
    }
    if generated is not None:
        protocol["generated"] = {"number": len(generated), "digest": generated.digest}
    return protocol


def _digest(numbers: Tensor) -> str:
    """SHA-256 (hexadecimal) of integers in their order."""
    return hashlib.sha256(numbers.to(torch.int64).contiguous().cpu().numpy().data).hexdigest()
