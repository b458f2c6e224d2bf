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
        sign = 1 if board.lower_is_better else -1
        keys = {
            Sort.value: lambda entry, sign=sign: sign * entry.value,
            Sort.images_seen: lambda entry: entry.images_seen,
            Sort.hours: lambda entry: entry.hours,
            Sort.parameters: lambda entry: entry.parameters,
            Sort.name: lambda entry: entry.name,
        }
        key = keys[by]
        known: list[Entry] = [entry for entry in board.entries if key(entry) is not None]
        unknown = [entry for entry in board.entries if key(entry) is None]
        known.sort(key=key, reverse=reverse)
        board.entries = known + unknown


def _matches(text: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)
