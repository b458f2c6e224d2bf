"""The folder of a sweep: Optuna's journal, the locks of trials and their output, shared by all workers and nodes."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import SuccessiveHalvingPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from lightning_gen.errors import UserError
from lightning_gen.sweeps.locks import FileLock
from lightning_gen.sweeps.sweep_file import UNUSED_KEYS, Sweep, parse_sweep

SETTINGS = "settings"
STOPPED = "stopped"
"""Attributes of the study: what it runs, and why it was stopped."""

VALUES, SCORES, RUNS, ERROR, DEATHS = "values", "scores", "runs", "error", "deaths"
"""Attributes of a trial: parameter values; score by seed; run directory by seed; why it failed; processes that died."""


class _JournalLock:
    """`FileLock` as Optuna's journal calls it: a writer that was killed leaves nothing locked."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        return self._lock.acquire(wait=True)

    def release(self) -> None:
        self._lock.release()


@dataclass(frozen=True)
class Settings:
    """What a study runs; it stays the same over all restarts.

    Args:
        sweep: the sweep file.
        overrides: added to every trial.
        seeds: of the runs of each trial, or None for one run with the seed that the overrides give.
        output_dir: where the runs are.
        search_seed: of the drawn parameters.
    """

    sweep: Sweep
    overrides: tuple[str, ...]
    seeds: tuple[int, ...] | None
    output_dir: Path
    search_seed: int

    def to_plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "sweep": dict(self.sweep.source),
            "overrides": list(self.overrides),
            "seeds": None if self.seeds is None else list(self.seeds),
            "output_dir": str(self.output_dir),
            "search_seed": self.search_seed,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Settings:
        """The inverse of `to_plain`."""
        return cls(
            parse_sweep(plain["sweep"]),
            tuple(plain["overrides"]),
            None if plain["seeds"] is None else tuple(plain["seeds"]),
            Path(plain["output_dir"]),
            plain["search_seed"],
        )

    @property
    def run_seeds(self) -> Sequence[int | None]:
        """One for each run of a trial."""
        return self.seeds if self.seeds else (None,)


class SweepFolder:
    """One sweep's study and files. Every process opens its own.

    Args:
        path: the folder.

    Attributes:
        planning: held while a trial is chosen, so that two workers never choose the same.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.planning = FileLock(self.path / "planning.lock")
        self._study: optuna.Study | None = None
        self._settings: Settings | None = None

    @property
    def study(self) -> optuna.Study:
        """The study; `open` comes first."""
        assert self._study is not None
        return self._study

    @property
    def settings(self) -> Settings:
        """What the study runs; `open` comes first."""
        assert self._settings is not None
        return self._settings

    @property
    def sweep(self) -> Sweep:
        """The sweep file."""
        return self.settings.sweep

    @property
    def exists(self) -> bool:
        """Whether a study was begun here."""
        return (self.path / "journal.log").is_file()

    def lease(self, number: int) -> FileLock:
        """The lock that is held as long as a trial is worked on."""
        return FileLock(self.path / "trials" / f"{number:04d}.lock")

    def log(self, number: int) -> Path:
        """What the runs of a trial print."""
        return self.path / "trials" / f"{number:04d}.log"

    def run_name(self, number: int, seed: int | None) -> str:
        """The name of a trial's run, which no other sweep gives."""
        name = f"{self.study.study_name}-{number:03d}"
        return name if seed is None else f"{name}-seed{seed}"

    def open(self, settings: Settings | None = None, name: str = "sweep") -> None:
        """Open the study, or begin it.

        Args:
            settings: what to run; None takes those of the study.
            name: what the study's name begins with.

        Raises:
            UserError: the folder cannot be written, holds the study of another sweep, or is damaged.
        """
        if settings is None and not self.exists:
            raise UserError(f"There is no sweep in {self.path}")
        try:
            (self.path / "trials").mkdir(parents=True, exist_ok=True)
            with self.planning:
                self._open(settings, name)
        except OSError as error:
            raise UserError(
                f"Cannot write to {self.path} ({error.strerror or error}): name another --storage"
            ) from error

    def _open(self, settings: Settings | None, name: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        journal, lock = self.path / "journal.log", _JournalLock(self.path / "journal.lock")
        _drop_torn_line(journal, lock)
        try:
            storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))  # type: ignore[arg-type]
        except (ValueError, KeyError) as error:
            raise UserError(f"{journal} is damaged ({error}): begin the sweep in another --storage") from error
        names = optuna.get_all_study_names(storage)
        if names:
            self._study = optuna.load_study(study_name=names[0], storage=storage)
        elif settings is None:
            raise UserError(f"There is no sweep in {self.path}")
        else:
            directions = optuna.study.StudyDirection
            direction = directions.MAXIMIZE if settings.sweep.maximize else directions.MINIMIZE
            self._study = optuna.create_study(
                study_name=f"{name}-{secrets.token_hex(2)}", storage=storage, direction=direction
            )
        kept = self._study.user_attrs.get(SETTINGS)
        if kept is not None:
            self._settings = Settings.from_plain(kept)
            if settings is not None:
                _check_same(self._settings, settings, self.path)
        elif settings is None:
            raise UserError(f"There is no sweep in {self.path}")
        else:
            self._study.set_user_attr(SETTINGS, settings.to_plain())
            self._settings = settings
        if self.sweep.halving is not None:
            self._study.pruner = SuccessiveHalvingPruner(self.sweep.halving.first, self.sweep.halving.factor)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """All trials by number, or those in one of the states."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def live_trial(self, trial: FrozenTrial) -> Trial:
        """A trial of this study to report to."""
        return Trial(self.study, trial._trial_id)

    @property
    def stopped(self) -> str | None:
        """Why no more trials are begun, or None."""
        reason: str | None = self.study.user_attrs.get(STOPPED)
        return reason

    def stop(self, reason: str | None) -> None:
        """Begin no more trials, or with None begin them again."""
        self.study.set_user_attr(STOPPED, reason)


def _drop_torn_line(journal: Path, lock: _JournalLock) -> None:
    """Cut off a last line that a full disk or a power cut left without its end: nobody was told that it is kept."""
    if not journal.is_file():
        return
    lock.acquire()
    try:
        with journal.open("r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
    finally:
        lock.release()


def _check_same(kept: Settings, now: Settings, path: Path) -> None:
    ignored = (*UNUSED_KEYS, "run_cap")
    before, after = kept.to_plain(), now.to_plain()
    differing = [
        f"the file's {key}"
        for key in sorted({*before["sweep"], *after["sweep"]})
        if key not in ignored and before["sweep"].get(key) != after["sweep"].get(key)
    ]
    names = {
        "overrides": "the overrides",
        "seeds": "--seeds",
        "output_dir": "--output-dir",
        "search_seed": "--search-seed",
    }
    differing += [name for key, name in names.items() if before[key] != after[key]]
    if differing:
        raise UserError(
            f"{path} holds another sweep ({', '.join(differing)} differ): repeat its options, or name another --storage"
        )
