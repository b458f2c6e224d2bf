"""Sets of encoded images, decoded as they are drawn."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_gen.data.batches import ImageBatch
from lightning_gen.data.formats.decoding import Frame, decode_image
from lightning_gen.data.formats.records import GoneError, Records
from lightning_gen.data.image_set import ImageSource
from lightning_gen.errors import UserError
from lightning_gen.seeds import derive_seed

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class EncodedSet(ImageSource):
    """Images that are decoded, cut and resized when they are drawn.

    Attributes:
        records: the encoded images.
        frame: cut and size.
        channels: 1 or 3.
        labels: (N,) int64, or None.
        indices: (N,) int64, the record of each image; None for all in order.
        on_error: ``raise``, or ``skip`` to leave a damaged image out with a warning.
        seed: of random crops.
        damaged: (records,) bool in memory that workers share, the damaged images met so far.
    """

    records: Records
    frame: Frame
    channels: int
    labels: Tensor | None = None
    indices: Tensor | None = None
    on_error: Literal["raise", "skip"] = "raise"
    seed: int = 0
    damaged: Tensor | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise UserError(f"data.on_error must be raise or skip, not {self.on_error!r}")
        if self.damaged is None:
            damaged = torch.zeros(len(self.records), dtype=torch.bool).share_memory_()
            object.__setattr__(self, "damaged", damaged)

    def __len__(self) -> int:
        return len(self.records) if self.indices is None else len(self.indices)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.channels, self.frame.image_size, self.frame.image_size

    def subset(self, indices: Tensor) -> EncodedSet:
        """The images at ``indices`` (M,) int64, in that order."""
        return replace(
            self,
            indices=indices if self.indices is None else self.indices[indices],
            labels=None if self.labels is None else self.labels[indices],
        )

    def with_labels(self, labels: Tensor | None) -> EncodedSet:
        """The same images under other labels."""
        return replace(self, labels=labels)

    def batch(self, indices: Tensor, epoch: int, out: Tensor | None = None) -> ImageBatch:
        """The uint8 images at ``indices``; in place of a damaged one that is skipped, the next one that is whole."""
        images, used = [], []
        for wanted in indices.tolist():
            for index in range(wanted, wanted + len(self)):
                image = self.image(index % len(self), epoch)
                if image is not None:
                    images.append(image)
                    used.append(index % len(self))
                    break
            else:
                raise UserError(
                    f"none of the {len(self)} images can be read, such as {self.records.name(0)}: set data.path"
                )
        return ImageBatch(_stack(images, out), None if self.labels is None else self.labels[used])

    def read(self, indices: Tensor) -> ImageBatch:
        """The uint8 images at ``indices``; damaged ones that are skipped are left out."""
        images = {index: self.image(index, None) for index in indices.tolist()}
        whole = {index: image for index, image in images.items() if image is not None}
        stacked = _stack(list(whole.values())) if whole else torch.empty(0, *self.image_shape, dtype=torch.uint8)
        return ImageBatch(stacked, None if self.labels is None else self.labels[list(whole)])

    def image(self, index: int, epoch: int | None) -> Tensor | None:
        """Image ``index`` (C, H, W) uint8, or None if it is damaged and skipped.

        Args:
            index: of the image.
            epoch: of training, in which a random crop differs; None cuts from the middle, for evaluation.

        Raises:
            UserError: it is damaged and ``on_error`` is ``raise``, or its folder is gone.
        """
        assert self.damaged is not None
        record = index if self.indices is None else int(self.indices[index])
        if self.damaged[record]:
            return None
        position = 0.5
        if self.frame.crop == "random" and epoch is not None:
            position = derive_seed("crop", self.seed, epoch, record) / 2**63
        try:
            return self.frame.apply(self.pixels(record), self.records.name(record), position)
        except UserError as error:
            if self.on_error == "raise" or isinstance(error, GoneError):
                raise
            self.damaged[record] = True
            log.warning("skipped: %s", str(error).partition(": ")[0])
            return None

    def pixels(self, record: int) -> Tensor:
        """All pixels (C, H, W) uint8 of a record, at any size."""
        return decode_image(self.records.read(record), self.records.name(record), self.channels)

    def undamaged(self) -> Tensor:
        """Indices (M,) int64 of all images but those that any worker of this process has met damaged and skipped."""
        assert self.damaged is not None
        return (~(self.damaged if self.indices is None else self.damaged[self.indices])).nonzero().flatten()

    def content(self) -> dict[str, Any]:
        """What `read` gives depends on this, JSON-able; reads every file once."""
        indices = range(len(self)) if self.indices is None else self.indices.tolist()
        labels = None if self.labels is None else hashlib.sha256(self.labels.numpy().tobytes()).hexdigest()
        return {
            "kind": type(self).__name__,
            "records": self.records.digest(indices),
            "labels": labels,
            "frame": self.frame.settings(),
            "channels": self.channels,
            "on_error": self.on_error,
        }


def _stack(images: list[Tensor], out: Tensor | None = None) -> Tensor:
    """Images (C, H, W) as a batch (N, C, H, W).

    The channels stay last in memory, as decoders leave them: a plain copy, where reordering would cost a third more.
    """
    return torch.stack([image.permute(1, 2, 0) for image in images], out=out).permute(0, 3, 1, 2)
