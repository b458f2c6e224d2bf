"""Averages whose length grows with training, and others that are put together from them afterwards.

Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models", section 3 and appendix C.
A profile is the share that each time in training has in an average: the power function
``p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1)`` up to time t. Its relative width is its standard deviation over t.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.models.averaging import Average, copies, follow

LARGEST_WIDTH = 0.28
"""A little below that of the mean of all weights, which has gamma = 0 and relative width 1 / sqrt(12)."""


class PowerFunctionAverage(Average):
    """Averages by power functions, one for each relative width; the first of them is evaluated.

    After an iteration that ends at image t and began at image s the average keeps ``(s / t) ** (gamma + 1)``, which is
    equation 127 for all images of the iteration at once. Nothing is kept of the weights that training began with.

    Args:
        networks: name -> network to follow.
        relative_widths: standard deviations of the profiles as shares of the images seen.

    Raises:
        UserError: no width, or one that a power function does not have.
    """

    def __init__(self, networks: Mapping[str, nn.Module], relative_widths: Sequence[float] = (0.05, 0.1)) -> None:
        super().__init__(networks)
        if not relative_widths:
            raise UserError("ema.relative_widths must name a width: 0.05")
        self.relative_widths = list(relative_widths)
        self.exponents = [exponent_of(width) for width in relative_widths]
        self.others = nn.ModuleList(copies(networks) for _ in relative_widths[1:])

    @property
    def settings(self) -> dict[str, Any]:
        """The widths."""
        return {"relative_widths": self.relative_widths}

    @property
    def averages(self) -> list[nn.ModuleDict]:
        """Of each width, name -> network."""
        return [self.networks, *self.others]

    def update(self, networks: Mapping[str, nn.Module], images: int, images_seen: int) -> None:
        """See `Average.update`."""
        for average, exponent in zip(self.averages, self.exponents, strict=True):
            follow(average, networks, (1 - images / images_seen) ** (exponent + 1))


def exponent_of(relative_width: float) -> float:
    """The gamma of a relative width: the largest root of a cubic equation (algorithm 2).

    Raises:
        UserError: the width is not above 0 and at most 0.28.
    """
    if not 0 < relative_width <= LARGEST_WIDTH:
        raise UserError(f"relative widths of averages are above 0 and at most {LARGEST_WIDTH}, not {relative_width}")
    inverse = relative_width**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def width_of(exponent: float) -> float:
    """Relative width of a gamma (equation 123)."""
    return math.sqrt(exponent + 1) / ((exponent + 2) * math.sqrt(exponent + 3))


def inner_products(times: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Integrals (N, N) of the products of each two of N profiles (algorithm 3).

    Args:
        times: (N,) at which the profiles end.
        exponents: (N,).
    """
    later = np.where(times[:, None] > times, exponents[:, None], exponents)
    lower, upper = np.minimum(times[:, None], times), np.maximum(times[:, None], times)
    factors = (exponents[:, None] + 1) * (exponents + 1) / (exponents[:, None] + exponents + 1)
    found: np.ndarray = factors * (lower / upper) ** later / upper
    return found


def combination(times: Sequence[float], exponents: Sequence[float], exponent: float) -> tuple[np.ndarray, float]:
    """How averages are to be added up for one of another width (section 3.2).

    Args:
        times: (N,) of the averages, in images; the wished one is at the last time.
        exponents: (N,) of the averages.
        exponent: that is wished.

    Returns:
        Factors (N,) that bring the sum of the profiles closest to the wished profile by least squares, and the
        remaining distance as a part of the length of the wished profile.
    """
    ends = np.array([*times, max(times)], dtype=np.float64) / max(times)
    products = inner_products(ends, np.array([*exponents, exponent], dtype=np.float64))
    among, wished, length = products[:-1, :-1], products[:-1, -1], products[-1, -1]
    # Averages that are nearly the sum of others get small factors in the place of large ones that cancel.
    factors = np.linalg.lstsq(among, wished, rcond=1e-12)[0]
    remaining = length - 2 * factors @ wished + factors @ among @ factors
    return factors, math.sqrt(max(0.0, remaining) / length)
