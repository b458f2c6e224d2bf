"""The leaderboard as a page: tables that sort and filter, curves and pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from lightning_gen.report.curves import MAX_ENTRIES, Curves, read_curves
from lightning_gen.report.marks import Scale, board_scale, draw_mark
from lightning_gen.report.page import build_page
from lightning_gen.report.parts import flat_protocol, heading_cell, protocol_button
from lightning_gen.report.pictures import MAX_BYTES, Picture, collect_pictures
from lightning_gen.tracking.exports import (
    describe_board,
    format_count,
    format_hours,
    hours_heading,
)
from lightning_gen.tracking.leaderboard import Board, Entry, Run
from lightning_gen.tracking.record_files import FoundRun

NOTES = """<details class="notes"><summary>How to read this page</summary>
<p>Only scores of one protocol share a table: the same metric, extractor and weights, reference images, number of
samples, sampler, seed and kind of weights. The protocol of a table is behind its button.</p>
<p>An entry is one setting; its runs differ in their seed alone. Its score is the mean over seeds ± their sample
standard deviation. A single run has the standard deviation that its score comes with, if any. In the drawing beside it
the dot is the mean, the bar the standard deviation, and each stroke a run.</p>
<p>Entries with <b class="tie">=</b> share a place: they differ from the best of their group by at most two standard
errors of the difference. The error comes from the spread over seeds; of a single run from its own standard deviation,
else it is taken as 1.3% of the score. Runs that did not complete have no place and are in no mean.</p>
<p>Images seen are real images consumed by training. Device-hours are the time of training, without evaluations, times
GPUs, or on a CPU times the cores that compute. Network evaluations are those of the generating network for one
sample.</p></details>"""


def leaderboard_page(
    boards: Sequence[Board],
    found: Sequence[FoundRun],
    title: str = "Leaderboard",
    *,
    pictures: bool = True,
    max_bytes: int = MAX_BYTES,
) -> str:
    """The whole page as HTML.

    Args:
        boards: in the order of the page.
        found: the runs that they were built of; curves and pictures come from their folders.
        title: plain text.
        pictures: whether sample grids, interpolations and reconstructions are put into the page.
        max_bytes: of the pictures together.
    """
    folders = {run.source: run.folder for run in found if run.folder is not None}
    read = cache(read_curves)
    data = {"boards": [_curves(board, folders, read) for board in boards]}
    runs = {run.run for board in boards for entry in board.entries for run in entry.runs}
    header = (
        f"<header><h1>{escape(title)}</h1><p class=lead>{_count(len(runs), 'run')} · {_count(len(boards), 'board')} · "
        f"only scores of one protocol share a table</p></header>"
    )
    gallery = _gallery(boards, folders, max_bytes) if pictures else ""
    special = _differences(boards)
    sections = "\n".join(_board(number, board, special[number]) for number, board in enumerate(boards))
    body = (
        f'<div class="page">{header}{_filters(boards)}<main>{sections}'
        f'<p id="nothing" hidden>Nothing matches the filter.</p>{gallery}{NOTES}</main></div>'
        '<dialog id="zoom" aria-label="Picture">'
        '<form method="dialog"><button aria-label="Close">&times;</button></form><img alt=""><p></p></dialog>'
    )
    return build_page(title, body, ["report.css"], ["table.js", "report.js", "chart.js"], data)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _filters(boards: Sequence[Board]) -> str:
    entries = [entry for board in boards for entry in board.entries]
    options = (
        ("data", "data set", {entry.data for entry in entries}),
        ("model", "model", {entry.model for entry in entries}),
        ("score", "score", {board.score for board in boards}),
    )
    selects = "".join(
        f'<label>{word}<select id="filter-{name}"><option value="">all</option>'
        + "".join(f"<option>{escape(value)}</option>" for value in sorted(values))
        + "</select></label>"
        for name, word, values in options
    )
    return (
        '<form class="filters" role="search"><label class="wide">filter'
        '<input id="filter-text" type="search" placeholder="model, experiment, run …" autocomplete="off"></label>'
        f'{selects}<output id="shown" aria-live="polite"></output></form>'
    )


def _board(number: int, board: Board, special: Sequence[str]) -> str:
    scale, decimals = board_scale(board), _decimals(board)
    several = len({entry.data for entry in board.entries}) > 1
    hours = hours_heading(board.entries)
    head = "".join(
        (
            heading_cell("place", "#", "number", sorted_now=True),
            heading_cell("name", "entry", "text"),
            heading_cell("data", "data", "text") if several else "",
            heading_cell("value", "score", "number"),
            _scale_head(scale),
            heading_cell("seeds", "seeds", "number"),
            heading_cell("seen", "images seen", "number"),
            heading_cell("hours", hours, "number"),
            heading_cell("parameters", "parameters", "number"),
            heading_cell("evaluations", "network evaluations", "number"),
        )
    )
    rows = "\n".join(_row(entry, scale, decimals, several, hours) for entry in board.entries)
    arrow = "↓ lower is better" if board.lower_is_better else "↑ higher is better"
    tags = "".join(f'<span class="differs">{escape(text)}</span>' for text in special)
    facts = describe_board(board).split(", ", 1)[1:]
    return (
        f'<section class="board" id="board-{number}" data-score="{escape(board.score)}" '
        f'aria-labelledby="title-{number}"><div class="head"><h2 id="title-{number}">{escape(board.score)}</h2>'
        f'<span class="direction">{arrow}</span><span class="facts">{escape("".join(facts))}</span>{tags}'
        f'{protocol_button(number, board.protocol, board.protocol_hash)}</div><div class="columns">'
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="title-{number}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>"
        f'<figure class="curves" id="curves-{number}"></figure></div></section>'
    )


def _scale_head(scale: Scale) -> str:
    kind = "log" if scale.logarithmic else ""
    ends = f"<span>{scale.first:.3g}</span><span>{kind}</span><span>{scale.last:.3g}</span>"
    return f'<th scope="col" class="range"><div>{ends}</div></th>'


def _row(entry: Entry, scale: Scale, decimals: int, several: bool, hours: str) -> str:
    texts = " ".join([entry.name, entry.model, entry.data, entry.status, *(run.run for run in entry.runs)]).lower()
    unit = f" <small>{entry.hours_of}</small>" if hours == "device-hours" and entry.hours is not None else ""
    tie = '<b class="tie" title="tie: within noise of the best of its group">=</b>' if entry.tied else ""
    place = "" if entry.place is None else f"{entry.place}"
    cells = [
        _cell("place", entry.place, f"<span>{place}</span>{tie}"),
        f'<th scope="row" class="name" data-value="{escape(entry.name)}">{_name(entry)}</th>',
        f'<td class="data" data-value="{escape(entry.data)}">{escape(entry.data)}</td>' if several else "",
        _cell("value", entry.value, _value(entry, decimals)),
        f'<td class="range">{draw_mark(entry, scale)}</td>',
        _cell("seeds", entry.seeds, str(entry.seeds)),
        _cell("seen", entry.images_seen, f"{entry.images_seen:,}"),
        _cell("hours", entry.hours, format_hours(entry.hours) + unit),
        _cell("parameters", entry.parameters, format_count(entry.parameters)),
        _cell("evaluations", entry.network_evaluations, f"{entry.network_evaluations:,}"),
    ]
    return (
        f'<tr class="{entry.status}" data-text="{escape(texts)}" data-model="{escape(entry.model)}" '
        f'data-data="{escape(entry.data)}">{"".join(cells)}</tr>'
    )


def _cell(name: str, value: float | None, shown: str) -> str:
    return f'<td class="{name}" data-value="{"" if value is None else value}">{shown}</td>'


def _value(entry: Entry, decimals: int) -> str:
    spread = entry.spread if entry.spread is not None else entry.runs[0].std
    shown = "" if spread is None else f"± {spread:.{decimals}f}"
    return f'<b>{entry.value:.{decimals}f}</b><span class="pm">{shown}</span>'


def _decimals(board: Board) -> int:
    """Decimals of all scores of a board: as many as give the smallest one three digits, within reason."""
    smallest = min((abs(entry.value) for entry in board.entries if entry.value), default=1.0)
    return min(max(2 - math.floor(math.log10(smallest)), 0), 6)


def _name(entry: Entry) -> str:
    status = "" if entry.status == "completed" else f' <span class="status">{entry.status}</span>'
    rows = "".join(_run(run) for run in entry.runs)
    return (
        f"<details><summary><span>{escape(entry.name)}</span>{status}<small>{escape(entry.model)}</small></summary>"
        f'<ul class="runs">{rows}</ul></details>'
    )


def _run(run: Run) -> str:
    """A run of an entry; by its name and not by its folder, as pages are handed on to others."""
    where = run.source if "://" in run.source else run.run
    return f"<li><b>{run.value:.4g}</b> seed {run.seed} <code>{escape(where)}</code></li>"


def _differences(boards: Sequence[Board]) -> list[list[str]]:
    """For every board up to three short parts of its protocol that are not those of all boards of its score."""
    flat = [dict(flat_protocol(board.protocol)) for board in boards]
    by_score: dict[str, Counter[tuple[str, str]]] = {}
    number = Counter(board.score for board in boards)
    for board, parts in zip(boards, flat, strict=True):
        by_score.setdefault(board.score, Counter()).update(parts.items())
    texts = []
    for board, parts in zip(boards, flat, strict=True):
        own = [item for item in parts.items() if by_score[board.score][item] < number[board.score]]
        own.sort(key=lambda item: len(item[1]))
        texts.append([f"{key}: {text if len(text) <= 34 else f'{text[:32]} …'}" for key, text in own[:3]])
    return texts


def _curves(board: Board, folders: Mapping[str, Path], read: Callable[[Path], Curves]) -> dict[str, Any]:
    """What the script draws of a board: for each of its first entries the curves of its runs."""
    entries = []
    for entry in board.entries[:MAX_ENTRIES]:
        key = (board.score, board.protocol_hash)
        curves = [read(folders[run.source]).get(key) for run in entry.runs if run.source in folders]
        known = [points for points in curves if points]
        last = [[(run.images_seen, run.value)] for run in entry.runs]
        entries.append({"name": entry.name, "model": entry.model, "data": entry.data, "runs": known or last})
    return {"score": board.score, "entries": entries, "total": len(board.entries)}


def _gallery(boards: Sequence[Board], folders: Mapping[str, Path], max_bytes: int) -> str:
    """The runs' newest pictures; where there is no room for all, every entry's first run comes first."""
    shown: dict[str, tuple[Entry, Run, int]] = {}
    for board in boards:
        for entry in board.entries:
            for rank, run in enumerate(entry.runs):
                shown.setdefault(run.source, (entry, run, rank))
    by_need = sorted((rank, source) for source, (_, _, rank) in shown.items() if source in folders)
    order = {source: position for position, source in enumerate(shown)}
    by_need.sort(key=lambda item: (item[0], order[item[1]]))
    found, left_out = collect_pictures((folders[source] for _, source in by_need), max_bytes)
    cards = [
        _card(entry, run, found[folders[source]])
        for source, (entry, run, _) in shown.items()
        if folders.get(source) in found
    ]
    if not cards and not left_out:
        return ""
    note = ""
    if left_out:
        note = (
            f'<p class="note">The pictures of {_count(len(left_out), "run")} are left out, to keep those of this page '
            f"below {max_bytes / 1e6:,.0f} MB.</p>"
        )
    return (
        '<section class="gallery" aria-labelledby="gallery"><div class="head">'
        '<h2 id="gallery">Pictures</h2>'
        f'<span class="facts">the newest of each run</span></div>{note}<div class="cards">{"".join(cards)}</div>'
        "</section>"
    )


def _card(entry: Entry, run: Run, pictures: Sequence[Picture]) -> str:
    texts = " ".join([run.run, entry.model, entry.data, run.status]).lower()
    images = []
    for picture in pictures:
        when = "" if picture.images_seen is None else f" at {picture.images_seen:,} images"
        label = f"{picture.kind} of {run.run}{when}"
        images.append(
            f'<button class="zoom" aria-label="Enlarge {escape(label)}"><img src="{picture.uri}" '
            f'width="{picture.width}" height="{picture.height}" alt="{escape(label)}" loading="lazy"></button>'
        )
    return (
        f'<figure class="card-run" data-text="{escape(texts)}" data-model="{escape(entry.model)}" '
        f'data-data="{escape(entry.data)}"><div class="pair">{"".join(images)}</div><figcaption>'
        f"<b>{escape(run.run)}</b> <span>{escape(entry.model)}</span></figcaption></figure>"
    )
