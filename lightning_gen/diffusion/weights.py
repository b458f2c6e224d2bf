"""Weights of the squared error of what a network predicts, by noise level.

A weight w of the error of the image is one of ``w * slope^2`` of the target (`Target.image_slope`): a weighting says
which noise levels matter, whatever the network predicts. ``simple`` alone is 1 for the target itself, whatever it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_gen.diffusion.parts import build_part
from lightning_gen.diffusion.targets import Target
from lightning_gen.registry import Registry


class Weight(ABC):
    """A weighting of noise levels; a subclass is one."""

    @abstractmethod
    def of_target(self, target: Target, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Weights (N,) of the mean squared error of what the network predicts, at levels (N,) with sigma above 0."""


class ImageWeight(Weight):
    """A weighting that is defined by weights of the error of the image."""

    @abstractmethod
    def of_image(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Weights (N,) of the mean squared error of the image, at levels (N,) with sigma above 0."""

    def of_target(self, target: Target, alpha: Tensor, sigma: Tensor) -> Tensor:
        """See `Weight.of_target`."""
        return self.of_image(alpha, sigma) * target.image_slope(alpha, sigma).square()


loss_weights: Registry[Callable[..., Weight]] = Registry("loss weight", __package__)


def build_weight(spec: Mapping[str, Any]) -> Weight:
    """The weighting ``{"name": ..., **options}``.

    Raises:
        UserError: no such weighting or option.
    """
    return build_part(loss_weights, spec, "model.weight")


@loss_weights.register("simple")
class Simple(Weight):
    """1, as in Ho et al. 2020, equation 14."""

    def of_target(self, target: Target, alpha: Tensor, sigma: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(sigma)


@loss_weights.register("snr")
class SNR(ImageWeight):
    """alpha^2 / sigma^2 of the image, which is 1 of the noise (Salimans and Ho 2022, section 4)."""

    def of_image(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """alpha^2 / sigma^2."""
        return (alpha / sigma).square()


@loss_weights.register("min_snr")
class MinSNR(ImageWeight):
    """min(alpha^2 / sigma^2, gamma) of the image (Hang et al. 2023, equation 11).

    Args:
        gamma: bound, which keeps levels with hardly any noise from having all the weight.
    """

    def __init__(self, gamma: float = 5.0) -> None:
        self.gamma = gamma

    def of_image(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """min(alpha^2 / sigma^2, gamma)."""
        return (alpha / sigma).square().clamp(max=self.gamma)


@loss_weights.register("edm")
class EDMWeight(ImageWeight):
    """(sigma^2 + data_std^2) / (sigma data_std)^2 of the image (Karras et al. 2022, table 1), 1 of EDM's target.

    Where alpha is not 1, the paper's sigma is sigma / alpha.

    Args:
        data_std: standard deviation of the images' values.
    """

    def __init__(self, data_std: float = 0.5) -> None:
        self.data_std = data_std

    def of_image(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """(sigma^2 + alpha^2 data_std^2) / (sigma data_std)^2."""
        return (sigma.square() + (alpha * self.data_std).square()) / (sigma * self.data_std).square()
