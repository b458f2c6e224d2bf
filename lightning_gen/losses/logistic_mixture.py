"""The discretized mixture of logistics of PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.images import from_levels, to_levels
from lightning_gen.losses.pixel_laws import (
    PixelLaw,
    log_logistic_bins,
    pixel_laws,
    sample_logistic,
    uniform_like,
)


class MixtureParameters(NamedTuple):
    """Of M components and C channels.

    Attributes:
        logits: (N, M, H, W) of the components.
        means: (N, M, C, H, W).
        log_scales: (N, M, C, H, W).
        coefficients: (N, M, C (C - 1) / 2, H, W) in [-1, 1]: for each channel, how its mean moves with each before it.
    """

    logits: Tensor
    means: Tensor
    log_scales: Tensor
    coefficients: Tensor


@pixel_laws.register("logistic_mixture")
class LogisticMixture(PixelLaw):
    """A mixture of logistic densities, integrated over every level's bin, of whole pixels (equations 1 to 3).

    Each component is a product over channels, where the mean of a channel moves linearly with the values of those
    before it: with three channels r, g, b the means are m_r, m_g + a r and m_b + b r + c g. One channel is a plain
    mixture. The parameters are M logits, then for each component C means, C logarithms of scales and C (C - 1) / 2
    coefficients before tanh; means and values are in the units of images.

    Args:
        components: M.
        levels: of every channel.
    """

    def __init__(self, components: int = 10, levels: int = 256) -> None:
        if components < 1 or levels < 2:
            raise UserError(f"model.law: components must be at least 1 and levels 2, not {components} and {levels}")
        self.components = components
        self.levels = levels

    def num_parameters(self, channels: int) -> int:
        """For each component a logit, means, scales and coefficients: 10 of them for three channels."""
        return self.components * (1 + 2 * channels + channels * (channels - 1) // 2)

    def parameter_channels(self, channels: int) -> list[int]:
        """All 0: channels are drawn together."""
        return [0] * self.num_parameters(channels)

    def log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        """Logarithm of the mixture of the products over channels."""
        parts = self.split(parameters)
        means = torch.stack([_moved_mean(parts, channel, images[:, None]) for channel in range(images.shape[1])], 2)
        log_bins = log_logistic_bins(images[:, None], means, parts.log_scales, self.levels).sum(2)
        return (parts.logits.log_softmax(1) + log_bins).logsumexp(1)

    def sample(self, parameters: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """A component, then its channels one after the other, each rounded to the nearest level before the next."""
        parts = self.split(parameters)
        sums = parts.logits.softmax(1).cumsum(1)
        chosen = (sums < uniform_like(sums[:, :1], generator) * sums[:, -1:]).sum(1, keepdim=True)
        chosen = chosen.clamp(max=self.components - 1)[:, :, None]
        own = MixtureParameters(
            parts.logits, *(part.gather(1, chosen.expand(-1, -1, *part.shape[2:])) for part in parts[1:])
        )
        images = torch.zeros_like(own.means)
        for channel in range(images.shape[2]):
            mean = _moved_mean(own, channel, images)
            drawn = sample_logistic(mean, own.log_scales[:, :, channel], generator)
            images[:, :, channel] = from_levels(to_levels(drawn, self.levels), self.levels)
        return images[:, 0]

    def mean(self, parameters: Tensor) -> Tensor:
        """Means of the density, within [-1, 1]."""
        parts = self.split(parameters)
        images = torch.zeros_like(parts.means)
        for channel in range(images.shape[2]):
            images[:, :, channel] = _moved_mean(parts, channel, images)
        return (parts.logits.softmax(1)[:, :, None] * images).sum(1).clamp(-1, 1)

    def split(self, parameters: Tensor) -> MixtureParameters:
        """What the parameters (N, P, H, W) are."""
        logits, others = parameters[:, : self.components], parameters[:, self.components :]
        others = others.unflatten(1, (self.components, -1))
        channels = 1
        while self.num_parameters(channels) < parameters.shape[1]:
            channels += 1
        means, log_scales, coefficients = others.split([channels, channels, channels * (channels - 1) // 2], 2)
        return MixtureParameters(logits, means, log_scales, torch.tanh(coefficients))


def _moved_mean(parts: MixtureParameters, channel: int, images: Tensor) -> Tensor:
    """Means (N, M, H, W) of a channel, given the channels before it of images (N, 1 or M, C, H, W)."""
    first = channel * (channel - 1) // 2
    moves = parts.coefficients[:, :, first : first + channel] * images[:, :, :channel]
    return parts.means[:, :, channel] + moves.sum(2)
