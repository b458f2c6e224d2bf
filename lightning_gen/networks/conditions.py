"""What a denoising network is told beside the image: how noisy it is, and a class or a text."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.registry import construct


class Embedded(NamedTuple):
    """What a condition says.

    Attributes:
        vectors: (N, D) float.
        tokens: (N, L, T) float for attention, or None for a condition that has only vectors.
        mask: (N, L) bool, true where there is a token.
    """

    vectors: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None


class Condition(nn.Module, ABC):
    """Labels (N,) int64 in [0, K], K for none, to what the network is told; a subclass says how.

    Attributes:
        token_dim: T of its tokens; None for a condition that has only vectors.
    """

    token_dim: int | None = None

    @abstractmethod
    def forward(self, labels: Tensor) -> Embedded:
        """What is said of labels (N,)."""


class ClassCondition(Condition):
    """A learnt vector of each class, and one for "no label" (Ho and Salimans 2022).

    They begin as draws of N(0, I), as in the code of Dhariwal and Nichol 2021, "Diffusion models beat GANs".

    Args:
        num_classes: K.
        dim: D of the vectors.
    """

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_classes + 1, dim)

    def forward(self, labels: Tensor) -> Embedded:
        """Vectors alone."""
        return Embedded(self.table(labels))


def build_condition(
    spec: Mapping[str, Any] | None, num_classes: int | None, class_names: Sequence[str] | None, dim: int
) -> Condition | None:
    """A network's condition.

    Args:
        spec: of a `Condition`; None for a `ClassCondition`.
        num_classes: K, or None for a network without classes, which has no condition.
        class_names: of the classes, for captions.
        dim: D of the vectors.

    Raises:
        UserError: a spec for a network without classes, or one that cannot be built.
    """
    if num_classes is None:
        if spec is not None:
            raise UserError("model.network.condition needs labels: set model.conditional=true")
        return None
    spec = spec or {"_target_": f"{__name__}.ClassCondition"}
    return construct(spec, Condition, num_classes=num_classes, class_names=class_names, dim=dim)  # type: ignore[type-abstract]


class NoiseLevelEmbedding(nn.Module):
    """Vectors of noise levels: sines and cosines, and two layers (Ho et al. 2020, appendix B).

    The frequencies fall geometrically from 1 to 1e-4 (Vaswani et al. 2017, section 3.5).

    Args:
        frequencies: half of them sines, half cosines.
        dim: D of the vectors.

    Raises:
        UserError: less than four frequencies, or an odd number.
    """

    frequencies: Tensor

    def __init__(self, frequencies: int, dim: int) -> None:
        super().__init__()
        if frequencies < 4 or frequencies % 2:
            raise UserError(f"model.network.channels must be even and at least 4, not {frequencies}")
        steps = torch.arange(frequencies // 2, dtype=torch.float64) / (frequencies // 2 - 1)
        self.register_buffer("frequencies", (-math.log(10_000) * steps).exp().float(), persistent=False)
        self.layers = nn.Sequential(nn.Linear(frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, noise_level: Tensor) -> Tensor:
        """Vectors (N, D) of noise levels (N,) float32."""
        angles = noise_level[:, None] * self.frequencies
        return self.layers(torch.cat([angles.sin(), angles.cos()], 1))
