"""How likely a diffusion model finds images of 256 levels: the variational bound, and the probability-flow ODE."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.special import log_ndtr

from lightning_gen.diffusion.flow import angle_range, velocity
from lightning_gen.diffusion.noise import normal_like, signs_like, uniform_like
from lightning_gen.diffusion.parts import build_part
from lightning_gen.diffusion.schedules import ON_CPU, Level, Schedule
from lightning_gen.errors import UserError
from lightning_gen.images import to_float, to_uint8
from lightning_gen.registry import Registry

STEP = 2 / 255
"""Between two of the 256 levels in [-1, 1]."""


class ClippedDenoise(Protocol):
    """Like `lightning_gen.diffusion.samplers.base.Denoise`, with the choice whether estimates are clipped."""

    def __call__(self, noisy: Tensor, level: Level[float], clip: bool) -> Tensor:
        """Estimates (N, ...) of images."""


class DiffusionLikelihood(ABC):
    """A bound of how likely images are; a subclass is one.

    Args:
        steps: how finely it goes through the noise levels.
    """

    name: str

    def __init__(self, steps: int) -> None:
        if steps < 2:
            raise UserError(f"model.likelihood.steps must be at least 2, not {steps}")
        self.steps = steps

    @property
    def settings(self) -> dict[str, Any]:
        """JSON-able: all that it depends on beside the weights."""
        return {"likelihood": self.name, "steps": self.steps}

    @abstractmethod
    def nats(self, denoise: ClippedDenoise, images: Tensor, schedule: Schedule, rng: torch.Generator) -> Tensor:
        """Upper bounds (N,), in the mean over the noise, of -ln P of the nearest of 256 levels of images in [-1, 1].

        Args:
            denoise: estimates images.
            images: (N, C, H, W).
            schedule: of noise levels.
            rng: of the noise.
        """


likelihoods: Registry[Callable[..., DiffusionLikelihood]] = Registry("diffusion likelihood", __package__)


def build_likelihood(spec: Mapping[str, Any]) -> DiffusionLikelihood:
    """The likelihood ``{"name": ..., **options}``.

    Raises:
        UserError: no such likelihood or option.
    """
    return build_part(likelihoods, spec, "model.likelihood")


@likelihoods.register("variational_bound")
class VariationalBound(DiffusionLikelihood):
    """The negative evidence lower bound of a chain of noise levels (Ho et al. 2020, equation 5), of any schedule.

    The chain's steps have the variance of the posterior, and images given the lowest level are Gaussian with that
    level's sigma, integrated over each of the 256 levels (section 3.3). Every term is computed, with one draw of noise.
    As many steps as the schedule has give DDPM's own bound; fewer that of a coarser chain, which is larger.

    Args:
        steps: levels in the chain, network evaluations an image; more than a schedule has are as many as it has.
    """

    name = "variational_bound"

    def __init__(self, steps: int = 100) -> None:
        super().__init__(steps)

    @torch.no_grad()
    def nats(self, denoise: ClippedDenoise, images: Tensor, schedule: Schedule, rng: torch.Generator) -> Tensor:
        """See `DiffusionLikelihood.nats`."""
        images = _observed(images)
        levels = chain(schedule, self.steps)
        total = prior_divergence(images, levels[0], schedule.prior_std)
        for above, below in pairwise(levels):
            errors = denoise(_noisy(images, above, rng), above, clip=True) - images
            gain = (below.alpha / below.sigma) ** 2 - (above.alpha / above.sigma) ** 2
            total = total + 0.5 * gain * _sum(errors.square())
        lowest = levels[-1]
        mean = denoise(_noisy(images, lowest, rng), lowest, clip=True)
        return total - _sum(log_probability_of_level(images, mean, lowest.sigma))


@likelihoods.register("ode")
class FlowLikelihood(DiffusionLikelihood):
    """The density of the probability-flow ODE (Song et al. 2021b, equation 39), of images with noise of one level.

    Uniform noise within each level makes the mean of the density a lower bound of the level's probability (Theis et al.
    2016, section 3.1). The ODE goes from images, at the schedule's lowest level, to noise in steps of the classical
    Runge-Kutta method, and the trace in the change of density is Hutchinson's estimate with one vector of signs.

    Args:
        steps: of four evaluations of the network and its derivative each.
    """

    name = "ode"

    def __init__(self, steps: int = 25) -> None:
        super().__init__(steps)

    def nats(self, denoise: ClippedDenoise, images: Tensor, schedule: Schedule, rng: torch.Generator) -> Tensor:
        """See `DiffusionLikelihood.nats`."""
        images = _observed(images) + STEP * (uniform_like(images, rng) - 0.5)
        return log_density(denoise, images, schedule, self.steps, rng).neg() - images[0].numel() * math.log(STEP)


def log_density(
    denoise: ClippedDenoise, images: Tensor, schedule: Schedule, steps: int, rng: torch.Generator
) -> Tensor:
    """Logarithms (N,) of the density of the probability-flow ODE at images (N, ...); see `FlowLikelihood`."""
    direction = signs_like(images, rng)

    def slopes(scaled: Tensor, angle: float) -> tuple[Tensor, Tensor]:
        """The slope dx' / dphi and an estimate of its divergence, (N,)."""
        with torch.enable_grad():
            scaled = scaled.detach().requires_grad_()
            found = velocity(lambda noisy, level: denoise(noisy, level, clip=False), scaled, angle, schedule)
            (product,) = torch.autograd.grad(found, scaled, direction)
        return found.detach(), _sum(product * direction)

    angles = _angles(*angle_range(schedule), steps)
    # x' = cos(phi) x_0 at the first angle, where the noise is left out.
    scaled = math.cos(angles[0]) * images
    total = images.new_full((len(images),), images[0].numel() * math.log(math.cos(angles[0])))
    for angle, following in pairwise(angles):
        length, middle = following - angle, (angle + following) / 2
        first, first_divergence = slopes(scaled, angle)
        second, second_divergence = slopes(scaled + length / 2 * first, middle)
        third, third_divergence = slopes(scaled + length / 2 * second, middle)
        last, last_divergence = slopes(scaled + length * third, following)
        scaled = scaled + length / 6 * (first + 2 * second + 2 * third + last)
        total = total + length / 6 * (first_divergence + 2 * second_divergence + 2 * third_divergence + last_divergence)
    start = schedule.levels(1)[0]
    std = schedule.prior_std / math.hypot(start.alpha, start.sigma)
    return total - _sum(0.5 * (scaled / std).square() + math.log(std) + 0.5 * math.log(2 * math.pi))


def chain(schedule: Schedule, steps: int) -> list[Level[float]]:
    """Levels from time 1 to the lowest, at most ``steps`` of them.

    They are all of a schedule of so many steps. Otherwise the lowest has noise of the size of one of the 256 levels,
    below which steps only add to the bound, and levels lie the closer the lower they are; of a schedule of steps they
    are its own.
    """
    if schedule.num_steps is not None and steps >= schedule.num_steps:
        return schedule.levels(schedule.num_steps)[:-1]
    first, last = angle_range(schedule)
    ratios = torch.tensor(_angles(max(first, math.atan(STEP)), last, steps - 1), **ON_CPU).tan()
    times = schedule.nearest(schedule.time_of(ratios)).unique().flip(0)
    return [Level(*values) for values in zip(*(part.tolist() for part in schedule.at(times)), strict=True)]


def prior_divergence(images: Tensor, level: Level[float], prior_std: float) -> Tensor:
    """KL divergence (N,) in nats of N(alpha x, sigma^2 I) from N(0, prior_std^2 I)."""
    ratio = (level.sigma / prior_std) ** 2
    return 0.5 * _sum((level.alpha / prior_std * images).square() + (ratio - 1 - math.log(ratio)))


def log_probability_of_level(images: Tensor, mean: Tensor, std: float) -> Tensor:
    """Log-probability in nats, under N(mean, std^2), of all that is nearest to each value of images of 256 levels.

    The first and last level have all that is beyond them (Ho et al. 2020, equation 13).
    """
    lower = torch.where(images < -1 + STEP / 2, -math.inf, (images - STEP / 2 - mean) / std)
    upper = torch.where(images > 1 - STEP / 2, math.inf, (images + STEP / 2 - mean) / std)
    # Far above the mean the two probabilities are both 1, those of the mirrored interval are not.
    flip = lower > 0
    lower, upper = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
    whole = log_ndtr(upper)
    return whole + torch.log1p(-torch.exp(log_ndtr(lower) - whole))


def _angles(first: float, last: float, steps: int) -> list[float]:
    """One angle more than ``steps`` from the first to the last, closer at the first: EDM's spacing of noise levels."""
    low, high = first ** (1 / 7), last ** (1 / 7)
    return [(low + (high - low) * i / steps) ** 7 for i in range(steps + 1)]


def _observed(images: Tensor) -> Tensor:
    return to_float(to_uint8(images)).to(images)


def _noisy(images: Tensor, level: Level[float], rng: torch.Generator) -> Tensor:
    return level.alpha * images + level.sigma * normal_like(images, rng)


def _sum(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)
