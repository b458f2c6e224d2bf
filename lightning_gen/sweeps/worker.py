"""A worker: one process that runs trials one after another until the sweep has enough of them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from optuna.trial import FrozenTrial, TrialState

from lightning_gen.errors import UserError
from lightning_gen.sweeps.commands import trial_environment
from lightning_gen.sweeps.folder import ERROR, SweepFolder
from lightning_gen.sweeps.planning import Idle, next_job
from lightning_gen.sweeps.running import Stopping, TrialRunner
from lightning_gen.sweeps.summary import describe_trial

IDLE_SECONDS = 0.5

MISTAKES = 3
"""So many first trials that all fail for a mistake in their config stop the sweep."""


@dataclass(frozen=True)
class Orders:
    """What a worker is told.

    Args:
        storage: the sweep's folder.
        trials: of the study, over all restarts.
        number: of this worker among those that its driver started, from 0.
        workers: how many those are.
        first: number of the first trial that this start of the sweep may begin.
        driver: process id of the driver; the worker stops when that has gone.
    """

    storage: str
    trials: int
    number: int
    workers: int
    first: int
    driver: int


def command_line(orders: Orders) -> list[str]:
    """The command of a worker."""
    return [sys.executable, "-m", "lightning_gen.sweeps.worker", json.dumps(asdict(orders))]


class Worker:
    """Runs trials until there are no more.

    Args:
        orders: what to do.
    """

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.told_to_stop = False

    def stopping(self) -> bool:
        """Whether to leave trials as they are and end."""
        return self.told_to_stop or os.getppid() != self.orders.driver

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Remember to stop."""
        self.told_to_stop = True

    def work(self) -> None:
        """Take up one trial after another.

        Raises:
            UserError: the folder is not that of a sweep, or the program is gone.
        """
        folder = SweepFolder(Path(self.orders.storage))
        folder.open()
        environment = trial_environment(self.orders.number, self.orders.workers)
        runner = TrialRunner(folder, environment, self.stopping)
        while not self.stopping():
            job = next_job(folder, self.orders.trials)
            if job is Idle.done:
                return
            if isinstance(job, Idle):
                time.sleep(IDLE_SECONDS)
                continue
            try:
                runner.run(job)
            except Stopping:
                return
            finally:
                job.lease.release()
            say_trial(folder, job.trial.number)
            reason = common_mistake(folder.trials()[self.orders.first :], self.orders.trials)
            if reason is not None:
                folder.stop(reason)


def say_trial(folder: SweepFolder, number: int) -> None:
    """One line for the person about a trial that has ended."""
    print(describe_trial(folder, folder.trials()[number]), file=sys.stderr, flush=True)


def common_mistake(trials: list[FrozenTrial], most: int) -> str | None:
    """Why the first trials failed, if all of them failed for a mistake in their config; None otherwise.

    Args:
        trials: those that were begun since the sweep was started.
        most: trials of the study.
    """
    ended = [trial for trial in trials if trial.state.is_finished()]
    errors = [
        trial.user_attrs[ERROR] for trial in ended if trial.state is TrialState.FAIL and ERROR in trial.user_attrs
    ]
    if len(ended) < min(MISTAKES, most) or len(errors) < len(ended) or not all(error["mistake"] for error in errors):
        return None
    reason: str = errors[0]["reason"]
    return reason


def main() -> None:
    """Entry of the process: its argument is `Orders` as JSON."""
    worker = Worker(Orders(**json.loads(sys.argv[1])))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, worker.on_signal)
    try:
        worker.work()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
