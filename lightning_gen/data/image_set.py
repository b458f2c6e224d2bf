"""Sets of images of one shape: what all of them offer, and those held in memory."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightning_gen.data.batches import ImageBatch


class ImageSource(ABC):
    """Images of one shape that can be drawn by index.

    Attributes:
        labels: (N,) int64, or None.
    """

    labels: Tensor | None

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""

    @abstractmethod
    def batch(self, indices: Tensor, epoch: int, out: Tensor | None = None) -> ImageBatch:
        """The uint8 images at ``indices`` (M,) int64 as they look in that epoch (random crops differ); always M.

        Args:
            indices: of the images.
            epoch: from 0.
            out: (M, H, W, C) uint8 to write them to; None makes a new tensor.
        """

    @abstractmethod
    def read(self, indices: Tensor) -> ImageBatch:
        """The uint8 images at ``indices`` (M,) int64, for evaluation; damaged ones that are skipped are left out."""

    @abstractmethod
    def subset(self, indices: Tensor) -> ImageSource:
        """The images at ``indices`` (M,) int64, in that order."""

    @abstractmethod
    def with_labels(self, labels: Tensor | None) -> ImageSource:
        """The same images under other labels."""

    @property
    def decoded_bytes(self) -> int:
        """Size of all images as uint8."""
        channels, height, width = self.image_shape
        return len(self) * channels * height * width


@dataclass(frozen=True)
class ImageSet(ImageSource):
    """A set of images held in memory, or in a file that is mapped into it.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64, or None.
    """

    images: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the shape, the pixels and the labels: equal content, equal digest."""
        content = hashlib.sha256(f"uint8{tuple(self.images.shape)}".encode())
        for block in self.images.split(4096):
            content.update(block.contiguous().cpu().numpy().data)
        if self.labels is not None:
            content.update(self.labels.contiguous().cpu().numpy().data)
        return content.hexdigest()

    def batch(self, indices: Tensor, epoch: int, out: Tensor | None = None) -> ImageBatch:
        """The images at ``indices``, the same in every epoch."""
        del epoch
        batch = self.read(indices)
        return batch if out is None else batch._replace(images=out.permute(0, 3, 1, 2).copy_(batch.images))

    def read(self, indices: Tensor) -> ImageBatch:
        """The images at ``indices``."""
        chosen = self.subset(indices)
        return ImageBatch(chosen.images, chosen.labels)

    def subset(self, indices: Tensor) -> ImageSet:
        """The images at ``indices`` (M,) int64, in that order."""
        # index_select copies whole images; indexing by a tensor goes pixel by pixel and takes four times as long.
        labels = None if self.labels is None else self.labels.index_select(0, indices)
        return ImageSet(self.images.index_select(0, indices), labels)

    def first(self, number: int | None) -> ImageSet:
        """The first images, or all for None."""
        return ImageSet(self.images[:number], None if self.labels is None else self.labels[:number])

    def with_labels(self, labels: Tensor | None) -> ImageSet:
        """The same images under other labels."""
        return ImageSet(self.images, labels)

    def joined(self, other: ImageSet) -> ImageSet:
        """These images and then those of another set of the same shape; labels only where both have some."""
        labels = None
        if self.labels is not None and other.labels is not None:
            labels = torch.cat([self.labels, other.labels.to(self.labels.device)])
        return ImageSet(torch.cat([self.images, other.images.to(self.images.device)]), labels)

    def to(self, device: torch.device) -> ImageSet:
        """The same set on ``device``."""
        return ImageSet(self.images.to(device), None if self.labels is None else self.labels.to(device))
