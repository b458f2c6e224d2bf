"""Laws of images given what a network computes: what a decoder or a pixel model says about every pixel.

A law turns a network's output (N, P, H, W) into log-probabilities, samples and means of images (N, C, H, W) in [-1, 1].
Discrete laws are of images on a grid of ``levels`` values from -1 to 1, 8-bit images' being 256; log-probabilities are
in nats.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.images import from_levels, to_levels
from lightning_gen.registry import Registry


class PixelLaw(ABC):
    """Probability of images given parameters; a subclass is a law.

    Attributes:
        levels: values that a channel can take.
        is_exact: whether `log_prob` is that of the images handed to `observe`; else its mean over `observe`'s noise is
            a lower bound.
    """

    levels: int
    is_exact: bool = True

    @abstractmethod
    def num_parameters(self, channels: int) -> int:
        """P, parameters of every pixel of images with so many channels."""

    def parameter_channels(self, channels: int) -> list[int]:
        """The channel that each of the P parameters is of.

        All are 0 for a law in which a pixel's channels depend on one another, so that they are drawn together.
        """
        return list(range(channels)) * (self.num_parameters(channels) // channels)

    @abstractmethod
    def log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        """Log-probability of every pixel (N, H, W), summed over its channels.

        Args:
            parameters: (N, P, H, W).
            images: (N, C, H, W), as `observe` returns them.
        """

    @abstractmethod
    def sample(self, parameters: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1]; None as generator stands for the global one of the parameters' device."""

    @abstractmethod
    def mean(self, parameters: Tensor) -> Tensor:
        """Expected images (N, C, H, W) in [-1, 1]."""

    def observe(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """What is modelled of images (N, C, H, W) in [-1, 1]: their nearest levels, if a subclass says nothing else."""
        del generator
        return from_levels(to_levels(images, self.levels), self.levels)


pixel_laws: Registry[type[PixelLaw]] = Registry("pixel law", __package__)


def build_law(spec: Mapping[str, Any]) -> PixelLaw:
    """The law ``{"name": ..., **options}``.

    Raises:
        UserError: no such law or option.
    """
    options = {key: value for key, value in spec.items() if key != "name"}
    try:
        return pixel_laws[str(spec.get("name"))](**options)
    except TypeError as error:
        raise UserError(f"model.law: {error}") from error


def uniform_like(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers in [0, 1) of a tensor's shape, from a generator of any device or, for None, the global one."""
    if generator is None:
        return torch.rand_like(like)
    return torch.rand(like.shape, generator=generator, device=generator.device).to(like)


@pixel_laws.register("bernoulli")
class Bernoulli(PixelLaw):
    """Black or white; the parameters are logits of white.

    Args:
        binarize: how grey images are made black and white: ``stochastic`` draws white with the brightness as its
            probability, anew each time ("dynamic binarization", Salakhutdinov and Murray 2008); ``threshold`` takes
            the nearer of both.
    """

    levels = 2

    def __init__(self, binarize: Literal["stochastic", "threshold"] = "stochastic") -> None:
        if binarize not in ("stochastic", "threshold"):
            raise UserError(f"model.law: binarize must be stochastic or threshold, not {binarize!r}")
        self.binarize = binarize

    def num_parameters(self, channels: int) -> int:
        """One logit a channel."""
        return channels

    def log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        """Cross-entropy: x log p + (1 - x) log(1 - p), x in {0, 1}."""
        return -F.binary_cross_entropy_with_logits(parameters, (images + 1) / 2, reduction="none").sum(1)

    def sample(self, parameters: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Black and white images."""
        return (uniform_like(parameters, generator) < torch.sigmoid(parameters)).to(parameters) * 2 - 1

    def mean(self, parameters: Tensor) -> Tensor:
        """Grey images: probabilities of white."""
        return torch.tanh(parameters / 2)

    def observe(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Black and white images."""
        if self.binarize == "threshold":
            return super().observe(images)
        return (uniform_like(images, generator) < (images + 1) / 2).to(images) * 2 - 1


@pixel_laws.register("categorical")
class Categorical(PixelLaw):
    """A probability of its own for every level (van den Oord et al. 2016, "Pixel recurrent neural networks", 3.3).

    The parameters of channel c are the logits c * levels to (c + 1) * levels.

    Args:
        levels: of every channel.
    """

    def __init__(self, levels: int = 256) -> None:
        if levels < 2:
            raise UserError(f"model.law: levels must be at least 2, not {levels}")
        self.levels = levels

    def num_parameters(self, channels: int) -> int:
        """A logit for each level of each channel."""
        return channels * self.levels

    def parameter_channels(self, channels: int) -> list[int]:
        """One channel after the other."""
        return [channel for channel in range(channels) for _ in range(self.levels)]

    def log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        """Log-softmax at the images' levels."""
        log_probabilities = parameters.unflatten(1, (-1, self.levels)).log_softmax(2)
        return log_probabilities.gather(2, to_levels(images, self.levels)[:, :, None]).squeeze(2).sum(1)

    def sample(self, parameters: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Each channel by the inverse distribution function of one uniform number."""
        sums = parameters.unflatten(1, (-1, self.levels)).softmax(2).cumsum(2)
        chosen = (sums < uniform_like(sums[:, :, :1], generator) * sums[:, :, -1:]).sum(2)
        return from_levels(chosen.clamp(max=self.levels - 1), self.levels).to(parameters)

    def mean(self, parameters: Tensor) -> Tensor:
        """Probability-weighted levels."""
        values = from_levels(torch.arange(self.levels, device=parameters.device), self.levels)
        return (parameters.unflatten(1, (-1, self.levels)).softmax(2) * values[:, None, None]).sum(2)


@pixel_laws.register("discretized_logistic")
class DiscretizedLogistic(PixelLaw):
    """A logistic density, integrated over every level's bin; the outermost bins reach to infinity.

    Kingma et al. 2016, "Improving variational inference with inverse autoregressive flow", section 5.2; Salimans et al.
    2017, "PixelCNN++", eq. 2. The parameters are C means and C logarithms of scales, in units of the images.

    Args:
        levels: of every channel.
    """

    def __init__(self, levels: int = 256) -> None:
        if levels < 2:
            raise UserError(f"model.law: levels must be at least 2, not {levels}")
        self.levels = levels

    def num_parameters(self, channels: int) -> int:
        """Mean and logarithm of the scale."""
        return 2 * channels

    def log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        """See `log_logistic_bins`."""
        means, log_scales = parameters.chunk(2, 1)
        return log_logistic_bins(images, means, log_scales, self.levels).sum(1)

    def sample(self, parameters: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Nearest levels of draws of the logistic density."""
        means, log_scales = parameters.chunk(2, 1)
        draws = sample_logistic(means, log_scales, generator)
        return from_levels(to_levels(draws, self.levels), self.levels).to(parameters)

    def mean(self, parameters: Tensor) -> Tensor:
        """Means of the density, within [-1, 1]."""
        return parameters.chunk(2, 1)[0].clamp(-1, 1)


@pixel_laws.register("gaussian")
class Gaussian(PixelLaw):
    """A normal density of images with uniform noise of one level on them, which bounds that of the levels from below
    (Theis et al. 2016, "A note on the evaluation of generative models", section 3.1).

    Args:
        std: standard deviation, in units of the images; null: learnt, a logarithm beside every mean (Kingma and Welling
            2013, appendix C.2).
        levels: of every channel.
    """

    is_exact = False

    def __init__(self, std: float | None = None, levels: int = 256) -> None:
        if std is not None and std <= 0:
            raise UserError(f"model.law: std must be positive, not {std}")
        self.std = std
        self.levels = levels

    def num_parameters(self, channels: int) -> int:
        """The mean and, where it is learnt, the logarithm of the deviation."""
        return channels if self.std is not None else 2 * channels

    def log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        """Log-density of the noisy images times the width of a level."""
        means, log_stds = self._split(parameters)
        standard = (images - means) * (-log_stds).exp()
        log_density = -0.5 * standard.square() - log_stds - 0.5 * math.log(2 * math.pi)
        return (log_density + math.log(2 / (self.levels - 1))).sum(1)

    def sample(self, parameters: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws, within [-1, 1]."""
        means, log_stds = self._split(parameters)
        if generator is None:
            noise = torch.randn_like(means)
        else:
            noise = torch.randn(means.shape, generator=generator, device=generator.device).to(means)
        return (means + noise * log_stds.exp()).clamp(-1, 1)

    def mean(self, parameters: Tensor) -> Tensor:
        """Means, within [-1, 1]."""
        return self._split(parameters)[0].clamp(-1, 1)

    def observe(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The nearest levels with noise of one level's width around them."""
        noise = uniform_like(images, generator) - 0.5
        return super().observe(images) + noise * (2 / (self.levels - 1))

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        if self.std is not None:
            return parameters, parameters.new_tensor(math.log(self.std))
        means, log_stds = parameters.chunk(2, 1)
        return means, log_stds.clamp(min=LOWEST_LOG_SCALE)


LOWEST_LOG_SCALE = -7.0
"""Smaller ones are taken for this (Salimans et al. 2017, in the code): a fortieth of a grey level."""


def log_logistic_bins(images: Tensor, means: Tensor, log_scales: Tensor, levels: int) -> Tensor:
    """Log-probability, element by element, of levels under a logistic density integrated over their bins.

    Args:
        images: levels in [-1, 1].
        means: of any shape that fits.
        log_scales: logarithms of the scales; below `LOWEST_LOG_SCALE` that is taken.
        levels: number of levels; a bin reaches 1 / (levels - 1) to either side, the first and the last to infinity.
    """
    inverse = (-log_scales.clamp(min=LOWEST_LOG_SCALE)).exp()
    half = 1 / (levels - 1)
    upper, lower = inverse * (images - means + half), inverse * (images - means - half)
    # log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - exp(l - u)), stable in both tails.
    width = (upper - lower).clamp(min=1e-12)
    inner = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-width))
    edge = 1 - half
    return torch.where(images < -edge, F.logsigmoid(upper), torch.where(images > edge, F.logsigmoid(-lower), inner))


def sample_logistic(means: Tensor, log_scales: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws of logistic densities by the inverse distribution function."""
    uniform = uniform_like(means, generator).clamp(1e-5, 1 - 1e-5)
    return means + log_scales.clamp(min=LOWEST_LOG_SCALE).exp() * torch.logit(uniform)
