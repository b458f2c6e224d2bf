"""A leaderboard as a table for the terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lightning_gen.tracking.leaderboard import Board, Entry

COLUMNS = (
    "score",
    "protocol_hash",
    "lower_is_better",
    "place",
    "tied",
    "entry",
    "experiment",
    "model",
    "data",
    "status",
    "value",
    "spread",
    "seeds",
    "standard_error",
    "images_seen",
    "device_hours",
    "device",
    "parameters",
    "network_evaluations",
    "runs",
)
"""Of the CSV."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def describe_board(board: Board) -> str:
    """One line on a board: its score, direction, samples and reference."""
    parts = ["lower is better" if board.lower_is_better else "higher is better"]
    if "num_samples" in board.protocol:
        parts.append(f"{board.protocol['num_samples']:,} samples")
    reference = board.protocol.get("reference") or {}
    if {"size", "dataset", "split"} <= reference.keys():
        size = f"{reference['size']:,} " if isinstance(reference["size"], int) else ""
        parts.append(f"against {size}{reference['dataset']} {reference['split']} images")
    return ", ".join(parts)


def format_value(entry: Entry, digits: int = 4) -> str:
    """``mean ± spread over seeds``, or of a single run ``value ± its own std`` if it has one."""
    spread = entry.spread if entry.spread is not None else entry.runs[0].std
    return f"{entry.value:.{digits}g}" + ("" if spread is None else f" ± {spread:.2g}")


def format_place(entry: Entry) -> str:
    """``3``, ``3 =`` for a tie, nothing for an entry that has no place."""
    return "" if entry.place is None else f"{entry.place}{' =' if entry.tied else ''}"


def format_hours(hours: float | None) -> str:
    """Hours by three digits; nothing of None."""
    return "" if hours is None else f"{hours:,.0f}" if hours >= 100 else f"{hours:#.3g}"


def format_count(count: int) -> str:
    """``856k``, ``1.40M``."""
    return f"{count / 1e6:.2f}M" if count >= 1e6 else f"{count / 1e3:.0f}k" if count >= 1e3 else str(count)


def hours_heading(entries: Iterable[Entry]) -> str:
    """``GPU-hours`` or ``CPU core-hours``, or ``device-hours`` of entries of both."""
    kinds = {entry.hours_of for entry in entries if entry.hours is not None}
    return f"{kinds.pop() if len(kinds) == 1 else 'device'}-hours"


def to_table(board: Board) -> Table:
    """A board for the terminal, the runs of an entry below it."""
    table = Table(
        title=Text(f"{board.score} ({describe_board(board)})", style="bold"),
        caption=f"protocol {board.protocol_hash} · {board.entries[0].network_evaluations} network evaluations a sample",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    mixed = hours_heading(board.entries) == "device-hours"
    table.add_column("#", justify="left", no_wrap=True)
    table.add_column("entry", overflow="fold")
    for heading in ("score", "seeds", "images", hours_heading(board.entries).replace("hours", "h"), "params"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in board.entries:
        status = "" if entry.status == "completed" else f" ({entry.status})"
        table.add_row(
            format_place(entry),
            Text(entry.name + status),
            format_value(entry),
            str(entry.seeds),
            f"{entry.images_seen:,}",
            format_hours(entry.hours) + (f" {entry.hours_of}" if mixed and entry.hours is not None else ""),
            format_count(entry.parameters),
        )
        for run in entry.runs if len(entry.runs) > 1 else ():
            name = run.run.removeprefix(f"{entry.experiment}/")
            table.add_row("", Text(f"  {name}"), f"{run.value:.4g}", style="dim")
    return table


def to_markdown(boards: Sequence[Board]) -> str:
    """The boards as Markdown tables."""
    lines: list[str] = []
    for board in boards:
        hours = hours_heading(board.entries)
        headings = ["#", "entry", "model", "data", "score", "seeds", "images seen", hours, "parameters", "evaluations"]
        lines += [f"## {_cell(board.score)}", "", f"{_cell(describe_board(board))}. Protocol `{board.protocol_hash}`."]
        lines += ["", _row(headings), _row(["---", "---", "---", "---", *["---:"] * 6])]
        for entry in board.entries:
            status = "" if entry.status == "completed" else f" ({entry.status})"
            unit = f" {entry.hours_of}" if hours == "device-hours" and entry.hours is not None else ""
            cells = [format_place(entry), entry.name + status, entry.model, entry.data, format_value(entry)]
            cells += [str(entry.seeds), f"{entry.images_seen:,}", format_hours(entry.hours) + unit]
            lines.append(_row([*cells, f"{entry.parameters:,}", str(entry.network_evaluations)]))
        lines.append("")
    return "\n".join(lines)


def to_csv(boards: Sequence[Board]) -> str:
    """The entries of all boards as one CSV table (`COLUMNS`).

    Texts that a spreadsheet would take for a formula get a ``'`` before them; numbers stay numbers.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for board in boards:
        for entry in board.entries:
            texts = [entry.name, entry.experiment, entry.model, entry.data, entry.status]
            row: list[Any] = [_safe(board.score), _safe(board.protocol_hash), board.lower_is_better]
            row += [entry.place, entry.tied, *map(_safe, texts), entry.value, entry.spread, entry.seeds, entry.error]
            row += [entry.images_seen, entry.hours, entry.hours_of, entry.parameters, entry.network_evaluations]
            writer.writerow([*row, _safe("; ".join(run.source for run in entry.runs))])
    return file.getvalue()


def to_json(boards: Sequence[Board], skipped: Sequence[str]) -> str:
    """One JSON object: the boards, and what could not be used."""
    return json.dumps({"boards": [board.to_json() for board in boards], "skipped": list(skipped)}) + "\n"


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    """A text that stays text in a Markdown table."""
    escaped = re.sub(r"[\\`*\[\]<>|]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
    return " ".join(escaped.split())
