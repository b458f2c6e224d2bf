"""Curves as a picture, drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

DPI = 110


class Curve(NamedTuple):
    """A line of a picture.

    Attributes:
        name: in the legend.
        points: (x, y) in the order in which they are joined.
        spread: of each y, drawn as a bar up and down; empty for none.
    """

    name: str
    points: Sequence[tuple[float, float]]
    spread: Sequence[float] = ()


def draw_curves(curves: Sequence[Curve], *, x: str, y: str, log_x: bool = False, log_y: bool = False) -> bytes:
    """A PNG of curves.

    Args:
        curves: at least one, each with points.
        x: name of the horizontal axis, whose ticks are the points where it is logarithmic.
        y: name of the vertical axis, which begins at 0 where it is not logarithmic.
        log_x: whether the horizontal axis is logarithmic; all x are above 0 then.
        log_y: whether the vertical one is; all y are above 0 then.
    """
    from matplotlib.figure import Figure  # half a second of imports that only pictures need
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        places, values = zip(*curve.points, strict=True)
        axes.errorbar(places, values, yerr=list(curve.spread) or None, marker="o", capsize=3, label=curve.name)
    if log_x:
        axes.set_xscale("log")
        ticks = sorted({place for curve in curves for place, _ in curve.points})
        axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    if log_y:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, format="png")
    return buffer.getvalue()
