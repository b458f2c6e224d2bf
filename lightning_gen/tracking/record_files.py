"""Finding the run records below folders, past what is damaged."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lightning_gen.errors import UserError
from lightning_gen.tracking.record import read_record
from lightning_gen.tracking.settings import settings_digest

RECORD_FILE = "result.json"
NO_RUNS_BELOW = frozenset({"checkpoints", "samples", "interpolations", "reconstructions", "wandb"})
"""Folders that hold no runs, however many files they hold."""


class FoundRun(NamedTuple):
    """A run record and where it came from.

    Attributes:
        record: see `lightning_gen.tracking.record`.
        source: the run directory, or the address of a W&B run.
        folder: the run directory if it is on this machine.
    """

    record: dict[str, Any]
    source: str
    folder: Path | None = None


def find_records(folders: Path | Sequence[Path]) -> tuple[list[FoundRun], list[str]]:
    """All run records below folders, and a line for each file or score that could not be used.

    A run directory is not looked into any further. A record without a ``settings_digest`` (they were written before
    there was one) gets it from the config beside it, if that can be read.

    Raises:
        UserError: a folder does not exist.
    """
    found, problems = [], []
    for path in _record_files([folders] if isinstance(folders, Path) else folders):
        try:
            record = read_record(path)
        except UserError as error:
            problems.append(str(error))
            continue
        if "settings_digest" not in record:
            record["settings_digest"] = _digest_beside(path)
        problems += drop_unusable_scores(record, str(path))
        found.append(FoundRun(record, str(path.parent), path.parent))
    return found, problems


def drop_unusable_scores(record: dict[str, Any], name: str) -> list[str]:
    """Remove scores that are no finite number, which cannot be ranked, and say which."""
    usable, problems = [], []
    for score in record["scores"]:
        if _is_finite(score["value"]) and (score["std"] is None or _is_finite(score["std"])):
            usable.append(score)
        else:
            problems.append(f"{name}: {score['name']} is no finite number")
    record["scores"] = usable
    return problems


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _record_files(folders: Sequence[Path]) -> Iterator[Path]:
    seen = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"No folder {folder}: train a run first, or name the folder that holds your runs")
        for path, below, files in os.walk(folder):
            if RECORD_FILE in files:
                below.clear()
                file = Path(path, RECORD_FILE)
                if len(folders) > 1:
                    resolved = file.resolve()
                    if resolved in seen:
                        continue
                    seen.add(resolved)
                yield file
            else:
                below[:] = sorted(name for name in below if name not in NO_RUNS_BELOW and not name.startswith("."))


def _digest_beside(record_file: Path) -> str | None:
    try:
        with record_file.with_name("config.yaml").open(encoding="utf-8") as file:
            return settings_digest(yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return None
