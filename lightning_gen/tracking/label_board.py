"""Errors of classifiers by number of labels: a row for each method, a column for each number.

Needs no torch.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lightning_gen.tracking.record import config_digest
from lightning_gen.tracking.record_files import FoundRun

ALL = "all"
"""The column of runs that were given every label."""

METRIC = "classification_error"

OF_THE_METHOD = ("labels", "generated", "weights")
"""Parts of an error's protocol that tell methods apart and do not keep them from one table."""

Key = tuple[str, str, int, str]
"""Experiment, model, number of generated images and weights of a row."""


@dataclass(frozen=True)
class LabelRun:
    """One run in a cell.

    Attributes:
        run: ``<experiment>/<run_name>``.
        seed: of the run, which drew its labels.
        value: the error in percent.
        draw: digest of the images that kept their label; None for all.
        train_seconds: of the training; None where the record does not say.
        source: run directory, or address of a W&B run.
    """

    run: str
    seed: int
    value: float
    draw: str | None
    train_seconds: float | None
    source: str


@dataclass
class Cell:
    """The runs of one method at one number of labels.

    Attributes:
        value: mean error over seeds in percent; runs of one seed are averaged first.
        spread: sample standard deviation over seeds; None of one.
        seeds: number of different seeds.
        draws: number of different draws of labels.
        settings: number of different settings among the runs, which should be one.
        runs: by seed.
    """

    value: float
    spread: float | None
    seeds: int
    draws: int
    settings: int
    runs: list[LabelRun]


@dataclass
class Row:
    """One method.

    Attributes:
        name: the experiment, how many generated images it was trained on too, and which of its weights classify where
            there are rows of both.
        experiment: the experiment.
        model: name of the model's config.
        data: name of the data set.
        generated: number of generated images among the training images; 0 for none.
        weights: that classify: ``ema``, averaged, or ``raw``.
        cells: by column, as `LabelBoard.columns` names them.
    """

    name: str
    experiment: str
    model: str
    data: str
    generated: int
    weights: str
    cells: dict[str, Cell] = field(default_factory=dict)


@dataclass
class LabelBoard:
    """The methods whose errors are of one protocol but for what belongs to a method: its labels, its generated images,
    and whether its weights are averaged.

    Attributes:
        score: ``test_error`` or ``val_error``.
        protocol_hash: of ``protocol``.
        protocol: what all errors share.
        columns: numbers of labels, ascending, and `ALL` last.
        rows: the one with the least error at the fewest labels first.
    """

    score: str
    protocol_hash: str
    protocol: dict[str, Any]
    columns: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def build_label_boards(found: Iterable[FoundRun], split: str = "test", *, any_size: bool = False) -> list[LabelBoard]:
    """One board for every set of images that completed runs were tested on; they may differ in `OF_THE_METHOD` alone.

    Args:
        found: the runs.
        split: whose errors they are.
        any_size: whether pixels may differ too, as those of one set at several sizes do. The name of the set, the
            split, the number of images and the sequence of their labels still have to be equal.
    """
    boards: dict[str, LabelBoard] = {}
    members: dict[str, dict[Key, dict[str, list[tuple[FoundRun, LabelRun]]]]] = {}
    for run in found:
        if run.record["status"] != "completed":
            continue
        for score in run.record["scores"]:
            protocol = score["protocol"]
            if score["name"] != f"{split}_error" or _part(protocol, "metric").get("name") != METRIC:
                continue
            shared = {key: value for key, value in protocol.items() if key not in OF_THE_METHOD}
            reference = _part(protocol, "reference")
            if any_size and "labels_digest" in reference:
                shared["reference"] = {key: value for key, value in reference.items() if key != "digest"}
            key = config_digest(shared)
            boards.setdefault(key, LabelBoard(score["name"], key, shared))
            row = members.setdefault(key, {}).setdefault(_key(run, protocol), {})
            row.setdefault(_column(protocol), []).append((run, _label_run(run, score)))
    for key, board in boards.items():
        rows = members[key]
        board.columns = sorted({column for cells in rows.values() for column in cells}, key=_order)
        board.rows = [_row(name, cells, rows.keys()) for name, cells in rows.items()]
        board.rows.sort(key=lambda row: _rank(row, board.columns))
    return sorted(boards.values(), key=lambda board: (board.rows[0].data, board.protocol_hash))


def format_cell(cell: Cell | None, digits: int = 2) -> str:
    """``mean ± spread`` over seeds in percent, ``*`` where its runs are of several settings; nothing of None."""
    if cell is None:
        return ""
    spread = "" if cell.spread is None else f" ± {cell.spread:.{digits}f}"
    return f"{cell.value:.{digits}f}{spread}{'*' if cell.settings > 1 else ''}"


def describe_label_board(board: LabelBoard) -> str:
    """One line on what the errors of a board are of."""
    reference = _part(board.protocol, "reference")
    size = reference.get("size")
    number = f"{size:,} " if isinstance(size, int) else ""
    sizes = "" if "digest" in reference else " of any size"
    return f"percent of {number}{reference.get('dataset')} {reference.get('split')} images{sizes}"


def to_label_table(board: LabelBoard) -> Table:
    """A board for the terminal."""
    caption = f"protocol {board.protocol_hash} · mean ± standard deviation over seeds"
    if any(cell.settings > 1 for row in board.rows for cell in row.cells.values()):
        caption += " · * runs of several settings"
    table = Table(
        title=Text(f"{board.score} by number of labels ({describe_label_board(board)})", style="bold"),
        caption=caption,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", overflow="fold")
    for column in board.columns:
        table.add_column(heading(column), justify="right", no_wrap=True)
    for row in board.rows:
        table.add_row(Text(row.name), *(format_cell(row.cells.get(column)) for column in board.columns))
    return table


def to_label_json(boards: Sequence[LabelBoard], skipped: Sequence[str]) -> str:
    """One JSON object: the boards, and what could not be used."""
    return json.dumps({"boards": [asdict(board) for board in boards], "skipped": list(skipped)}) + "\n"


def heading(column: str) -> str:
    """What a column is called: ``1,000`` or ``all``."""
    return column if column == ALL else f"{int(column):,}"


def _part(protocol: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part of a protocol, empty where a record holds something else there."""
    part = protocol.get(key)
    return part if isinstance(part, Mapping) else {}


def _column(protocol: Mapping[str, Any]) -> str:
    number = _part(protocol, "labels").get("number")
    return str(number) if isinstance(number, int) else ALL


def _order(column: str) -> float:
    return math.inf if column == ALL else int(column)


def _rank(row: Row, columns: Sequence[str]) -> tuple[list[float], str]:
    return [row.cells[column].value if column in row.cells else math.inf for column in columns], row.name


def _label_run(found: FoundRun, score: Mapping[str, Any]) -> LabelRun:
    record = found.record
    return LabelRun(
        run=f"{record['experiment']}/{record['run_name']}",
        seed=record["seed"],
        value=score["value"],
        draw=_part(score["protocol"], "labels").get("digest"),
        train_seconds=record.get("train_seconds"),
        source=found.source,
    )


def _key(found: FoundRun, protocol: Mapping[str, Any]) -> Key:
    generated = _part(protocol, "generated").get("number", 0)
    return found.record["experiment"], found.record["model"], generated, str(protocol.get("weights"))


def _row(key: Key, cells: Mapping[str, Sequence[tuple[FoundRun, LabelRun]]], keys: Collection[Key]) -> Row:
    experiment, model, generated, weights = key
    name = experiment + (f" + {generated:,} generated" if generated else "")
    if sum(other[:3] == key[:3] for other in keys) > 1:
        name += f", {'averaged' if weights == 'ema' else weights} weights"
    data = next(iter(cells.values()))[0][0].record["data"]
    shown = {column: _cell(runs) for column, runs in cells.items()}
    return Row(name, experiment, model, data, generated, weights, shown)


def _cell(members: Sequence[tuple[FoundRun, LabelRun]]) -> Cell:
    runs = sorted((run for _, run in members), key=lambda run: (run.seed, run.run))
    by_seed: dict[int, list[float]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, []).append(run.value)
    values = [math.fsum(each) / len(each) for each in by_seed.values()]
    return Cell(
        value=math.fsum(values) / len(values),
        spread=statistics.stdev(values) if len(values) > 1 else None,
        seeds=len(values),
        draws=len({run.draw for run in runs}),
        settings=len({found.record.get("settings_digest") or found.source for found, _ in members}),
        runs=runs,
    )
