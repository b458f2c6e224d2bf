"""The probability-flow ODE of any schedule, over an angle.

With the angle phi = atan(sigma / alpha) and ``x' = x / sqrt(alpha^2 + sigma^2) = cos(phi) x_0 + sin(phi) eps`` every
schedule has the same ODE, ``dx' / dphi = cos(phi) eps - sin(phi) x_0`` (Salimans and Ho 2022, appendix D), smooth from
noise to images, however the schedule's times run.
"""

from __future__ import annotations

import math

from torch import Tensor

from lightning_gen.diffusion.samplers.base import Denoise
from lightning_gen.diffusion.schedules import Schedule


def angle_range(schedule: Schedule) -> tuple[float, float]:
    """The angles of the lowest level that a network is asked about, and of time 1."""
    return math.atan(schedule.smallest_ratio), math.atan(schedule.largest_ratio)


def velocity(denoise: Denoise, scaled: Tensor, angle: float, schedule: Schedule) -> Tensor:
    """The slope dx' / dphi (N, ...) at x' (N, ...) and phi."""
    images = image_at(denoise, scaled, angle, schedule)
    # cos eps - sin x_0 with eps = (x' - cos x_0) / sin
    return (math.cos(angle) * scaled - images) / math.sin(angle)


def image_at(denoise: Denoise, scaled: Tensor, angle: float, schedule: Schedule) -> Tensor:
    """Estimates (N, ...) of images at x' (N, ...) and phi."""
    level = schedule.level_of(math.tan(angle))
    return denoise(math.hypot(level.alpha, level.sigma) * scaled, level)
