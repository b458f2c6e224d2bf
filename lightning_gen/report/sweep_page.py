"""A sweep as a page: how the best score came down, which parameters matter, every trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from lightning_gen.report.page import build_page

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 30
LARGE_RANGE = 20
"""Ratio of the largest to the smallest score above which their axis is logarithmic."""

MOST_COLUMNS = 6
"""Different numbers, each of several trials, that stand side by side like names."""

Axis = Callable[[float], float]


def sweep_page(summary: Mapping[str, Any]) -> str:
    """The page as HTML.

    Args:
        summary: what `lightning_gen.sweeps.summary.summarize` gives.
    """
    arrow = "↑ higher is better" if summary["goal"] == "maximize" else "↓ lower is better"
    counts = ", ".join(f"{number} {state}" for state, number in summary["counts"].items() if number) or "no trials yet"
    seeds = f", mean over seeds {', '.join(map(str, summary['seeds']))}" if summary["seeds"] else ""
    header = (
        f"<header><h1>{escape(summary['study'])}</h1>"
        f'<p class="lead">{escape(summary["method"])} search by {escape(summary["score"])} ({arrow}){escape(seeds)} · '
        f"{escape(counts)}</p></header>"
    )
    scored = [trial for trial in summary["trials"] if trial["score"] is not None and math.isfinite(trial["score"])]
    charts = ""
    if scored:
        parts = [_history(summary, scored), _importances(summary)]
        parts += [_scatter(summary, scored, name) for name in summary["parameters"]]
        note = '<p class="note">Orange: the best trial. Hollow: stopped early.</p>'
        charts = f'<div class="sweep-charts">{"".join(parts)}</div>{note}'
    body = f'<div class="page">{header}<main>{charts}{_table(summary)}{_failures(summary)}</main></div>'
    return build_page(str(summary["study"]), body, ["report.css", "sweep.css"], [])


def _figure(title: str, content: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    return (
        f'<figure class="curves"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">{content}</svg></figure>'
    )


def _history(summary: Mapping[str, Any], scored: Sequence[Mapping[str, Any]]) -> str:
    y = _score_axis(scored)
    last = max(1, max(trial["number"] for trial in summary["trials"]))
    x = _axis(0, last, LEFT + 8, WIDTH - RIGHT - 8, logarithmic=False)
    best, steps = None, []
    for trial in scored:
        if trial["state"] != "completed":
            continue
        score = trial["score"]
        if best is None or (score > best if summary["goal"] == "maximize" else score < best):
            steps.append(f"M{x(trial['number']):.1f} {y(score):.1f}" if best is None else f"V{y(score):.1f}")
            best = score
        else:
            steps.append(f"H{x(trial['number']):.1f}")
            continue
        if len(steps) > 1:
            steps[-1:] = [f"H{x(trial['number']):.1f}", steps[-1]]
    line = f'<path class="line k0" d="{"".join(steps)}H{x(last):.1f}"/>' if steps else ""
    dots = "".join(_dot(summary, trial, x(trial["number"]), y(trial["score"])) for trial in scored)
    ticks = _bottom_ticks([(float(tick), str(tick)) for tick in _whole_ticks(last)], x)
    return _figure("best score so far, by trial", _score_grid(scored, y) + ticks + line + dots)


def _whole_ticks(last: int) -> list[int]:
    step = max(1, math.ceil(last / 6))
    return list(range(0, last + 1, step))


def _importances(summary: Mapping[str, Any]) -> str:
    shares = summary["importances"]
    if not shares:
        return ""
    row = 24
    bars = []
    for place, (name, share) in enumerate(shares.items()):
        top = 8 + place * (row + 12)
        length = max(1.0, share * (WIDTH - 60))
        bars.append(
            f'<text x="0" y="{top + 9}">{escape(name)}</text>'
            f'<rect class="f0" x="0" y="{top + 14}" width="{length:.1f}" height="12" rx="2"/>'
            f'<text x="{length + 6:.1f}" y="{top + 24}">{share:.0%}</text>'
        )
    return _figure("importance: share of the explained variance", "".join(bars), height=16 + len(shares) * (row + 12))


def _scatter(summary: Mapping[str, Any], scored: Sequence[Mapping[str, Any]], name: str) -> str:
    having = [trial for trial in scored if name in trial["values"]]
    if not having:
        return ""
    y = _score_axis(scored)
    values = [trial["values"][name] for trial in having]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numbers and (len(values) < 2 * len(set(values)) or len(set(values)) > MOST_COLUMNS):
        logarithmic = name in summary["logarithmic"] and min(values) > 0
        x = _axis(min(values), max(values), LEFT + 10, WIDTH - RIGHT - 10, logarithmic=logarithmic)
        marks = _logarithmic_ticks(min(values), max(values)) if logarithmic else _linear_ticks(min(values), max(values))
        ticks = _bottom_ticks([(tick, f"{tick:.3g}") for tick in marks], x)
        places = [x(value) for value in values]
    else:
        names = [str(value) for value in sorted(set(values))] if numbers else sorted({str(value) for value in values})
        room = (WIDTH - LEFT - RIGHT) / len(names)
        middle = {text: LEFT + room * (place + 0.5) for place, text in enumerate(names)}
        longest = max(3, int(room / 6.5))
        shown = [(middle[text], text if len(text) <= longest else f"{text[: longest - 1]}…") for text in names]
        ticks = _bottom_ticks(shown, float)
        places = [middle[str(value)] for value in values]
    dots = "".join(_dot(summary, trial, place, y(trial["score"])) for trial, place in zip(having, places, strict=True))
    return _figure(name, _score_grid(scored, y) + ticks + dots)


def _dot(summary: Mapping[str, Any], trial: Mapping[str, Any], x: float, y: float) -> str:
    kind = "best" if trial["number"] == summary["best"] else trial["state"]
    title = f"trial {trial['number']}: {trial['score']:.4g} ({_values(trial)})"
    return f'<circle class="trial {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escape(title)}</title></circle>'


def _axis(low: float, high: float, start: float, end: float, *, logarithmic: bool) -> Axis:
    scale = math.log if logarithmic else float
    first, last = scale(low), scale(high)
    if first == last:
        return lambda value: (start + end) / 2
    return lambda value: start + (scale(value) - first) / (last - first) * (end - start)


def _is_wide(scored: Sequence[Mapping[str, Any]]) -> bool:
    scores = [trial["score"] for trial in scored]
    return min(scores) > 0 and max(scores) / min(scores) > LARGE_RANGE


def _score_axis(scored: Sequence[Mapping[str, Any]]) -> Axis:
    scores = [trial["score"] for trial in scored]
    return _axis(min(scores), max(scores), HEIGHT - BOTTOM - 8, TOP + 4, logarithmic=_is_wide(scored))


def _score_grid(scored: Sequence[Mapping[str, Any]], y: Axis) -> str:
    scores = [trial["score"] for trial in scored]
    marks = (_logarithmic_ticks if _is_wide(scored) else _linear_ticks)(min(scores), max(scores))
    lines = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>'
        for tick in marks
    )
    bottom = HEIGHT - BOTTOM
    return f'{lines}<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'


def _bottom_ticks(ticks: Sequence[tuple[float, str]], x: Axis) -> str:
    bottom = HEIGHT - BOTTOM
    return "".join(
        f'<line class="axis" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
        f'<text x="{x(at):.1f}" y="{bottom + 17}" text-anchor="middle">{escape(text)}</text>'
        for at, text in ticks
    )


def _linear_ticks(low: float, high: float, number: int = 4) -> list[float]:
    if low == high:
        return [low]
    rough = (high - low) / number
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [place * step for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    factors = (1,) if high / low > 300 else (1, 3) if high / low > 30 else (1, 2, 5)
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def _table(summary: Mapping[str, Any]) -> str:
    names = summary["parameters"]
    places = {number: place for place, number in enumerate(summary["ranking"], start=1)}
    trials = sorted(summary["trials"], key=lambda trial: (places.get(trial["number"], math.inf), trial["number"]))
    heads = "".join(
        f'<th scope="col">{escape(text)}</th>' for text in ("#", "trial", summary["score"], "state", *names)
    )
    rows = "".join(
        f'<tr class="{trial["state"]}"><td>{places.get(trial["number"], "")}</td><td>{trial["number"]}</td>'
        f"<td>{_score(trial)}</td><td>{trial['state']}</td>"
        + "".join(f"<td>{escape(_text(trial['values'].get(name, '')))}</td>" for name in names)
        + "</tr>"
        for trial in trials
    )
    return (
        '<section class="board"><div class="head"><h2>Trials</h2></div><div class="scroll" role="region" tabindex="0" '
        f'aria-label="Trials"><table class="sweep-table"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        "</div></section>"
    )


def _score(trial: Mapping[str, Any]) -> str:
    if trial["score"] is None:
        return ""
    spread = "" if trial["spread"] is None else f'<span class="pm">± {trial["spread"]:.2g}</span>'
    return f"<b>{trial['score']:.4g}</b>{spread}"


def _failures(summary: Mapping[str, Any]) -> str:
    failed = [trial for trial in summary["trials"] if trial["error"]]
    if not failed:
        return ""
    rows = "".join(f"<li>trial {trial['number']}: {escape(trial['error'])}</li>" for trial in failed)
    return f'<section class="board"><div class="head"><h2>Failed</h2></div><ul class="note">{rows}</ul></section>'


def _values(trial: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_text(value)}" for name, value in trial["values"].items())


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
