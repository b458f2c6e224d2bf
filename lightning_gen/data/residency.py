"""Where training images are drawn from: the device, memory, or their files in every epoch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, get_args

import torch

from lightning_gen.data.encoded_set import EncodedSet
from lightning_gen.data.image_set import ImageSource
from lightning_gen.errors import UserError

Residency = Literal["auto", "device", "memory", "stream"]


def check_residency(residency: str) -> None:
    """Refuse what is none of `Residency`.

    Raises:
        UserError: naming those there are.
    """
    if residency not in get_args(Residency):
        raise UserError(f"data.residency must be auto, device, memory or stream, not {residency!r}")


def choose_residency(wanted: Residency, sources: Sequence[ImageSource], device: torch.device) -> Residency:
    """What is wanted; for ``auto`` the first of device and memory in which the images take less than a quarter, else
    ``stream``. Images that differ from epoch to epoch are streamed; those in memory already stay there.

    Args:
        wanted: of the config.
        sources: the sets that are trained on.
        device: that is trained on.
    """
    if wanted != "auto":
        return wanted
    size = sum(source.decoded_bytes for source in sources)
    encoded = any(isinstance(source, EncodedSet) for source in sources)
    if any(map(draws_anew, sources)) or (encoded and size > _memory() / 4):
        return "stream"
    if device.type == "cuda" and size < torch.cuda.mem_get_info(device)[0] / 4:
        return "device"
    return "memory"


def draws_anew(source: ImageSource) -> bool:
    """Whether a set's images differ from epoch to epoch."""
    return isinstance(source, EncodedSet) and source.frame.crop == "random"


def _memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
