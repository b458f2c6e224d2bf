"""Samplers that go from one noise level to the next by the law of a chain: DDPM and DDIM."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lightning_gen.diffusion.noise import normal_like
from lightning_gen.diffusion.samplers.base import Denoise, register_sampler
from lightning_gen.diffusion.schedules import Level, Schedule
from lightning_gen.errors import UserError


class Posterior(NamedTuple):
    """The law of a noisy image at a lower level, given it at a higher one and the image (Ho et al. 2020, eq. 6 and 7).

    Attributes:
        of_image: factor of the image in the mean.
        of_noisy: factor of the noisy image in the mean.
        variance: its variance, beta tilde.
        step_variance: the variance that the chain adds from the lower level to the higher, beta.
    """

    of_image: float
    of_noisy: float
    variance: float
    step_variance: float


def posterior(above: Level[float], below: Level[float]) -> Posterior:
    """The law at level ``below`` given the noisy image at level ``above``, of any schedule and any two levels."""
    share = above.alpha / below.alpha
    # The same as above.sigma ** 2 - (share * below.sigma) ** 2, without the difference of numbers that are nearly equal
    # where both levels have little noise.
    ratio = share * below.sigma / above.sigma
    step_variance = above.sigma**2 * (1 - ratio) * (1 + ratio)
    kept = (below.sigma / above.sigma) ** 2
    return Posterior(
        of_image=below.alpha * step_variance / above.sigma**2,
        of_noisy=share * kept,
        variance=step_variance * kept,
        step_variance=step_variance,
    )


def chosen_variance(variance: str | None, schedule: Schedule, steps: int) -> Literal["large", "small"]:
    """The variance that `sample_ddpm` takes.

    Raises:
        UserError: no such variance, or ``large`` where steps are left out.
    """
    full = steps == schedule.num_steps
    if variance is None:
        return "large" if full else "small"
    if variance not in ("large", "small"):
        raise UserError(f"model.sampler.variance must be large or small, not {variance!r}")
    if variance == "large" and not full:
        raise UserError(
            f"model.sampler.variance=large leaves noise in images unless all {schedule.num_steps} steps are taken: "
            "set it to small"
        )
    return variance  # type: ignore[return-value]


@register_sampler(
    "ddpm",
    stochastic=lambda options: True,
    check=lambda schedule, steps, options: chosen_variance(options.get("variance"), schedule, steps),
)
@torch.no_grad()
def sample_ddpm(
    denoise: Denoise,
    noise: Tensor,
    schedule: Schedule,
    rng: torch.Generator,
    *,
    steps: int,
    variance: Literal["large", "small"] | None = None,
) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, algorithm 2), in as many steps as the schedule has or fewer.

    Args:
        denoise: estimates images.
        noise: (N, ...) of variance 1.
        schedule: of noise levels.
        rng: of the noise in every step but the last.
        steps: network evaluations.
        variance: of a step: ``large`` for beta, the paper's choice for samples, ``small`` for that of the posterior
            (section 3.2). Of fewer steps ``large`` leaves noise in the images. None: ``large`` for all steps of the
            schedule, ``small`` for fewer.

    Returns:
        Images (N, ...).

    Raises:
        UserError: see `chosen_variance`.
    """
    large = chosen_variance(variance, schedule, steps) == "large"
    noisy = schedule.prior_std * noise
    for above, below in pairwise(schedule.levels(steps)):
        law = posterior(above, below)
        noisy = law.of_image * denoise(noisy, above) + law.of_noisy * noisy
        if below.sigma > 0:
            noisy = noisy + math.sqrt(law.step_variance if large else law.variance) * normal_like(noisy, rng)
    return noisy


def _draws(options: Mapping[str, Any]) -> bool:
    return bool(options.get("eta"))


def _checked(eta: float) -> None:
    if not 0 <= eta <= 1:
        raise UserError(f"model.sampler.eta must be from 0 to 1, not {eta}")


@register_sampler("ddim", stochastic=_draws, check=lambda schedule, steps, options: _checked(options.get("eta", 0.0)))
@torch.no_grad()
def sample_ddim(
    denoise: Denoise,
    noise: Tensor,
    schedule: Schedule,
    rng: torch.Generator | None = None,
    *,
    steps: int,
    eta: float = 0.0,
) -> Tensor:
    """DDIM (Song et al. 2021, equation 12), which needs few steps.

    The noise in an image follows from the estimate of the image, after that was clipped.

    Args:
        denoise: estimates images.
        noise: (N, ...) of variance 1.
        schedule: of noise levels.
        rng: of the noise in every step but the last, for eta above 0.
        steps: network evaluations.
        eta: share of `sample_ddpm`'s small deviations that is drawn anew in each step: 0 for none, 1 for DDPM.

    Returns:
        Images (N, ...).

    Raises:
        UserError: eta is not in [0, 1].
    """
    _checked(eta)
    noisy = schedule.prior_std * noise
    for above, below in pairwise(schedule.levels(steps)):
        fresh = eta * math.sqrt(posterior(above, below).variance)
        images = denoise(noisy, above)
        predicted = (noisy - above.alpha * images) / above.sigma
        noisy = below.alpha * images + math.sqrt(below.sigma**2 - fresh**2) * predicted
        if fresh > 0:
            assert rng is not None
            noisy = noisy + fresh * normal_like(noisy, rng)
    return noisy
