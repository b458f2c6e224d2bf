"""Laws of data whose denoiser and probability-flow ODE have closed forms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_gen.diffusion.schedules import Level, Schedule

MEAN, STD = 0.3, 0.5


def gaussian_denoise(noisy: Tensor, level: Level[float], clip: bool = False) -> Tensor:
    """E[x_0 | x] of x_0 ~ N(MEAN, STD^2), by conditioning of Gaussians."""
    gain = level.alpha * STD**2 / marginal_std(level) ** 2
    return MEAN + gain * (noisy - level.alpha * MEAN)


def marginal_std(level: Level[float]) -> float:
    """Standard deviation of x at a level."""
    return math.hypot(level.alpha * STD, level.sigma)


def flow_gaussian(noise: Tensor, schedule: Schedule) -> Tensor:
    """Where the probability-flow ODE of the Gaussian takes noise: every quantile keeps its place."""
    start = schedule.levels(1)[0]
    return MEAN + STD * (schedule.prior_std * noise - start.alpha * MEAN) / marginal_std(start)


def two_point_denoise(noisy: Tensor, level: Level[float]) -> Tensor:
    """E[x_0 | x] of x_0 = -1 or 1 with equal probability."""
    return torch.tanh(level.alpha * noisy / level.sigma**2)
