"""What a training iteration gets: images, pairs of images, or images of which some are labelled.

Every batch has ``images`` and ``labels``, so a model that needs no more can train on any of them.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

UNLABELLED = -1
"""The label of an image whose class is not given."""


class ImageBatch(NamedTuple):
    """Images of one set.

    Attributes:
        images: (N, C, H, W), uint8 as loaded, float32 in [-1, 1] once on the training device.
        labels: (N,) int64, or None for a set without classes.
    """

    images: Tensor
    labels: Tensor | None


class PairBatch(NamedTuple):
    """Images of two domains: row by row the same scene in a paired set, unrelated in an unpaired one.

    Attributes:
        images_a: (N, Ca, H, W) float32 in [-1, 1], what is translated.
        images_b: (N, Cb, H, W) float32 in [-1, 1], what it is translated to.
        labels_a: (N,) int64 or None.
        labels_b: (N,) int64 or None; the same as ``labels_a`` in a paired set.
    """

    images_a: Tensor
    images_b: Tensor
    labels_a: Tensor | None
    labels_b: Tensor | None

    @property
    def images(self) -> Tensor:
        """The images of the second domain."""
        return self.images_b

    @property
    def labels(self) -> Tensor | None:
        """The labels of the second domain."""
        return self.labels_b


class DomainBatch(NamedTuple):
    """Images of two domains, unrelated, beside images of the labelled part of the second one.

    Attributes:
        images_a: (N, C, H, W) float32 in [-1, 1], of the source domain.
        images_b: (N, C, H, W) float32 in [-1, 1], of the target domain.
        labels_a: (N,) int64.
        labels_b: (N,) int64, `UNLABELLED` but for images of the labelled part.
        labelled_images: (M, C, H, W) float32 in [-1, 1], of the target domain.
        labelled_labels: (M,) int64.
    """

    images_a: Tensor
    images_b: Tensor
    labels_a: Tensor
    labels_b: Tensor
    labelled_images: Tensor
    labelled_labels: Tensor

    @property
    def images(self) -> Tensor:
        """The images of the target domain."""
        return self.images_b

    @property
    def labels(self) -> Tensor:
        """The labels of the target domain."""
        return self.labels_b


class SemiSupervisedBatch(NamedTuple):
    """Images of the whole training set, beside images of its labelled part.

    Attributes:
        images: (N, C, H, W) float32 in [-1, 1].
        labels: (N,) int64, `UNLABELLED` but for images of the labelled part.
        labelled_images: (M, C, H, W) float32 in [-1, 1].
        labelled_labels: (M,) int64.
    """

    images: Tensor
    labels: Tensor
    labelled_images: Tensor
    labelled_labels: Tensor
