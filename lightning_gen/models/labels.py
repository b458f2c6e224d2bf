"""What models that are told the class, or learn it, need of the data."""

from __future__ import annotations

from torch import Tensor

from lightning_gen.data.batches import SemiSupervisedBatch
from lightning_gen.errors import UserError
from lightning_gen.models.base import ImageBatch


def check_conditional(num_classes: int, labelled_per_class: int | None) -> None:
    """Refuse ``model.conditional=true`` on data without (all) labels.

    Args:
        num_classes: K of the data, 0 for a set without classes.
        labelled_per_class: how many images of each class keep their label, None for all.

    Raises:
        UserError: naming the remedy.
    """
    if not num_classes:
        raise UserError("model.conditional=true needs labels, and the data set has no classes: set it to false")
    if labelled_per_class is not None:
        raise UserError(
            f"model.conditional=true needs the label of every image, and data.labelled_per_class={labelled_per_class} "
            "hides most of them: set data.labelled_per_class to null"
        )


def check_has_classes(model: str, num_classes: int) -> None:
    """Refuse a set of images without classes.

    Args:
        model: how the message calls the model.
        num_classes: K of the data, 0 for a set without.

    Raises:
        UserError: naming the remedy.
    """
    if not num_classes:
        raise UserError(f"{model} learns classes, and the data set has none: choose another data set")


def labelled_part(batch: ImageBatch) -> tuple[Tensor, Tensor]:
    """The images (N, C, H, W) of a batch whose labels (N,) int64 are known, and those.

    Raises:
        UserError: a batch without labels.
    """
    if isinstance(batch, SemiSupervisedBatch):
        return batch.labelled_images, batch.labelled_labels
    if batch.labels is None:
        raise UserError("a classifier learns from labels, and the batch has none: choose another data set")
    return batch.images, batch.labels
