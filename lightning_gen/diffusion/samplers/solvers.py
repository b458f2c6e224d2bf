"""Samplers that solve the probability-flow ODE in given steps: Euler, Heun and DPM-Solver++(2M).

Along it ``dx = x_0 d(alpha) + eps d(sigma)``, x_0 and eps being the estimates at x, whatever the schedule: on the
straight line that is ``dx/dt = eps - x_0``, and for EDM ``dx/d(sigma) = (x - x_0) / sigma``.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from lightning_gen.diffusion.samplers.base import Denoise, register_sampler
from lightning_gen.diffusion.schedules import Level, Schedule


@register_sampler("euler")
@torch.no_grad()
def sample_euler(
    denoise: Denoise, noise: Tensor, schedule: Schedule, rng: torch.Generator | None = None, *, steps: int
) -> Tensor:
    """Euler's method, of first order: the same as DDIM without noise.

    Args:
        denoise: estimates images.
        noise: (N, ...) of variance 1.
        schedule: of noise levels.
        rng: not used.
        steps: network evaluations.

    Returns:
        Images (N, ...).
    """
    noisy = schedule.prior_std * noise
    for above, below in pairwise(schedule.levels(steps)):
        images = denoise(noisy, above)
        noisy = noisy + _change(images, _noise(images, noisy, above), above, below)
    return noisy


@register_sampler("heun", evaluations=lambda steps: 2 * steps - 1)
@torch.no_grad()
def sample_heun(
    denoise: Denoise, noise: Tensor, schedule: Schedule, rng: torch.Generator | None = None, *, steps: int
) -> Tensor:
    """Heun's method, of second order (Karras et al. 2022, algorithm 1): the last step is Euler's.

    Args:
        denoise: estimates images.
        noise: (N, ...) of variance 1.
        schedule: of noise levels.
        rng: not used.
        steps: of two network evaluations each, the last of one.

    Returns:
        Images (N, ...).
    """
    noisy = schedule.prior_std * noise
    for above, below in pairwise(schedule.levels(steps)):
        images = denoise(noisy, above)
        predicted = _noise(images, noisy, above)
        reached = noisy + _change(images, predicted, above, below)
        if below.sigma > 0:
            next_images = denoise(reached, below)
            next_predicted = _noise(next_images, reached, below)
            reached = noisy + _change((images + next_images) / 2, (predicted + next_predicted) / 2, above, below)
        noisy = reached
    return noisy


@register_sampler("dpm_solver_pp_2m")
@torch.no_grad()
def sample_dpm_solver_pp_2m(
    denoise: Denoise, noise: Tensor, schedule: Schedule, rng: torch.Generator | None = None, *, steps: int
) -> Tensor:
    """DPM-Solver++(2M), of second order with one evaluation a step (Lu et al. 2022b, algorithm 2).

    First and last step are of first order: there is no estimate before the first, and the logarithm of alpha / sigma,
    in which the solver extrapolates, is infinite at the end.

    Args:
        denoise: estimates images.
        noise: (N, ...) of variance 1.
        schedule: of noise levels.
        rng: not used.
        steps: network evaluations.

    Returns:
        Images (N, ...).
    """
    noisy = schedule.prior_std * noise
    previous: tuple[Tensor, float] | None = None
    for above, below in pairwise(schedule.levels(steps)):
        images = denoise(noisy, above)
        used = images
        length = _log_ratio(below) - _log_ratio(above)
        if previous is not None and math.isfinite(length):
            before, length_before = previous
            used = images + (length / (2 * length_before)) * (images - before)
        kept = below.sigma / above.sigma
        noisy = kept * noisy + (below.alpha - above.alpha * kept) * used
        previous = images, length
    return noisy


def _noise(images: Tensor, noisy: Tensor, level: Level[float]) -> Tensor:
    return (noisy - level.alpha * images) / level.sigma


def _change(images: Tensor, predicted: Tensor, above: Level[float], below: Level[float]) -> Tensor:
    return (below.alpha - above.alpha) * images + (below.sigma - above.sigma) * predicted


def _log_ratio(level: Level[float]) -> float:
    """ln(alpha / sigma), infinite at the ends."""
    if level.alpha == 0:
        return -math.inf
    return math.inf if level.sigma == 0 else math.log(level.alpha / level.sigma)
