"""A pool of earlier fake images for discriminators (Shrivastava et al. 2017, section 2.3, as in Zhu et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

EXCHANGED = 0.5
"""Probability that a full pool gives an earlier image for a new one."""


class ReplayPool:
    """Keeps fake images and hands earlier ones out in their place.

    While the pool has room every image is kept and returned as it came. Then each is, with probability 1/2, put in the
    place of a random image of the pool, which is returned instead. Draws are from torch's global generator of the CPU.

    Args:
        size: most images that it keeps; 0 to return all as they come.

    Attributes:
        images: (n, C, H, W), those it keeps; None before the first.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: Tensor | None = None
        self._count = 0

    @property
    def images(self) -> Tensor | None:
        """See above."""
        return None if self._kept is None else self._kept[: self._count]

    def exchange(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) for the discriminator, for new fake images (N, C, H, W) without a gradient, in order."""
        if not self.size:
            return images
        if self._kept is None:
            self._kept = images.new_empty(self.size, *images.shape[1:])
        self._kept = kept = self._kept.to(images.device)
        # All numbers are drawn, needed or not, so that what is drawn does not depend on how full the pool is.
        chances, places = torch.rand(len(images)), torch.randint(self.size, (len(images),))
        handed_out = images.clone()
        for number, (chance, place) in enumerate(zip(chances.tolist(), places.tolist(), strict=True)):
            if self._count < self.size:
                kept[self._count] = images[number]
                self._count += 1
            elif chance < EXCHANGED:
                handed_out[number] = kept[place]
                kept[place] = images[number]
        return handed_out

    def restore(self, images: Tensor | None) -> None:
        """Go on with images (n, C, H, W) that a pool kept; with the first of them if they are too many."""
        self._kept, self._count = None, 0
        if images is not None and self.size:
            self._count = min(len(images), self.size)
            self._kept = images.new_empty(self.size, *images.shape[1:])
            self._kept[: self._count] = images[: self._count]


def gather_pools(images: Tensor | None, device: torch.device) -> list[Tensor]:
    """The images of every process's pool, in the order of ranks, on the CPU.

    Every process calls it, with as many images; the result is whole on rank zero and empty elsewhere.

    Args:
        images: (n, C, H, W) of this process's pool, or None.
        device: where processes exchange tensors.
    """
    if images is None:
        return []
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [images.cpu().clone()]
    own = images.to(device).contiguous()
    if dist.get_rank():
        dist.gather(own, dst=0)
        return []
    pools = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.gather(own, pools, dst=0)
    return [pool.cpu() for pool in pools]


def own_pool(pools: Sequence[Tensor]) -> Tensor | None:
    """Of what `gather_pools` gave rank zero this process's pool; with more processes than pools, one of them again."""
    if not pools:
        return None
    return pools[(dist.get_rank() if dist.is_initialized() else 0) % len(pools)]
