"""A sampler that solves the probability-flow ODE to a tolerance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_gen.diffusion.flow import angle_range, image_at, velocity
from lightning_gen.diffusion.samplers.base import Denoise, register_sampler
from lightning_gen.diffusion.schedules import Schedule
from lightning_gen.errors import UserError

# The Runge-Kutta pair of orders 5 and 4 of Dormand and Prince 1980: nodes, rows of stages, and how far the two results
# are apart. The last row is the result, so that its slope is the first one of the next step.
NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


@register_sampler("ode", evaluations=None)
@torch.no_grad()
def sample_ode(
    denoise: Denoise,
    noise: Tensor,
    schedule: Schedule,
    rng: torch.Generator | None = None,
    *,
    tolerance: float = 1e-5,
    max_evaluations: int = 2000,
) -> Tensor:
    """The probability-flow ODE by the method of Dormand and Prince (``dopri5``) with steps chosen on the way.

    All images take the same steps, as short as the one that needs the shortest. Choosing them waits for the device,
    once a step. The last estimate is taken at the lowest noise level.

    Args:
        denoise: estimates images.
        noise: (N, ...) of variance 1.
        schedule: of noise levels.
        rng: not used.
        tolerance: of the error of a step, relative and absolute, as a root mean square over an image.
        max_evaluations: network evaluations after which it gives up.

    Returns:
        Images (N, ...).

    Raises:
        UserError: more evaluations would be needed.
    """
    end, angle = angle_range(schedule)
    start = schedule.first
    current = noise * (schedule.prior_std / math.hypot(start.alpha, start.sigma))
    step = (end - angle) / 20
    slope = velocity(denoise, current, angle, schedule)
    evaluations = 1
    while angle > end:
        step = max(step, end - angle)
        slopes = [slope]
        for node, row in zip(NODES, STAGES, strict=True):
            reached = current + step * _sum(row, slopes)
            slopes.append(velocity(denoise, reached, max(angle + node * step, end), schedule))
        size = tolerance * (1 + torch.maximum(current.abs(), reached.abs()))
        error = (step * _sum(ERROR, slopes) / size).flatten(1).square().mean(1).max().sqrt().item()
        if error <= 1:
            angle, current, slope = angle + step, reached, slopes[-1]
            angle = end if angle - end < 1e-12 else angle
        evaluations += len(NODES)
        if evaluations > max_evaluations:
            raise UserError(
                f"the sampler ode needs more than {max_evaluations} network evaluations: raise model.sampler.tolerance"
            )
        step *= min(5.0, max(0.2, 0.9 * error**-0.2)) if error > 0 else 5.0
    return image_at(denoise, current, end, schedule)


def _sum(factors: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total = factors[0] * slopes[0]
    for factor, slope in zip(factors[1:], slopes[1:], strict=True):
        if factor:
            total = total + factor * slope
    return total
