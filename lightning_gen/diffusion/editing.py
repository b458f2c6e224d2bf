"""Samples that begin with images, or with a part of them."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from lightning_gen.diffusion.noise import normal_like
from lightning_gen.diffusion.samplers.ancestral import posterior
from lightning_gen.diffusion.samplers.base import Denoise, Sampler
from lightning_gen.diffusion.schedules import ON_CPU, Level, Schedule
from lightning_gen.errors import UserError


def edit(
    denoise: Denoise, images: Tensor, strength: float, schedule: Schedule, sampler: Sampler, rng: torch.Generator
) -> Tensor:
    """SDEdit (Meng et al. 2022, algorithm 1): noise is added up to a time, and the sampler goes on from there.

    Args:
        denoise: estimates images.
        images: (N, ...).
        strength: the time, in [0, 1], of a schedule of steps the nearest of theirs. 0 gives the images, 1 samples that
            begin with noise alone.
        schedule: of noise levels.
        sampler: takes that share of its steps, at least one.
        rng: of all noise.

    Returns:
        (N, ...).

    Raises:
        UserError: a strength that is not in [0, 1].
    """
    if not 0 <= strength <= 1:
        raise UserError(f"the strength of an edit (--strength) must be from 0 to 1, not {strength:g}")
    if strength == 0:
        return images
    noise = normal_like(images, rng)
    if strength == 1:
        return sampler(denoise, noise, schedule, rng)
    start = schedule.nearest(torch.tensor([strength], **ON_CPU)).item()
    levels = schedule.levels(1 if sampler.evaluations is None else max(1, round(strength * sampler.steps)), start)
    return sampler.through(denoise, _noisy(images, noise, levels[0]), schedule, levels, rng)


def inpaint(
    denoise: Denoise,
    images: Tensor,
    known: Tensor,
    schedule: Schedule,
    sampler: Sampler,
    rng: torch.Generator,
    resamples: int = 1,
) -> Tensor:
    """The unknown part of images, given the rest (RePaint, Lugmayr et al. 2022, algorithm 1).

    After every step the known part is replaced by the images' own with new noise of that level. To bring both parts
    into line each step but the last is taken ``resamples`` times, with the chain's own noise to go back up in between
    (jumps of length 1). Taken once it is the replacement of Song et al. 2021b, "Score-based generative modeling through
    stochastic differential equations", appendix I.2.

    Each step stands alone: `dpm_solver_pp_2m`, which looks back at the last one, is of first order here.

    Args:
        denoise: estimates images.
        images: (N, ...); the unknown part may be anything but NaN.
        known: bool, broadcast to the images' shape.
        schedule: of noise levels.
        sampler: its steps are taken.
        rng: of all noise.
        resamples: see above, at least 1.

    Returns:
        (N, ...); the known part is that of the images, to the bit.

    Raises:
        UserError: a sampler that chooses its own steps, or no resamples.
    """
    if sampler.evaluations is None:
        raise UserError(
            f"the sampler {sampler.name} chooses its own steps and cannot inpaint: name another (--sampler)"
        )
    if resamples < 1:
        raise UserError(f"each step is taken at least once (--resamples), not {resamples} times")
    noisy = schedule.prior_std * normal_like(images, rng)
    for above, below in pairwise(schedule.levels(sampler.steps)):
        for left in reversed(range(resamples if below.sigma > 0 else 1)):
            drawn = sampler.through(denoise, noisy, schedule, [above, below], rng)
            if below.sigma == 0:
                return torch.where(known, images, drawn)
            noisy = torch.where(known, _noisy(images, normal_like(images, rng), below), drawn)
            if left:
                spread = math.sqrt(posterior(above, below).step_variance)
                noisy = above.alpha / below.alpha * noisy + spread * normal_like(noisy, rng)
    raise AssertionError("the last level has no noise")


def _noisy(images: Tensor, noise: Tensor, level: Level[float]) -> Tensor:
    return level.alpha * images + level.sigma * noise
