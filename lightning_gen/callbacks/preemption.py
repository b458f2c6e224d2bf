"""A run that is told to stop, or whose time is up, writes a checkpoint after the iteration and leaves to be resumed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Any

import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from lightning_gen.callbacks.checkpoints import Checkpoints
from lightning_gen.callbacks.schedule import find_callback, is_last_iteration
from lightning_gen.errors import EXIT_TRY_AGAIN, UserError, first_line
from lightning_gen.models import GenerativeModel

EXIT_BY_KEYBOARD = 130
"""Exit status after Ctrl-C, as shells use it: 128 + SIGINT."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
"""Signals that ask a run to stop. submitit's jobs get SIGUSR2, whose own handler requeues without a checkpoint."""

AGREE_SECONDS = 0.2
"""About how often the processes of a run ask one another whether any of them shall stop."""


class Stopped(SystemExit):
    """Ends the process after its last checkpoint; the argument is the exit status."""


class Preemption(Checkpoint):
    """Stops the run in good order on SIGTERM, SIGUSR1, SIGUSR2 or SIGINT, and before a wall-time budget is used up.

    A signal only sets a flag. The iteration ends with its scores and pictures, the processes agree to stop, a
    checkpoint is written unless the iteration has one, and every process leaves with `EXIT_TRY_AGAIN` (after SIGINT
    with `EXIT_BY_KEYBOARD`; a second SIGINT stops at once, without a checkpoint). Before the first iteration there is
    nothing to keep, and a signal ends the process where it is. The last iteration of a run is never cut off: it
    completes.

    Several processes agree by one all-reduce about once in `AGREE_SECONDS`, so it does not matter which of them is
    signalled. Lightning's own handlers, which write a checkpoint or talk to other processes in the middle of whatever
    runs, are not registered.

    Args:
        resumes: whether the same command would go on with the run (``resume=auto``), so that a requeued job makes
            sense.
        max_time: wall time of this process, ``HH:MM:SS``, ``D-HH:MM:SS`` or seconds; null for no limit. Training stops
            when the longest iteration so far, its scores and checkpoint included, would no longer fit.
        requeue: in a Slurm job, let rank zero requeue it by ``scontrol requeue`` once everything is written.

    Raises:
        UserError: ``max_time`` is no time.
    """

    def __init__(self, resumes: bool = False, max_time: str | float | None = None, requeue: bool = True) -> None:
        self.resumes = resumes
        self.requeue = requeue
        self.max_seconds = None if max_time is None else parse_duration(max_time)
        self.reason = ""
        self._started_at = time.monotonic()
        self._process = os.getpid()
        self._wish = 0
        self._training = False
        self._stopped = False
        self._longest = 0.0
        self._ended_at = 0.0
        self._agreed_at = 0.0
        self._interval = 1
        self._until_agreement = 1
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the signals over."""
        if threading.current_thread() is not threading.main_thread():
            return
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        for number in SIGNALS:
            self._handlers.setdefault(number, signal.signal(number, self._on_signal))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there is something to keep."""
        self._training = True
        self._ended_at = self._agreed_at = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Stop if any process wishes to, unless the run ends here anyway."""
        assert isinstance(pl_module, GenerativeModel)
        now = time.monotonic()
        self._longest = max(self._longest, now - self._ended_at)
        self._ended_at = now
        if self.max_seconds is not None and now - self._started_at + self._longest > self.max_seconds:
            self._ask(EXIT_TRY_AGAIN, f"the time of callbacks.preemption.max_time ({self.max_seconds:.0f} s) is up")
        if is_last_iteration(trainer):
            return
        wish = self._agree(trainer)
        if wish:
            checkpoints = find_callback(trainer, Checkpoints)
            if checkpoints is not None:
                checkpoints.save_unless_saved(trainer, pl_module)
            kept = "no checkpoint (callbacks.checkpoint=null)" if checkpoints is None else "checkpoint written"
            self._ask(wish, "another process was told to stop")
            self.reason += f" at iteration {pl_module.iteration}, {kept}"
            self._stopped = True
            raise Stopped(self._exit_status(trainer, wish))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back after a fit that ended by itself."""
        self.give_signals_back()

    def give_signals_back(self) -> None:
        """Restore what signals did before; after an interruption only when everything is written."""
        self._training = False
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def leave(self) -> None:
        """Say why the run stopped and requeue its job; for rank zero, when everything is written."""
        if not self._stopped:
            return
        hint = "" if self.resumes else "; go on with resume=auto"
        print(f"stopped: {self.reason}{hint}", file=sys.stderr)
        job = slurm_job()
        if job is None or not self.requeue or self._wish == EXIT_BY_KEYBOARD:
            return
        if not self.resumes:
            print(f"Slurm job {job} is not requeued: it would start anew without resume=auto", file=sys.stderr)
            return
        print(requeue(job), file=sys.stderr)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked worker, which ends with its parent
        by_keyboard = number == signal.SIGINT
        if by_keyboard and self._wish == EXIT_BY_KEYBOARD:
            raise KeyboardInterrupt
        self._ask(EXIT_BY_KEYBOARD if by_keyboard else EXIT_TRY_AGAIN, signal.Signals(number).name)
        if not self._training:
            self.reason += " before the first iteration"
            self._stopped = True
            raise Stopped(self._wish)
        again = ", or at once on another Ctrl-C" if by_keyboard else ""
        # A print could be called in the middle of another one and raise.
        os.write(2, f"{self.reason}: stopping after this iteration{again}\n".encode())

    def _ask(self, wish: int, reason: str) -> None:
        if not self._wish:
            self.reason = reason
        self._wish = max(self._wish, wish)

    def _agree(self, trainer: Trainer) -> int:
        """The exit status that some process wishes to leave with, the same on all; 0 to go on."""
        if trainer.world_size == 1:
            return self._wish
        self._until_agreement -= 1
        if self._until_agreement:
            return 0
        now = time.monotonic()
        votes = torch.tensor(
            [self._wish, now - self._agreed_at], dtype=torch.float64, device=trainer.strategy.root_device
        )
        torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
        wish, seconds = votes.tolist()
        self._agreed_at = now
        # All ranks compute the same number, from the slowest one's time.
        per_second = self._interval / max(seconds, 1e-6)
        self._interval = max(1, min(2 * self._interval, int(per_second * AGREE_SECONDS)))
        self._until_agreement = self._interval
        return int(wish)

    def _exit_status(self, trainer: Trainer, wish: int) -> int:
        # Lightning kills the first process when one that it started leaves with another status than 0.
        environment = getattr(trainer.strategy, "cluster_environment", None)
        started_by_lightning = isinstance(environment, LightningEnvironment) and not trainer.is_global_zero
        return 0 if started_by_lightning else wish


def parse_duration(text: str | float) -> float:
    """Seconds of ``HH:MM:SS``, ``D-HH:MM:SS`` (as Slurm writes times) or of a number of seconds.

    Raises:
        UserError: it is neither, or not positive.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", str(text).strip())
    if match:
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        total = float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    else:
        try:
            total = float(text)
        except ValueError:
            total = 0.0
    if not total > 0:
        raise UserError(f"callbacks.preemption.max_time={text} is no time: write HH:MM:SS, as 01:30:00")
    return total


def slurm_job() -> str | None:
    """The Slurm job that this process belongs to, as ``scontrol`` takes it; None outside Slurm.

    The first task of an array has the array's own id as job id, and requeueing that would requeue the whole array.
    """
    if "SLURM_ARRAY_JOB_ID" in os.environ and "SLURM_ARRAY_TASK_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def requeue(job: str) -> str:
    """Requeue a Slurm job, unless somebody cancelled it or requeued it already; returns the line that says so."""
    try:
        if _is_ended(_scontrol("show", "job", job)):
            return f"Slurm job {job} was cancelled or requeued by others, so it is left as it is"
        _scontrol("requeue", job)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [f"status {error.returncode}"])[0]
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = first_line(error)
    else:
        return f"Slurm job {job} is requeued"
    return f"Slurm job {job} could not be requeued ({reason}): submit it again to go on"


def _scontrol(*arguments: str) -> str:
    command = ["scontrol", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def _is_ended(description: str) -> bool:
    """Whether Slurm is ending a job neither for its time limit nor for a preemption, from ``scontrol show job``.

    Slurm sends SIGTERM in all these cases. While processes are left it shows the job as completing, whatever the cause.
    """
    fields = dict(part.split("=", 1) for part in description.split() if "=" in part)
    wanted_back = fields.get("Reason") == "TimeLimit" or fields.get("PreemptTime", "None") != "None"
    return fields.get("JobState") in ("COMPLETING", "CANCELLED") and not wanted_back
