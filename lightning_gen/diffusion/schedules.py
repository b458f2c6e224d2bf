"""Noise schedules: how much of an image and how much noise there is at a time between 0, the image, and 1, noise.

A noisy image is ``x = alpha(t) x_0 + sigma(t) eps``, eps ~ N(0, I). All is computed in float64 on the CPU; samplers
take plain numbers from it before they begin.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from lightning_gen.diffusion.parts import build_part
from lightning_gen.errors import UserError
from lightning_gen.registry import Registry

Number = TypeVar("Number", float, Tensor)

LARGEST_BETA = 0.999
"""Bound of the variance that one step adds (Nichol and Dhariwal 2021, section 3.2)."""

ON_CPU: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
"""Of tables and times, whatever the default device."""

NOISE_LEVELS = 1000.0
"""What networks are told at time 1; DDPM's number of steps."""


class Level(NamedTuple, Generic[Number]):
    """One noise level, or a level for each of N images.

    Attributes:
        alpha: factor of the image.
        sigma: factor of the noise.
        noise_level: what the network is told (`lightning_gen.networks.denoising`).
    """

    alpha: Number
    sigma: Number
    noise_level: Number


class Schedule(ABC):
    """Noise levels over time; a subclass is a schedule.

    Attributes:
        num_steps: T, the number of steps of one that is defined in steps, at whose times i / T models are trained; None
            for one of continuous time.
        prior_std: standard deviation of the noise that samplers begin with, in the place of noisy images at time 1.
        smallest_ratio: lowest sigma / alpha that a network is asked about, so little that the estimate is the image.
    """

    num_steps: int | None = None
    prior_std: float = 1.0
    smallest_ratio: float = 0.002

    @abstractmethod
    def alpha(self, times: Tensor) -> Tensor:
        """Factor of the image, float64 of any shape, at times of that shape in [0, 1]."""

    @abstractmethod
    def sigma(self, times: Tensor) -> Tensor:
        """Factor of the noise, float64 of any shape, at times of that shape in [0, 1]."""

    @abstractmethod
    def time_of(self, ratios: Tensor) -> Tensor:
        """Times, float64, at which sigma / alpha is as given: the inverse of `alpha` and `sigma`."""

    def noise_level(self, times: Tensor) -> Tensor:
        """What a network is told at times: 1000 t, since features of t itself would hardly differ."""
        return NOISE_LEVELS * times

    def at(self, times: Tensor) -> Level[Tensor]:
        """The levels of times (N,), float64."""
        return Level(self.alpha(times), self.sigma(times), self.noise_level(times))

    def levels(self, steps: int, start: float = 1.0) -> list[Level[float]]:
        """The steps + 1 levels that samplers visit, from a time to an image without noise, alpha = 1 and sigma = 0.

        Args:
            steps: at least 1; of a schedule of T steps at most ``start * T``.
            start: the time of the first level, in (0, 1]; of a schedule of steps one of theirs (`nearest`).

        Raises:
            UserError: less than one step, or more than the schedule has.
        """
        return self._listed(self.at(self._times(steps, start)))

    def level_of(self, ratio: float) -> Level[float]:
        """The level at which sigma / alpha is as given."""
        return self._listed(self.at(self.time_of(torch.tensor([ratio], **ON_CPU))))[0]

    def nearest(self, times: Tensor) -> Tensor:
        """Times (N,) as they are, or the nearest of 1 / T, ..., 1 of a schedule of T steps."""
        if self.num_steps is None:
            return times
        return (times * self.num_steps).round().clamp(1, self.num_steps) / self.num_steps

    @property
    def first(self) -> Level[float]:
        """The level that samplers begin at, that of time 1."""
        return self.levels(1)[0]

    @property
    def largest_ratio(self) -> float:
        """The ratio sigma / alpha at the first level; infinite where nothing is left of the image."""
        return self.first.sigma / self.first.alpha if self.first.alpha else math.inf

    def _times(self, steps: int, start: float) -> Tensor:
        _check_steps(steps)
        return torch.linspace(start, 0, steps + 1, **ON_CPU)

    @staticmethod
    def _listed(levels: Level[Tensor]) -> list[Level[float]]:
        return [Level(*values) for values in zip(*(part.tolist() for part in levels), strict=True)]


noise_schedules: Registry[Callable[..., Schedule]] = Registry("noise schedule", __package__)


def build_schedule(spec: Mapping[str, Any]) -> Schedule:
    """The schedule ``{"name": ..., **options}``.

    Raises:
        UserError: no such schedule or option.
    """
    return build_part(noise_schedules, spec, "model.schedule")


class VariancePreserving(Schedule):
    """A chain of T steps that each replace a share beta of the variance by noise (Ho et al. 2020, equation 2).

    ``alpha^2`` at time i / T is the product of 1 - beta over the first i steps, and ``sigma^2 = 1 - alpha^2``; between
    them log alpha is interpolated linearly.

    Args:
        betas: (T,) float64.
    """

    def __init__(self, betas: Tensor) -> None:
        self.num_steps = len(betas)
        self.betas = betas
        self.log_alphas = torch.cat([betas.new_zeros(1), 0.5 * torch.log1p(-betas).cumsum(0)])
        """At times 0, 1 / T, ..., 1."""
        self.smallest_ratio = math.sqrt(math.expm1(-2 * self.log_alphas[1].item()))

    def alpha(self, times: Tensor) -> Tensor:
        """See `Schedule.alpha`."""
        return self._log_alpha(times).exp()

    def sigma(self, times: Tensor) -> Tensor:
        """See `Schedule.sigma`."""
        return torch.expm1(2 * self._log_alpha(times)).neg().sqrt()

    def time_of(self, ratios: Tensor) -> Tensor:
        """See `Schedule.time_of`; 1 for what is noisier than time 1."""
        # alpha^2 = 1 / (1 + ratio^2)
        falling = (0.5 * torch.log1p(ratios.square())).clamp(max=-self.log_alphas[-1].item())
        assert self.num_steps is not None
        upper = torch.searchsorted(-self.log_alphas, falling.contiguous()).clamp(1, self.num_steps)
        below, above = -self.log_alphas[upper - 1], -self.log_alphas[upper]
        return (upper - 1 + (falling - below) / (above - below)) / self.num_steps

    def _times(self, steps: int, start: float) -> Tensor:
        assert self.num_steps is not None
        most = round(start * self.num_steps)
        if steps > most:
            raise UserError(
                f"{steps} steps are more than the {most} of the schedule: lower model.sampler.steps (--steps)"
            )
        # Only times of the chain, which the network knows; rounding them keeps first and last where steps do not
        # divide T, and no two are equal.
        return (super()._times(steps, start) * self.num_steps).round() / self.num_steps

    def _log_alpha(self, times: Tensor) -> Tensor:
        assert self.num_steps is not None
        # Times i / T must give entry i itself, not what rounding makes of it.
        position = (times.double() * self.num_steps).clamp(0, self.num_steps)
        nearest = position.round()
        position = torch.where((position - nearest).abs() < 1e-9, nearest, position)
        lower = position.floor().long().clamp(max=self.num_steps - 1)
        return torch.lerp(self.log_alphas[lower], self.log_alphas[lower + 1], position - lower)


@noise_schedules.register("linear")
class Linear(VariancePreserving):
    """Betas that rise linearly (Ho et al. 2020, section 4), scaled by 1000 / T so that other T end as noisy.

    Args:
        num_steps: T.
        first: beta of the first step, for T = 1000.
        last: beta of the last step, for T = 1000.
        square_root: whether square roots of betas rise linearly instead (Rombach et al. 2022, published code).

    Raises:
        UserError: so few steps that a beta would be 1 or more.
    """

    def __init__(
        self, num_steps: int = 1000, first: float = 1e-4, last: float = 0.02, square_root: bool = False
    ) -> None:
        power = 2 if square_root else 1
        start, end = ((1000 / _check_steps(num_steps) * beta) ** (1 / power) for beta in (first, last))
        betas = torch.linspace(start, end, num_steps, **ON_CPU) ** power
        if not 0 < betas.min() <= betas.max() < 1:
            raise UserError(
                f"model.schedule: betas from {betas.min():g} to {betas.max():g} are not between 0 and 1: raise "
                "model.schedule.num_steps or name another schedule"
            )
        super().__init__(betas)


@noise_schedules.register("cosine")
class Cosine(VariancePreserving):
    """``alpha^2(t)`` proportional to ``cos^2(pi / 2 (t + s) / (1 + s))`` (Nichol and Dhariwal 2021, equation 17).

    Args:
        num_steps: T.
        offset: s, which keeps the noise of the first steps from vanishing.
    """

    def __init__(self, num_steps: int = 1000, offset: float = 0.008) -> None:
        times = torch.linspace(0, 1, _check_steps(num_steps) + 1, **ON_CPU)
        super().__init__(_betas(torch.cos(math.pi / 2 * (times + offset) / (1 + offset)).square()))


@noise_schedules.register("sigmoid")
class Sigmoid(VariancePreserving):
    """``alpha^2(t)`` falls as a sigmoid from 1 to 0 (Jabri et al. 2022, "Scalable adaptive computation for iterative
    generation", appendix B): ``(s(end) - s(start + t (end - start))) / (s(end) - s(start))``, ``s(x) = sigmoid(x /
    temperature)``.

    Args:
        num_steps: T.
        start: of the part of the sigmoid.
        end: of it.
        temperature: above 1 for less noise in the middle, below for more.
    """

    def __init__(self, num_steps: int = 1000, start: float = -3.0, end: float = 3.0, temperature: float = 1.0) -> None:
        times = torch.linspace(start, end, _check_steps(num_steps) + 1, **ON_CPU)
        values = torch.sigmoid(times / temperature)
        super().__init__(_betas((values[-1] - values) / (values[-1] - values[0])))


@noise_schedules.register("edm")
class EDM(Schedule):
    """Noise added to the whole image (Karras et al. 2022, equation 5): alpha = 1, and sigma^(1/rho) linear in time.

    `levels` are the paper's n levels from ``sigma_max`` to ``sigma_min``, and 0.

    Args:
        sigma_min: at time 0.
        sigma_max: at time 1.
        rho: how much closer to one another the low levels are.
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        if not 0 < sigma_min < sigma_max:
            raise UserError("model.schedule.sigma_min must be above 0 and below model.schedule.sigma_max")
        self.prior_std = sigma_max
        self.smallest_ratio = sigma_min
        self.rho = rho
        self.ends = (sigma_min ** (1 / rho), sigma_max ** (1 / rho))

    def alpha(self, times: Tensor) -> Tensor:
        """See `Schedule.alpha`."""
        return torch.ones_like(times, dtype=torch.float64)

    def sigma(self, times: Tensor) -> Tensor:
        """See `Schedule.sigma`."""
        first, last = self.ends
        return (first + times.double() * (last - first)) ** self.rho

    def time_of(self, ratios: Tensor) -> Tensor:
        """See `Schedule.time_of`; below 0 and above 1 for levels outside of the range."""
        first, last = self.ends
        return (ratios.double() ** (1 / self.rho) - first) / (last - first)

    def noise_level(self, times: Tensor) -> Tensor:
        """1000 times the paper's ln(sigma) / 4, to be of the size of other schedules'."""
        return NOISE_LEVELS / 4 * self.sigma(times).log()

    def levels(self, steps: int, start: float = 1.0) -> list[Level[float]]:
        """See `Schedule.levels`."""
        times = torch.linspace(start, 0, _check_steps(steps), **ON_CPU)
        return [*self._listed(self.at(times)), Level(1.0, 0.0, -math.inf)]


@noise_schedules.register("straight")
class Straight(Schedule):
    """The straight line of flow matching, alpha = 1 - t and sigma = t (Liu et al. 2023; Lipman et al. 2023)."""

    def alpha(self, times: Tensor) -> Tensor:
        """See `Schedule.alpha`."""
        return 1 - times.double()

    def sigma(self, times: Tensor) -> Tensor:
        """See `Schedule.sigma`."""
        return times.double()

    def time_of(self, ratios: Tensor) -> Tensor:
        """See `Schedule.time_of`."""
        return 1 / (1 + 1 / ratios)


class Section(Schedule):
    """Some levels of a schedule in a row, as a schedule whose noise is the noisy images of the first level.

    Samplers go from there to the last level, in one way of steps: `levels` are always these.

    Args:
        whole: the schedule.
        levels: at least two of it, the noisiest first.
        complete: whether the schedule is one of steps and none between these levels is left out.
    """

    def __init__(self, whole: Schedule, levels: Sequence[Level[float]], complete: bool = False) -> None:
        self.whole = whole
        self.chosen = list(levels)
        self.num_steps = len(levels) - 1 if complete else None
        self.smallest_ratio = whole.smallest_ratio

    def alpha(self, times: Tensor) -> Tensor:
        """The schedule's."""
        return self.whole.alpha(times)

    def sigma(self, times: Tensor) -> Tensor:
        """The schedule's."""
        return self.whole.sigma(times)

    def time_of(self, ratios: Tensor) -> Tensor:
        """The schedule's."""
        return self.whole.time_of(ratios)

    def noise_level(self, times: Tensor) -> Tensor:
        """The schedule's."""
        return self.whole.noise_level(times)

    def levels(self, steps: int, start: float = 1.0) -> list[Level[float]]:
        """Those it was made of, which are not chosen again."""
        return self.chosen


def _betas(shares: Tensor) -> Tensor:
    """Betas (T,) of alpha^2 (T + 1,) up to a factor, at most `LARGEST_BETA`."""
    return (1 - shares[1:] / shares[:-1]).clamp(max=LARGEST_BETA)


def _check_steps(steps: int) -> int:
    if steps < 1:
        raise UserError(f"steps must be at least 1, not {steps}: raise model.sampler.steps or model.schedule.num_steps")
    return steps
