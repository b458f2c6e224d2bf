"""Sets of two domains made of any other set, so that translation can be trained without a download."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from lightning_gen.data.batches import PairBatch
from lightning_gen.data.image_set import ImageSet, ImageSource
from lightning_gen.data.loaders import Columns
from lightning_gen.data.module import ImageDataModule
from lightning_gen.data.pairs import Canonical, PairDataModule, UnpairedDataModule
from lightning_gen.errors import UserError
from lightning_gen.images import grey, to_float, to_uint8
from lightning_gen.registry import construct

NEGATIVE = Canonical("negative", torch.neg)
"""How negatives are shown to what knows the images."""


class DerivedDataModule(ImageDataModule):
    """Two domains made of another data module's images; its splits, classes and cache are used.

    Args:
        data_dir: where downloaded sets are kept.
        source: spec of the other data module (see `lightning_gen.registry.construct`).
        options: those of `ImageDataModule`; ``image_size`` must be the source's.
    """

    def __init__(self, data_dir: str, source: Mapping[str, Any], **options: Any) -> None:
        self.source = construct(source, ImageDataModule)  # type: ignore[type-abstract]
        super().__init__(data_dir, **options)
        if self.image_size != self.source.image_size:
            raise UserError(
                f"data.image_size={self.image_size} and data.source.image_size={self.source.image_size} differ"
            )
        if isinstance(self.source, PairDataModule):
            raise UserError(f"data.source={self.source.name} is a set of pairs itself: name a set of single images")
        self.image_channels = self.source.image_channels
        self.splits = self.source.splits

    @property
    def all_class_names(self) -> Any:  # type: ignore[override]
        """Those of the source."""
        return self.source.class_names

    def load(self, split: str) -> ImageSource:
        """The source's split."""
        return self.source.split(split)

    def in_memory(self, source: ImageSource, split: str) -> ImageSet:
        """As the source does it, and in its cache."""
        return self.source.in_memory(source, split)


class DerivedPairsDataModule(DerivedDataModule, PairDataModule):
    """Pairs whose input is computed, on the device, from the (augmented) output."""

    @abstractmethod
    def derive(self, images: Tensor) -> Tensor:
        """Inputs (N, input_channels, H, W) in [-1, 1] of images (N, C, H, W) in [-1, 1]."""

    def assemble(self, columns: Columns) -> PairBatch:
        """The images with their inputs."""
        (batch,) = columns
        return PairBatch(self.derive(batch.images), batch.images, batch.labels, batch.labels)

    def input_set(self, split: str, number: int | None = None) -> ImageSet:
        """The inputs of the split's images, in order."""
        images = self.reference_set(split, number)
        blocks = [to_uint8(self.derive(to_float(block))) for block in images.images.split(1024)]
        return ImageSet(torch.cat(blocks), images.labels)


class EdgesDataModule(DerivedPairsDataModule):
    """Edge map -> image: outlines, white on black, by the Sobel operator."""

    def __init__(self, data_dir: str, source: Mapping[str, Any], **options: Any) -> None:
        super().__init__(data_dir, source, **options)
        self.name = f"edges_{self.source.name}"
        self.input_channels = 1

    def derive(self, images: Tensor) -> Tensor:
        """Edge maps (N, 1, H, W) in [-1, 1]."""
        return edges(images)


class ColorizeDataModule(DerivedPairsDataModule):
    """Grey -> colour."""

    def __init__(self, data_dir: str, source: Mapping[str, Any], **options: Any) -> None:
        super().__init__(data_dir, source, **options)
        self.name = f"colorize_{self.source.name}"
        self.input_channels = 1
        if self.image_channels != 3:
            raise UserError(f"{self.source.name} is grey and cannot be coloured: set data@data.source to a colour set")

    def derive(self, images: Tensor) -> Tensor:
        """Brightness (N, 1, H, W) in [-1, 1]."""
        return grey(images)


class HalvesDataModule(DerivedDataModule, UnpairedDataModule):
    """Unpaired domains of one set: every other image of a split is domain A; the rest, changed, is domain B."""

    def __init__(self, data_dir: str, source: Mapping[str, Any], **options: Any) -> None:
        super().__init__(data_dir, source, **options)
        self.input_channels = self.image_channels
        self.splits = UnpairedDataModule.splits

    def half(self, split: str) -> ImageSet:
        """The half of the source's split that is this domain, as the source has it, in memory."""
        everything = self.source.reference_set(split.removesuffix("_a"))
        return everything.subset(torch.arange(0 if split.endswith("_a") else 1, len(everything), 2))


class InvertedDataModule(HalvesDataModule):
    """Image -> negative, unpaired: every other image of a split is domain A; the rest, inverted, is domain B."""

    def __init__(self, data_dir: str, source: Mapping[str, Any], **options: Any) -> None:
        super().__init__(data_dir, source, **options)
        self.name = f"inverted_{self.source.name}"

    def load(self, split: str) -> ImageSource:
        """The half of the source's split that is this domain, in memory."""
        half = self.half(split)
        return half if split.endswith("_a") else ImageSet(255 - half.images, half.labels)

    def canonical(self, domain: str) -> Canonical | None:
        """The images of domain B are inverted back."""
        return NEGATIVE if domain == "B" else None


def edges(images: Tensor) -> Tensor:
    """Edge maps (N, 1, H, W) in [-1, 1] of images (N, C, H, W) in [-1, 1].

    The gradient of the brightness by the 3x3 Sobel operator with reflected borders: no change is -1, a step along an
    axis from black to mid-grey, or a steeper one, is 1.
    """
    smooth, difference = images.new_tensor([1.0, 2.0, 1.0]), images.new_tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([torch.outer(smooth, difference), torch.outer(difference, smooth)])[:, None]
    gradient = conv2d(pad(grey(images), [1, 1, 1, 1], mode="reflect"), kernels)
    return (gradient.square().sum(1, keepdim=True).sqrt() / 2 - 1).clamp(max=1)
