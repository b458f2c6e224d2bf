"""The leaderboard: run records grouped by protocol, so that only comparable scores share a table. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from lightning_gen.errors import UserError
from lightning_gen.tracking.record import format_score, read_record


@dataclass
class Board:
    """The runs that were scored under one protocol, best first.

    Attributes:
        score: name of the score.
        protocol_hash: of the protocol that all rows share.
        protocol: the protocol itself.
        lower_is_better: the direction.
        rows: one dictionary of plain values a run.
    """

    score: str
    protocol_hash: str
    protocol: dict[str, Any]
    lower_is_better: bool
    rows: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The board as plain values."""
        return {
            "score": self.score,
            "protocol_hash": self.protocol_hash,
            "lower_is_better": self.lower_is_better,
            "protocol": self.protocol,
            "rows": self.rows,
        }


def find_records(folder: Path) -> tuple[list[tuple[Path, dict[str, Any]]], list[str]]:
    """All run records below a folder, and a line for each file that could not be used.

    Raises:
        UserError: the folder does not exist.
    """
    if not folder.is_dir():
        raise UserError(f"No folder {folder}: train a run first, or name the folder that holds your runs")
    records, problems = [], []
    for path in sorted(folder.rglob("result.json")):
        try:
            records.append((path, read_record(path)))
        except UserError as error:
            problems.append(str(error))
    return records, problems


def build_boards(records: list[tuple[Path, dict[str, Any]]]) -> list[Board]:
    """One board for every score and protocol; scores of extractors that rank nothing are left out."""
    boards: dict[tuple[str, str], Board] = {}
    for path, record in records:
        for score in record["scores"]:
            if not score.get("ranked", True):
                continue
            key = (score["name"], score["protocol_hash"])
            board = boards.setdefault(key, Board(*key, score["protocol"], score.get("lower_is_better", True)))
            board.rows.append(
                {
                    "run": f"{record['experiment']}/{record['run_name']}",
                    "model": record["model"],
                    "data": record["data"],
                    "seed": record["seed"],
                    "value": score["value"],
                    "std": score["std"],
                    "images_seen": score["images_seen"],
                    "train_seconds": record.get("train_seconds"),
                    "images_per_second": record.get("images_per_second"),
                    "parameters": sum(record.get("parameters", {}).values()),
                    "status": record["status"],
                    "path": str(path.parent),
                }
            )
    for board in boards.values():
        board.rows.sort(key=lambda row: row["value"] if board.lower_is_better else -row["value"])
    return sorted(boards.values(), key=lambda board: (board.protocol.get("reference") is None, board.score))


def render(board: Board) -> Table:
    """A board as a table for the terminal."""
    arrow = "lower is better" if board.lower_is_better else "higher is better"
    reference = board.protocol.get("reference") or {}
    counts = [f"{board.protocol['num_samples']:,} samples"] if "num_samples" in board.protocol else []
    if reference:
        counts.append(f"against {reference['size']:,} {reference['dataset']} {reference['split']} images")
    table = Table(
        title=f"{board.score} ({arrow}) · {', '.join(counts)}",
        caption=f"protocol {board.protocol_hash}",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("run", overflow="fold")
    for heading in ("score", "images seen", "train s", "images/s", "params"):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, row in enumerate(board.rows, start=1):
        status = "" if row["status"] == "completed" else f" ({row['status']})"
        table.add_row(
            str(place),
            row["run"] + status,
            format_score(row),
            f"{row['images_seen']:,}",
            _number(row["train_seconds"]),
            _number(row["images_per_second"]),
            _short(row["parameters"]),
        )
    return table


def _short(count: int) -> str:
    return f"{count / 1e6:.2f}M" if count >= 1e6 else f"{count / 1e3:.0f}k"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
