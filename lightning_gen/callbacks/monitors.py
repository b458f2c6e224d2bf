"""Losses and speed: logged at a period; a loss that is not finite stops the run."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.models import GenerativeModel
from lightning_gen.tracking.logs import log_scalars
from lightning_gen.tracking.run_directory import RunDirectory


class LossMonitor(Callback):
    """Logs ``train/<loss>`` and stops at NaN or infinity, naming the iteration, the loss and the last good checkpoint.

    Reading a loss from a GPU waits for it, so there losses are read together once a period; on the CPU at every
    iteration. They are always read before a checkpoint is written: none holds weights of a bad step.

    Args:
        run: names the last good checkpoint.
        every_n_iterations: period of logging, and on a GPU of checking.
    """

    def __init__(self, run: RunDirectory, every_n_iterations: int = 50) -> None:
        self.run = run
        self.every_n_iterations = every_n_iterations
        self._pending: list[tuple[int, dict[str, Tensor]]] = []
        self.latest: dict[str, float] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any) -> None:
        """Collect the losses; check and log them if it is time."""
        assert isinstance(pl_module, GenerativeModel)
        self._pending.append((pl_module.iteration, outputs))
        periodic = pl_module.iteration % self.every_n_iterations == 0
        if periodic or pl_module.device.type == "cpu":
            self.check()
        if periodic:
            values = {f"train/{name}": value for name, value in self.latest.items()}
            log_scalars(trainer, values, pl_module.images_seen)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Check what was not checked yet."""
        self.check()

    def check(self) -> None:
        """Read the collected losses.

        Raises:
            UserError: one of them is not finite.
        """
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        places = [(iteration, name) for iteration, losses in pending for name in losses]
        values = torch.stack([loss for _, losses in pending for loss in losses.values()]).float().cpu()
        for (iteration, name), value in zip(places, values.tolist(), strict=True):
            if not math.isfinite(value):
                good = self.run.last_checkpoint
                remedy = f"the last good checkpoint is {good}" if good.exists() else "no checkpoint was written yet"
                raise UserError(f"{name} is {value} at iteration {iteration}: training stopped; {remedy}")
            # Some models have losses that only some iterations compute.
            self.latest[name] = value


class Throughput(Callback):
    """Seconds of training and images a second, without evaluations, pictures and checkpoints; must come first.

    Logs ``speed/images_per_second`` and ``speed/data_wait_share``, the share of the time spent between the end of an
    iteration's callbacks and the arrival of the next batch. The totals go on over a resume.

    Args:
        every_n_iterations: period of logging.
    """

    def __init__(self, every_n_iterations: int = 50) -> None:
        self.every_n_iterations = every_n_iterations
        self.train_seconds = 0.0
        self.images = 0
        self._started_at = 0.0
        self._window_seconds = 0.0
        self._window_wait = 0.0
        self._window_images = 0

    @property
    def images_per_second(self) -> float:
        """Over the whole run, all ranks together."""
        return self.images / self.train_seconds if self.train_seconds else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        assert isinstance(pl_module, GenerativeModel)
        pl_module.batch_ended_at = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """The batch has arrived."""
        assert isinstance(pl_module, GenerativeModel)
        self._started_at = pl_module.batch_ended_at
        self._window_wait += time.perf_counter() - pl_module.batch_ended_at

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """The optimizer steps are done."""
        assert isinstance(pl_module, GenerativeModel)
        periodic = pl_module.iteration % self.every_n_iterations == 0
        if periodic and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self._window_seconds += time.perf_counter() - self._started_at
        self._window_images += pl_module.images_per_iteration
        if periodic:
            values = {
                "speed/images_per_second": self._window_images / self._window_seconds,
                "speed/data_wait_share": self._window_wait / self._window_seconds,
            }
            self._close_window()
            log_scalars(trainer, values, pl_module.images_seen)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the last, shorter window."""
        self._close_window()

    def state_dict(self) -> dict[str, Any]:
        """The totals."""
        return {
            "train_seconds": self.train_seconds + self._window_seconds,
            "images": self.images + self._window_images,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the totals."""
        self.train_seconds, self.images = state_dict["train_seconds"], state_dict["images"]

    def _close_window(self) -> None:
        self.train_seconds += self._window_seconds
        self.images += self._window_images
        self._window_seconds = self._window_wait = 0.0
        self._window_images = 0
