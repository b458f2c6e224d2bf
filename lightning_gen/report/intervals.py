"""Intervals of shares that were counted."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054
"""The 97.5% quantile of the standard normal law."""


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """The score interval of a binomial share (E. B. Wilson 1927, "Probable inference, the law of succession, and
    statistical inference", J. Amer. Statist. Assoc. 22, p. 209-212).

    The shares ``p`` with ``|k / n - p| <= z * sqrt(p (1 - p) / n)``. ``report/turing.js`` holds the same formula.

    Args:
        successes: k.
        trials: n.
        z: quantile of the standard normal law; the default gives 95%.

    Returns:
        (lower, upper) in [0, 1]; (0, 1) of no trials.
    """
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    scale = 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    lower = 0.0 if successes == 0 else max(0.0, middle - half)
    upper = 1.0 if successes == trials else min(1.0, middle + half)
    return lower, upper
