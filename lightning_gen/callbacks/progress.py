"""One progress bar for the whole run."""

from __future__ import annotations

import sys
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from lightning_gen.callbacks.monitors import LossMonitor
from lightning_gen.callbacks.schedule import find_callback
from lightning_gen.callbacks.scores import ScoringCallback

LINES = 10
"""Lines printed over a run where standard error is no terminal."""


class TrainingProgress(ProgressBar):
    """Iterations done and to do, the latest losses and scores, on standard error.

    On a terminal it is a bar; elsewhere, as in a cluster's log file, a line now and then.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: Progress | None = None
        self._task: Any = None

    def disable(self) -> None:
        """Lightning calls this on all ranks but zero."""
        self._enabled = False

    def enable(self) -> None:
        """Show progress again."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar from the iteration at which training starts."""
        if not self._enabled or not sys.stderr.isatty():
            return
        self._bar = Progress(
            BarColumn(bar_width=16),
            MofNCompleteColumn(table_column=Column(min_width=11)),
            TimeElapsedColumn(table_column=Column(min_width=7)),
            TimeRemainingColumn(table_column=Column(min_width=7)),
            TextColumn("{task.fields[values]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("", total=_total(trainer), completed=trainer.global_step, values="")
        self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Advance the bar, or print a line if it is time."""
        if not self._enabled:
            return
        step, total = trainer.global_step, _total(trainer)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, values=_values(trainer))
        elif step == 1 or step == total or (total and step % max(1, total // LINES) == 0):
            print(f"iteration {step}/{total or '?'}  {_values(trainer)}", file=sys.stderr, flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the full bar on the screen."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _total(trainer: Trainer) -> int | None:
    if trainer.max_steps != -1:
        return trainer.max_steps
    if trainer.max_epochs not in (None, -1):
        return int(trainer.max_epochs or 0) * int(trainer.num_training_batches)
    return None


def _values(trainer: Trainer) -> str:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    scores = [score for each in callbacks if isinstance(each, ScoringCallback) for score in each.latest]
    losses = find_callback(trainer, LossMonitor)
    parts = [f"{score.name} {score.value:.4g}" for score in scores]
    parts += [f"{name} {value:.2f}" for name, value in (losses.latest if losses else {}).items()]
    return "  ".join(parts)
