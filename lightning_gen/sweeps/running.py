"""Running one trial: a process for each seed, watched until it ends, and what its record says."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from lightning_gen.errors import EXIT_TRY_AGAIN, UserError
from lightning_gen.sweeps.commands import find_program, own_overrides, trial_command
from lightning_gen.sweeps.folder import DEATHS, ERROR, RUNS, SCORES, SweepFolder
from lightning_gen.sweeps.planning import Job
from lightning_gen.tracking.record import read_record
from lightning_gen.tracking.run_directory import RunDirectory

POLL_SECONDS = 0.2
GRACE_SECONDS = 120.0
"""How long a run may take for its last checkpoint after SIGTERM, before it is killed."""

MOST_DEATHS = 3
"""How often a trial's process may be ended from outside without progress in between before the trial has failed."""

USER_MISTAKE = 2
"""The exit status of a run whose config does not work."""


class Stopping(Exception):  # noqa: N818
    """The worker was told to stop; its trial stays as it is and is taken up again later."""


class TrialFailed(Exception):  # noqa: N818
    """A trial has no score.

    Args:
        reason: one line.
        mistake: whether the run said that its config does not work.
    """

    def __init__(self, reason: str, *, mistake: bool = False) -> None:
        super().__init__(reason)
        self.mistake = mistake


class TrialPruned(Exception):  # noqa: N818
    """A trial is stopped early for its intermediate scores."""


class TrialRunner:
    """Runs trials of one study.

    Args:
        folder: an open study.
        environment: variables of the processes.
        stopping: whether the worker was told to stop.
    """

    def __init__(self, folder: SweepFolder, environment: Mapping[str, str], stopping: Callable[[], bool]) -> None:
        self.folder = folder
        self.environment = environment
        self.stopping = stopping

    def run(self, job: Job) -> None:
        """Run the job's trial to its end and tell the study.

        Raises:
            Stopping: the worker was told to stop.
        """
        study, number = self.folder.study, job.trial.number
        try:
            scores = self._run_seeds(job)
        except TrialPruned:
            study.tell(number, state=TrialState.PRUNED)
        except TrialFailed as failure:
            job.trial.set_user_attr(ERROR, {"reason": str(failure), "mistake": failure.mistake})
            study.tell(number, state=TrialState.FAIL)
        else:
            study.tell(number, statistics.fmean(scores))

    def _run_seeds(self, job: Job) -> list[float]:
        settings = self.folder.settings
        scores: dict[str, float] = dict(job.trial.user_attrs.get(SCORES, {}))
        runs: dict[str, str] = dict(job.trial.user_attrs.get(RUNS, {}))
        for position, seed in enumerate(settings.run_seeds):
            key = "run" if seed is None else str(seed)
            if key in scores:
                continue
            name = self.folder.run_name(job.trial.number, seed)
            if find_run(settings.output_dir, name, completed=True) is None:
                self._run_process(job, name, seed, watch=position == 0)
            try:
                run, scores[key] = self._score(name)
            except TrialFailed as failure:
                raise TrialFailed(_of_seed(seed, str(failure)), mistake=failure.mistake) from failure
            runs[key] = str(run.path)
            job.trial.set_user_attr(RUNS, runs)
            job.trial.set_user_attr(SCORES, scores)
        return list(scores.values())

    def _score(self, name: str) -> tuple[RunDirectory, float]:
        run = find_run(self.folder.settings.output_dir, name, completed=True)
        if run is None:
            raise TrialFailed(f"ended without a record of a completed run {name} in {self.folder.settings.output_dir}")
        wanted = self.folder.sweep.score
        scores = {score["name"]: float(score["value"]) for score in reversed(read_record(run.record_file)["scores"])}
        if wanted not in scores:
            raise TrialFailed(f"has no score {wanted}; it has {', '.join(scores) or 'none'}", mistake=True)
        if not math.isfinite(scores[wanted]):
            raise TrialFailed(f"{wanted} is {scores[wanted]}")
        return run, scores[wanted]

    def _run_process(self, job: Job, name: str, seed: int | None, *, watch: bool) -> None:
        """Start the run, again where it was killed from outside, and wait for its end.

        Raises:
            TrialFailed: it ended with an error.
            TrialPruned: it was stopped early.
            Stopping: the worker was told to stop.
        """
        settings = self.folder.settings
        command = trial_command(settings.sweep.command, str(find_program(settings.sweep.program)), job.values)
        command += [*settings.overrides, *own_overrides(name, settings.output_dir, seed)]
        log = self.folder.log(job.trial.number)
        while True:
            if self.stopping():
                raise Stopping
            with log.open("ab") as output:
                output.write(f"$ {' '.join(command)}\n".encode())
                output.flush()
                begin = output.tell()
                process = self._start(command, output.fileno(), job.lease.descriptor)
            status = self._wait(process, job, name if watch else None)
            if status == 0:
                if watch:
                    self._is_hopeless(job, name)  # later trials are compared with what was written last, too
                return
            if not _ended_from_outside(status):
                raise TrialFailed(_of_seed(seed, last_error(log, begin)), mistake=status == USER_MISTAKE)
            if self._count_death(job, name) >= MOST_DEATHS:
                raise TrialFailed(_of_seed(seed, f"was ended {MOST_DEATHS} times, at last by {_describe_end(status)}"))

    def _count_death(self, job: Job, name: str) -> int:
        """How often the run was ended from outside since its record last said more iterations."""
        run = find_run(self.folder.settings.output_dir, name)
        iterations = _iterations(run) if run else 0
        before = job.trial.user_attrs.get(DEATHS, {"number": 0, "iterations": 0})
        number = 1 if iterations > before["iterations"] else before["number"] + 1
        job.trial.set_user_attr(DEATHS, {"number": number, "iterations": iterations})
        return number

    def _start(self, command: list[str], output: int, lease: int) -> subprocess.Popen[bytes]:
        """The run's process; it holds the trial's lock too, so nobody takes the trial up while it runs.

        Raises:
            TrialFailed: there is no such program.
        """
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                pass_fds=(lease,),
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        except OSError as error:
            raise TrialFailed(f"cannot start {command[0]}: {error.strerror or error}", mistake=True) from error

    def _wait(self, process: subprocess.Popen[bytes], job: Job, watched: str | None) -> int:
        try:
            while process.poll() is None:
                if self.stopping():
                    raise Stopping
                if watched is not None and self._is_hopeless(job, watched):
                    raise TrialPruned
                time.sleep(POLL_SECONDS)
        except (Stopping, TrialPruned):
            end_process(process)
            raise
        return process.returncode

    def _is_hopeless(self, job: Job, name: str) -> bool:
        """Report what the run has scored so far; whether the study would stop it."""
        if self.folder.sweep.halving is None:
            return False
        run = find_run(self.folder.settings.output_dir, name)
        if run is None:
            return False
        known = self.folder.trials()[job.trial.number].intermediate_values
        for step, line in enumerate(run.read_metrics(), start=1):
            value = next((each["value"] for each in line["scores"] if each["name"] == self.folder.sweep.score), None)
            if value is None or step in known:
                continue
            job.trial.report(value, step)
            if job.trial.should_prune():
                return True
        return False


def _ended_from_outside(status: int) -> bool:
    """Whether a signal ended the process, or it left so that it can go on, as it does before its time is up."""
    return status < 0 or status - 128 in signal.valid_signals() or status == EXIT_TRY_AGAIN


def _describe_end(status: int) -> str:
    number = -status if status < 0 else status - 128
    return signal.Signals(number).name if number in signal.valid_signals() else f"status {status}"


def find_run(output_dir: Path, name: str, *, completed: bool = False) -> RunDirectory | None:
    """The newest run of that name in any experiment of ``output_dir``: ``name``, or ``name-2``, ... where it was taken.

    Args:
        output_dir: holds ``<experiment>/<run_name>``.
        name: of the run.
        completed: only one whose record says so.
    """
    pattern = re.compile(rf"{re.escape(name)}(?:-(\d+))?")
    matches = [(pattern.fullmatch(path.name), path) for path in output_dir.glob(f"*/{name}*")]
    found = [(int(match[1] or 1), path) for match, path in matches if match]
    runs = [RunDirectory(path) for _, path in sorted(found, reverse=True)]
    return next((run for run in runs if not completed or _status(run) == "completed"), None)


def _status(run: RunDirectory) -> str | None:
    try:
        status: str = read_record(run.record_file)["status"]
    except UserError:
        return None
    return status


def _iterations(run: RunDirectory) -> int:
    try:
        return int(read_record(run.record_file).get("iterations") or 0)
    except UserError:
        return 0


def last_error(log: Path, begin: int = 0) -> str:
    """The last line of a run's output that tells an error: one that begins with ``error:``, else the last one.

    Args:
        log: the output.
        begin: byte where the run's output begins.
    """
    with log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - 65536))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line]
    told = [line for line in lines if line.startswith("error:")]
    return (told or lines or ["it printed nothing"])[-1].removeprefix("error:").strip()


def _of_seed(seed: int | None, reason: str) -> str:
    return reason if seed is None else f"seed {seed}: {reason}"


def end_process(process: subprocess.Popen[Any]) -> None:
    """Ask a process to end, and kill it and its children where it does not within `GRACE_SECONDS`."""
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def end_with_parent() -> None:
    """In a child before its program starts: let Linux send SIGTERM when the parent has died.

    Elsewhere the child runs to its end and holds its lock until then.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
