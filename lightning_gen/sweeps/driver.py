"""The driver: begins or continues a study, and keeps its workers at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lightning_gen.errors import UserError
from lightning_gen.sweeps.folder import SweepFolder
from lightning_gen.sweeps.running import GRACE_SECONDS
from lightning_gen.sweeps.worker import Orders, command_line

POLL_SECONDS = 0.1

MOST_REPLACEMENTS = 10
"""How many workers that died by a signal are replaced for each one that was asked for."""


def run_sweep(folder: SweepFolder, trials: int, workers: int) -> None:
    """Run a study until it has its trials.

    Args:
        folder: an open study.
        trials: of the study, over all restarts and all drivers that share it.
        workers: processes that run trials at the same time.

    Raises:
        UserError: the first trials all failed for one mistake, or a worker ended with an error.
        KeyboardInterrupt: the driver was told to stop; its workers have ended, and trials that they left go on when
            the sweep is started again.
    """
    folder.stop(None)
    first = len(folder.trials())
    running: dict[int, subprocess.Popen[bytes]] = {}
    replaced, failed = 0, False

    def start(number: int) -> None:
        orders = Orders(str(folder.path), trials, number, workers, first, os.getpid())
        running[number] = subprocess.Popen(command_line(orders), stdin=subprocess.DEVNULL, start_new_session=True)

    with _termination_is_interrupt():
        try:
            for number in range(workers):
                start(number)
            while running:
                for number, process in list(running.items()):
                    status = process.poll()
                    if status is None:
                        continue
                    del running[number]
                    failed = failed or status > 0
                    if status < 0 and replaced < MOST_REPLACEMENTS * workers:
                        name = signal.Signals(-status).name
                        print(f"worker {number} was ended by {name}; another takes its place", file=sys.stderr)
                        replaced += 1
                        start(number)
                time.sleep(POLL_SECONDS)
        finally:
            _end(list(running.values()))
    reason = folder.stopped
    if reason is not None:
        raise UserError(f"the first trials all failed: {reason}")
    if failed:
        raise UserError("a worker ended with the error above: the same command goes on with the sweep")


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Stop workers, which first let their runs write a checkpoint."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(GRACE_SECONDS + 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _termination_is_interrupt() -> Iterator[None]:
    """SIGTERM as KeyboardInterrupt, as a cluster sends it to end a job."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
