"""Diffusion models with networks whose outputs are known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_gen.models.diffusion import Diffusion
from lightning_gen.networks.denoising import DenoisingNetwork

SHAPE = (1, 4, 4)
PARTS: dict[str, Any] = {
    "schedule": {"name": "cosine", "num_steps": 20},
    "target": {"name": "v"},
    "weight": {"name": "simple"},
    "times": {"name": "uniform"},
    "sampler": {"name": "ddim", "steps": 4},
}
LABELS: dict[str, Any] = {"conditional": True, "num_classes": 3, "label_law": [0.5, 0.3, 0.2]}


class KnownNetwork(DenoisingNetwork):
    """``scale * images + shifts[label]``, which keeps what it was called with.

    Attributes:
        calls: images, noise levels and labels of every call.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int | None = None, scale: float = 0.1) -> None:
        super().__init__(image_shape, num_classes)
        self.scale = nn.Parameter(torch.tensor(scale))
        self.shifts = nn.Parameter(torch.linspace(0, 0.3, (num_classes or 0) + 1))
        self.calls: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def forward(self, images: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        self.calls.append((images, noise_level, labels))
        shifts = self.shifts[0] if labels is None else self.shifts[labels].view(-1, 1, 1, 1)
        return self.scale * images + shifts


def small_diffusion(**options: Any) -> Diffusion:
    """A diffusion model of a `KnownNetwork`, by default DDIM in 4 steps with a cosine schedule of 20."""
    network = {"_target_": f"{__name__}.KnownNetwork"} | options.pop("network", {})
    optimizer = {"name": "SGD", "lr": 0.1}
    return Diffusion(**{"image_shape": SHAPE, "network": network, "optimizer": optimizer, **PARTS, **options})


def known(model: Diffusion) -> KnownNetwork:
    """The model's network."""
    assert isinstance(model.network, KnownNetwork)
    return model.network
