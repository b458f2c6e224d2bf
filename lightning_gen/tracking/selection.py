"""Which runs and boards of a leaderboard are shown, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from lightning_gen.tracking.leaderboard import Board, Entry
from lightning_gen.tracking.record_files import FoundRun


class Sort(StrEnum):
    """What the entries of a board are ordered by."""

    value = "value"
    images_seen = "images_seen"
    hours = "hours"
    parameters = "parameters"
    name = "name"


@dataclass(frozen=True)
class Selection:
    """Filters; None and empty ones let everything through, and all others must agree.

    Attributes:
        scores: names of scores, with ``*`` and ``?`` for any text and any letter.
        data: the same of data sets.
        models: the same of models.
        experiments: the same of experiments.
        statuses: of runs.
        protocol: the beginning of a protocol's hash.
    """

    scores: Sequence[str] = ()
    data: Sequence[str] = ()
    models: Sequence[str] = ()
    experiments: Sequence[str] = ()
    statuses: Sequence[str] = ()
    protocol: str = ""

    def runs(self, found: Iterable[FoundRun]) -> list[FoundRun]:
        """The runs that are let through, with those of their scores that are."""
        return [run._replace(record=self._scores_of(run.record)) for run in found if self._takes(run.record)]

    def _takes(self, record: dict[str, Any]) -> bool:
        return (
            _matches(record["data"], self.data)
            and _matches(record["model"], self.models)
            and _matches(record["experiment"], self.experiments)
            and (not self.statuses or record["status"] in self.statuses)
        )

    def _scores_of(self, record: dict[str, Any]) -> dict[str, Any]:
        if not self.scores and not self.protocol:
            return record
        kept = [
            score
            for score in record["scores"]
            if _matches(score["name"], self.scores) and score["protocol_hash"].startswith(self.protocol)
        ]
        return {**record, "scores": kept}


def sort_entries(boards: Iterable[Board], by: Sort, reverse: bool = False) -> None:
    """Order the entries of every board; places stay what they are, and entries that lack the value come last."""
    for board in boards:
        keyed = [(_sort_key(entry, by, board.lower_is_better), entry) for entry in board.entries]
        known = [(key, entry) for key, entry in keyed if key is not None]
        known.sort(key=lambda item: item[0], reverse=reverse)
        board.entries = [entry for _, entry in known] + [entry for key, entry in keyed if key is None]


def _sort_key(entry: Entry, by: Sort, lower_is_better: bool) -> Any:
    if by is Sort.value:
        return entry.value if lower_is_better else -entry.value
    return getattr(entry, by.value)


def _matches(text: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)
