"""A run that no longer moves says where it hangs and ends, instead of holding its machines."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_gen.errors import EXIT_TRY_AGAIN, UserError
from lightning_gen.tracking.run_directory import RunDirectory

GRACE = 10.0
"""Seconds that the other processes leave to rank zero, whose exit status is the run's."""


class StallWatchdog(Callback):
    """Ends the process with `EXIT_TRY_AGAIN` if no iteration begins or ends for too long.

    The Python stacks of all threads go to standard error and to ``stall_rank<r>.txt`` in the run directory. Between two
    iterations every block of images that scores draw counts as a sign of life too. Time in which the process was
    suspended does not count. It watches from the first iteration on.

    Args:
        run: where the stacks go.
        timeout: seconds; null watches nothing. More than the longest part of an iteration: compiling, pictures, or the
            statistics of a score.

    Raises:
        UserError: ``timeout`` is not positive.
    """

    def __init__(self, run: RunDirectory, timeout: float | None = 3600.0) -> None:
        if timeout is not None and timeout <= 0:
            raise UserError(f"callbacks.stall.timeout={timeout} must be positive: set seconds, or null for no watchdog")
        self.run = run
        self.timeout = timeout
        self._beats = 0
        self._done = threading.Event()
        self._rank = 0

    def beat(self) -> None:
        """A sign of life."""
        self._beats += 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch from here on."""
        self._rank = trainer.global_rank
        if self.timeout is not None:
            self._done.clear()
            threading.Thread(target=self._watch, name="stall-watchdog", daemon=True).start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """An iteration begins."""
        self.beat()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """An iteration ends; its scores, pictures and checkpoint may follow."""
        self.beat()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Watch no longer."""
        self._done.set()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Watch no longer."""
        self._done.set()

    def _watch(self) -> None:
        assert self.timeout is not None
        tick = min(self.timeout / 10, 5.0)
        seen, idle = self._beats, 0.0
        # Counting ticks, not clock time: while the process is suspended, or the clock is set, none passes.
        while not self._done.wait(tick):
            seen, idle = (seen, idle + tick) if seen == self._beats else (self._beats, 0.0)
            if idle >= self.timeout:
                self._give_up()

    def _give_up(self) -> None:
        path = self.run.path / f"stall_rank{self._rank}.txt"
        print(
            f"error: no iteration in {self.timeout:.0f} s (callbacks.stall.timeout): stacks of all threads follow and "
            f"are in {path}; exit status {EXIT_TRY_AGAIN}",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(2, all_threads=True)
        try:
            with path.open("w", encoding="utf-8") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:
            print(f"{path} cannot be written: {error}", file=sys.stderr)
        if self._rank:
            time.sleep(GRACE)
        # Only this ends a process whose main thread hangs.
        os._exit(EXIT_TRY_AGAIN)
