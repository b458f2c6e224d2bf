"""Pairs of images taken apart, as DiscoGAN trains on the sets of pix2pix."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_gen.data.encoded_module import EncodedDataModule
from lightning_gen.data.pairs import UnpairedDataModule
from lightning_gen.data.sets.paired import PairedDataModule, PairedSet


@dataclass(frozen=True, eq=False)
class OneOfEach(PairedSet):
    """One image of every pair.

    Attributes:
        domain: ``A``, the input, or ``B``.
    """

    domain: Literal["A", "B"] = "A"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.channels, self.frame.image_size, self.frame.image_size

    def pixels(self, record: int) -> Tensor:
        """All pixels (C, H, W) uint8 of the pair's image of this domain."""
        both = super().pixels(record)
        return both[: self.channels] if self.domain == "A" else both[self.channels :]

    def content(self) -> dict[str, Any]:
        """What the decoded pixels depend on."""
        return {**super().content(), "domain": self.domain}


class UnpairedHalvesDataModule(EncodedDataModule, UnpairedDataModule):
    """Inputs of the first half of the training pairs, and outputs of the second half (Kim et al. 2017, its code).

    So no image has its partner in the other domain. The test splits have both images of all pairs, in the same order.

    Args:
        data_dir: not used.
        path: of a set of pairs, as `PairedDataModule` reads it.
        direction: ``AtoB`` or ``BtoA``: which image is the input.
        options: those of `EncodedDataModule` and `ImageDataModule`.
    """

    def __init__(self, data_dir: str, path: str, direction: Literal["AtoB", "BtoA"] = "AtoB", **options: Any) -> None:
        super().__init__(data_dir, **options)
        self.pairs = PairedDataModule(data_dir, path, direction, **options)
        self.name = f"{self.pairs.name}_halves"
        self.input_channels = self.image_channels

    def load(self, split: str) -> OneOfEach:
        """List one domain's images of a split."""
        pairs = self.pairs.load(split.removesuffix("_a"))
        domain: Literal["A", "B"] = "A" if split.endswith("_a") else "B"
        if split.startswith("train"):
            half = len(pairs) // 2
            part = pairs.subset(torch.arange(half) if domain == "A" else torch.arange(half, len(pairs)))
            assert isinstance(part, PairedSet)
            pairs = part
        return OneOfEach(**{field.name: getattr(pairs, field.name) for field in fields(pairs)}, domain=domain)
