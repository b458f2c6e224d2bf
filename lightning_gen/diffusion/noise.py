"""Random numbers of a tensor's shape from a generator of any device."""

from __future__ import annotations

import torch
from torch import Tensor


def normal_like(like: Tensor, rng: torch.Generator) -> Tensor:
    """Numbers ~ N(0, 1) of a tensor's shape, type and device.

    They are drawn where the generator lives, so that every device gets the numbers of a generator of the CPU; pinned
    memory lets a GPU go on working meanwhile.
    """
    pinned = _crosses(like, rng)
    return torch.randn(like.shape, generator=rng, device=rng.device, pin_memory=pinned).to(like, non_blocking=True)


def uniform_like(like: Tensor, rng: torch.Generator) -> Tensor:
    """Numbers ~ U[0, 1) of a tensor's shape, type and device; see `normal_like`."""
    pinned = _crosses(like, rng)
    return torch.rand(like.shape, generator=rng, device=rng.device, pin_memory=pinned).to(like, non_blocking=True)


def signs_like(like: Tensor, rng: torch.Generator) -> Tensor:
    """-1 or 1 with equal probability; see `normal_like`."""
    return uniform_like(like, rng).lt(0.5).to(like) * 2 - 1


def _crosses(like: Tensor, rng: torch.Generator) -> bool:
    return rng.device.type == "cpu" and like.device.type == "cuda"
