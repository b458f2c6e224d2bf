"""Images in memory, and batches of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


class ImageBatch(NamedTuple):
    """One batch.

    Attributes:
        images: (N, C, H, W), uint8 as loaded, float32 in [-1, 1] once on the training device.
        labels: (N,) int64, or None for a set without classes.
    """

    images: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class ImageSet:
    """A set of images held in memory.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64, or None.
    """

    images: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the shape, the pixels and the labels: equal content, equal digest."""
        content = hashlib.sha256(f"uint8{tuple(self.images.shape)}".encode())
        content.update(self.images.contiguous().cpu().numpy().data)
        if self.labels is not None:
            content.update(self.labels.contiguous().cpu().numpy().data)
        return content.hexdigest()

    def subset(self, indices: Tensor) -> ImageSet:
        """The images at ``indices`` (M,) int64, in that order."""
        # index_select copies whole images; indexing by a tensor goes pixel by pixel and takes four times as long.
        labels = None if self.labels is None else self.labels.index_select(0, indices)
        return ImageSet(self.images.index_select(0, indices), labels)

    def to(self, device: torch.device) -> ImageSet:
        """The same set on ``device``."""
        return ImageSet(self.images.to(device), None if self.labels is None else self.labels.to(device))
