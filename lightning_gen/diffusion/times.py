"""Laws of the times, and so of the noise levels, that a model is trained at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_gen.diffusion.parts import build_part
from lightning_gen.diffusion.schedules import ON_CPU, Schedule
from lightning_gen.errors import UserError
from lightning_gen.registry import Registry


class TimeLaw(ABC):
    """A law of times; a subclass is one."""

    @abstractmethod
    def draw(self, number: int, schedule: Schedule) -> Tensor:
        """Times (number,) float64 above 0, from torch's global generator of the CPU."""


time_laws: Registry[Callable[..., TimeLaw]] = Registry("law of training times", __package__)


def build_time_law(spec: Mapping[str, Any]) -> TimeLaw:
    """The law ``{"name": ..., **options}``.

    Raises:
        UserError: no such law or option.
    """
    return build_part(time_laws, spec, "model.times")


@time_laws.register("uniform")
class Uniform(TimeLaw):
    """Every time alike: one of 1 / T, ..., 1 for a schedule of T steps, any in (0, 1] for another.

    Args:
        continuous: any in (0, 1] for every schedule.
    """

    def __init__(self, continuous: bool = False) -> None:
        self.continuous = continuous

    def draw(self, number: int, schedule: Schedule) -> Tensor:
        """See `TimeLaw.draw`."""
        if schedule.num_steps is None or self.continuous:
            return 1 - torch.rand(number, **ON_CPU)
        return torch.randint(1, schedule.num_steps + 1, (number,), device="cpu").double() / schedule.num_steps


@time_laws.register("log_normal")
class LogNormal(TimeLaw):
    """Levels with ln(sigma / alpha) ~ N(mean, std^2) (Karras et al. 2022, table 1).

    Args:
        mean: P_mean.
        std: P_std.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        self.mean = mean
        self.std = _positive(std)

    def draw(self, number: int, schedule: Schedule) -> Tensor:
        """See `TimeLaw.draw`; times beyond the levels that the schedule has are those of its ends."""
        ratios = (self.mean + self.std * torch.randn(number, **ON_CPU)).exp()
        return schedule.nearest(schedule.time_of(ratios))


@time_laws.register("logit_normal")
class LogitNormal(TimeLaw):
    """Times with ln(t / (1 - t)) ~ N(mean, std^2) (Esser et al. 2024, section 3.1), more of them in the middle.

    Args:
        mean: above 0 for more noise.
        std: how far they spread.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        self.mean = mean
        self.std = _positive(std)

    def draw(self, number: int, schedule: Schedule) -> Tensor:
        """See `TimeLaw.draw`."""
        return schedule.nearest(torch.sigmoid(self.mean + self.std * torch.randn(number, **ON_CPU)))


def _positive(std: float) -> float:
    if std <= 0:
        raise UserError(f"model.times.std must be above 0, not {std}")
    return std
