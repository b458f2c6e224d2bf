"""Where a run keeps its files, and how a run gets a directory of its own or its old one back."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lightning_gen.errors import UserError
from lightning_gen.files import write_text


class RunDirectory:
    """The files of one run; nothing is read or written by making the object.

    Args:
        path: ``<output_dir>/<experiment>/<run_name>``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.config_file = path / "config.yaml"
        self.record_file = path / "result.json"
        self.metrics_file = path / "metrics.jsonl"
        self.rounds_file = path / "rounds.jsonl"
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.interpolations = path / "interpolations"
        self.snapshots = path / "snapshots"
        self.labelled_file = path / "labelled.json"

    @property
    def last_checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.checkpoints / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint of the best main score."""
        return self.checkpoints / "best.ckpt"

    def make_folders(self) -> None:
        """Make the directory and those in it, where they are missing."""
        for folder in (self.checkpoints, self.samples, self.interpolations):
            folder.mkdir(parents=True, exist_ok=True)

    def read_config(self) -> dict[str, Any]:
        """The resolved config.

        Raises:
            UserError: it is missing or no YAML mapping.
        """
        try:
            config = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{self.path} is not a run directory: cannot read config.yaml ({error})") from error
        if not isinstance(config, dict):
            raise UserError(f"{self.config_file} is damaged")
        return config

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Keep the resolved config."""
        write_text(self.config_file, yaml.safe_dump(dict(config), sort_keys=False))

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add one line to ``metrics.jsonl``; it is on the disk when this returns."""
        _append(self.metrics_file, line)

    def append_round(self, line: Mapping[str, Any]) -> None:
        """Add one line to ``rounds.jsonl``, of a round of pseudo labels; it is on the disk when this returns."""
        _append(self.rounds_file, line)

    def add_scores(self, iteration: int, images_seen: int, scores: list[dict[str, Any]]) -> None:
        """Add scores to the last line of ``metrics.jsonl`` if it is that iteration's, else as a line of their own."""
        lines = self.read_metrics()
        if lines and lines[-1]["iteration"] == iteration:
            lines[-1]["scores"] += scores
            write_text(self.metrics_file, "".join(json.dumps(line) + "\n" for line in lines))
        else:
            self.append_metrics({"iteration": iteration, "images_seen": images_seen, "scores": scores})

    def read_metrics(self) -> list[dict[str, Any]]:
        """The whole lines of ``metrics.jsonl``; a line torn by a crash is left out."""
        return list(_lines(self.metrics_file))

    def read_rounds(self) -> list[dict[str, Any]]:
        """The whole lines of ``rounds.jsonl``; a line torn by a crash is left out."""
        return list(_lines(self.rounds_file))

    def keep_labelled(self, indices: list[int], *, write: bool) -> list[int]:
        """The training images that keep their label in this run: those kept before, else ``indices``.

        Args:
            indices: those that were drawn now.
            write: whether this process keeps them.
        """
        if self.labelled_file.exists():
            kept: list[int] = json.loads(self.labelled_file.read_text(encoding="utf-8"))["indices"]
            return kept
        if write:
            write_text(self.labelled_file, json.dumps({"indices": indices}))
        return indices

    def rewind_metrics(self, iteration: int) -> None:
        """Forget the evaluations and the rounds after ``iteration``, which a resumed run will make again."""
        for path in (self.metrics_file, self.rounds_file):
            if path.exists():
                kept = [line for line in _lines(path) if line["iteration"] <= iteration]
                write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def remove_leftovers(self) -> None:
        """Remove temporary files of a process that was killed while it wrote them."""
        for path in self.path.rglob(".*.tmp"):
            path.unlink(missing_ok=True)


def create_run(experiment_dir: Path, name: str, *, exact: bool) -> RunDirectory:
    """A new directory for a run; no two processes ever get the same.

    Args:
        experiment_dir: ``<output_dir>/<experiment>``.
        name: the wished name.
        exact: whether a taken name is an error; otherwise ``-2``, ``-3``, ... is appended.

    Raises:
        UserError: the name is taken, or the directory cannot be written.
    """
    candidates = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    try:
        experiment_dir.mkdir(parents=True, exist_ok=True)
        for candidate in candidates:
            run = RunDirectory(experiment_dir / candidate)
            try:
                run.path.mkdir()
            except FileExistsError as error:
                if exact:
                    raise UserError(
                        f"Run {run.path} exists: continue it with resume=auto or choose another run_name"
                    ) from error
                continue
            run.make_folders()
            return run
    except OSError as error:
        raise _cannot_write(experiment_dir, error) from error
    raise AssertionError("unreachable")


def open_folder(path: Path) -> RunDirectory:
    """The run directory at ``path``, made where there is none.

    Raises:
        UserError: it cannot be written.
    """
    run = RunDirectory(path)
    try:
        run.make_folders()
    except OSError as error:
        raise _cannot_write(path.parent, error) from error
    return run


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and "iteration" in line:
            yield line


def _cannot_write(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"Cannot write to {folder} ({error.strerror}): set paths.output_dir to a folder that you may write"
    )


def find_run(experiment_dir: Path, name: str) -> RunDirectory | None:
    """The newest run of that name (``name``, ``name-2``, ...) that has a config, or None."""
    found = None
    for number in itertools.count(1):
        run = RunDirectory(experiment_dir / (name if number == 1 else f"{name}-{number}"))
        if not run.path.exists():
            return found
        if run.config_file.exists():
            found = run
    raise AssertionError("unreachable")


def open_run(path: Path) -> tuple[RunDirectory, Path]:
    """The run of a run directory or of a checkpoint file in it, and the checkpoint that is meant.

    Raises:
        UserError: neither, or a run that has no checkpoint yet.
    """
    if path.is_dir():
        run = RunDirectory(path)
        run.read_config()
        if not run.last_checkpoint.is_file():
            raise UserError(f"Run {path} has no checkpoint yet")
        return run, run.last_checkpoint
    if path.is_file():
        return RunDirectory(path.resolve().parent.parent), path
    raise UserError(f"No run directory or checkpoint at {path}")
