"""Moving averages of weights, counted in images."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


class Average(nn.Module, ABC):
    """Averages over training of some networks of a model; the copies train nothing and travel in the state dict.

    Parameters are averaged, buffers (batch-norm statistics) are copied.

    Args:
        networks: name -> network to follow.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.networks = copies(networks)

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Plain values from which `GenerativeModel.add_average` makes the same."""

    @abstractmethod
    def update(self, networks: Mapping[str, nn.Module], images: int, images_seen: int) -> None:
        """Follow ``networks`` after they trained on ``images`` more images, ``images_seen`` in all."""

    @contextmanager
    def swapped_in(self, networks: Mapping[str, nn.Module]) -> Iterator[None]:
        """Within the context ``networks`` hold the averages; afterwards their own weights again, to the bit."""
        pairs = [
            pair
            for name, average in self.networks.items()
            for pair in zip(_tensors(average), _tensors(networks[name]), strict=True)
        ]
        _exchange(pairs)
        try:
            yield
        finally:
            _exchange(pairs)


class WeightAverage(Average):
    """Exponential moving averages with a half-life in images.

    After ``b`` images the average keeps ``0.5 ** (b / half_life)`` of its old value (Karras et al. 2020, appendix B).
    While few images were seen the half-life is at most ``rampup_ratio * images_seen``, so that the first, random
    weights fade.

    Args:
        networks: name -> network to follow.
        half_life_images: images after which half of the average is new.
        rampup_ratio: share of the images seen that bounds the half-life; None for no bound.
    """

    def __init__(
        self, networks: Mapping[str, nn.Module], half_life_images: float, rampup_ratio: float | None = 0.05
    ) -> None:
        super().__init__(networks)
        self.half_life_images = half_life_images
        self.rampup_ratio = rampup_ratio

    @property
    def settings(self) -> dict[str, Any]:
        """The half-life and what bounds it."""
        return {"half_life_images": self.half_life_images, "rampup_ratio": self.rampup_ratio}

    def keep(self, images: int, images_seen: int) -> float:
        """Share of the old average that survives ``images`` more images, in [0, 1]."""
        half_life = self.half_life_images
        if self.rampup_ratio is not None:
            half_life = min(half_life, images_seen * self.rampup_ratio)
        return 0.5 ** (images / half_life) if half_life > 0 else 0.0

    def update(self, networks: Mapping[str, nn.Module], images: int, images_seen: int) -> None:
        """See `Average.update`."""
        follow(self.networks, networks, self.keep(images, images_seen))


def copies(networks: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Networks like those given that train nothing."""
    return nn.ModuleDict({name: copy.deepcopy(network) for name, network in networks.items()}).requires_grad_(False)


@torch.no_grad()
def follow(averages: nn.ModuleDict, networks: Mapping[str, nn.Module], keep: float) -> None:
    """Keep a share of the averaged parameters and take the rest from the networks; take all of their buffers."""
    for name, average in averages.items():
        followed = networks[name]
        torch._foreach_lerp_(list(average.parameters()), list(followed.parameters()), 1.0 - keep)
        for copied, buffer in zip(average.buffers(), followed.buffers(), strict=True):
            copied.copy_(buffer)


def _tensors(network: nn.Module) -> list[Tensor]:
    return list(chain(network.parameters(), network.buffers()))


def _exchange(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    for first, second in pairs:
        first.data, second.data = second.data, first.data
