"""Small drawings in the rows of a table: where an entry's score lies between those of its board."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from lightning_gen.tracking.leaderboard import Board, Entry

WIDTH, HEIGHT, MARGIN = 120, 16, 5
LARGE_RANGE = 20
"""Ratio of the largest to the smallest value above which the scale is logarithmic."""


class Scale:
    """Where values lie in a drawing of `WIDTH` pixels.

    Args:
        values: all values that will be drawn.

    Attributes:
        logarithmic: whether equal steps are equal ratios.
        first: the smallest value.
        last: the largest value.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self.first, self.last = min(values), max(values)
        self.logarithmic = self.first > 0 and self.last / self.first > LARGE_RANGE
        self._map: Callable[[float], float] = math.log if self.logarithmic else float

    def __call__(self, value: float) -> float:
        """Pixels from the left; values beyond the ends lie at the ends."""
        first, last = self._map(self.first), self._map(self.last)
        if first == last:
            return WIDTH / 2
        share = (self._map(min(max(value, self.first), self.last)) - first) / (last - first)
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)


def board_scale(board: Board) -> Scale:
    """The scale of all single scores of a board."""
    return Scale([run.value for entry in board.entries for run in entry.runs])


def draw_mark(entry: Entry, scale: Scale) -> str:
    """An entry's mean as a dot, its spread over seeds as a bar, and its single runs as strokes, as inline SVG."""
    middle = HEIGHT / 2
    parts = [f'<path class="rule" d="M0 {middle}H{WIDTH}"/>']
    if entry.spread is not None:
        left, right = scale(entry.value - entry.spread), scale(entry.value + entry.spread)
        parts.append(f'<rect class="spread" x="{left}" y="4" width="{max(1.0, round(right - left, 1))}" height="8"/>')
        strokes = "".join(f"M{scale(run.value)} 3V13" for run in entry.runs)
        parts.append(f'<path class="seed" d="{strokes}"/>')
    parts.append(f'<circle class="mean" cx="{scale(entry.value)}" cy="{middle}" r="3.2"/>')
    return (
        f'<svg class="mark" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )
