"""Checkpoints: the newest, the best and a few numbered ones, each whole or absent."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from lightning_gen.callbacks.schedule import find_callback, is_last_iteration
from lightning_gen.callbacks.scores import Scores
from lightning_gen.files import link
from lightning_gen.models import GenerativeModel
from lightning_gen.tracking.run_directory import RunDirectory


class Checkpoints(Checkpoint):
    """Saves ``iteration_<n>.ckpt`` at a period, at a new best main score and at the end.

    ``last.ckpt`` and ``best.ckpt`` are links to such a file, so they take no space of their own. The run's config is
    kept in each, so that a checkpoint can be scored and sampled wherever it lies.

    Args:
        run: where they go.
        every_n_iterations: the period; null for none.
        keep: how many numbered checkpoints to keep, the newest; null for all.
    """

    def __init__(self, run: RunDirectory, every_n_iterations: int | None = None, keep: int | None = 3) -> None:
        self.run = run
        self.every_n_iterations = every_n_iterations
        self.keep = keep
        self.best_score: float | None = None
        self.saved_iteration = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have checkpoints written by `WholeFiles`, unless the trainer was given another way."""
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFiles()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save if it is time, if the score is the best so far, or if training ends here."""
        assert isinstance(pl_module, GenerativeModel)
        is_best = self._is_new_best(trainer, pl_module)
        periodic = self.every_n_iterations and pl_module.iteration % self.every_n_iterations == 0
        if is_best or periodic or is_last_iteration(trainer):
            self.save(trainer, pl_module, is_best)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state, unless that is done."""
        assert isinstance(pl_module, GenerativeModel)
        self.save_unless_saved(trainer, pl_module)

    def save_unless_saved(self, trainer: Trainer, model: GenerativeModel) -> None:
        """Save, unless this iteration has been saved; every rank must call it."""
        if self.saved_iteration != model.iteration:
            self.save(trainer, model, self._is_new_best(trainer, model))

    def save(self, trainer: Trainer, model: GenerativeModel, is_best: bool) -> None:
        """Save now; every rank must call it."""
        path = self.run.checkpoints / f"iteration_{model.iteration:08d}.ckpt"
        self.saved_iteration = model.iteration
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            trainer.save_checkpoint(temporary)
        except OSError:
            temporary.unlink(missing_ok=True)  # a part of a file on a full disk
            raise
        if trainer.is_global_zero:
            os.replace(temporary, path)
            # The last one last: it knows the best score, so a run that goes on from it would not link the best again.
            if is_best:
                link(path, self.run.best_checkpoint)
            link(path, self.run.last_checkpoint)
            self._remove_old()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the run's config in the checkpoint."""
        if self.run.config_file.exists():
            checkpoint["config"] = yaml.safe_load(self.run.config_file.read_text(encoding="utf-8"))

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score so far."""
        self.best_score = state_dict["best_score"]

    def _is_new_best(self, trainer: Trainer, model: GenerativeModel) -> bool:
        scores = find_callback(trainer, Scores)
        if scores is None or scores.latest_iteration != model.iteration:
            return False
        main = scores.latest[0]
        better = self.best_score is None or (
            main.value < self.best_score if main.lower_is_better else main.value > self.best_score
        )
        if better:
            self.best_score = main.value
        return better

    def _remove_old(self) -> None:
        if self.keep is not None:
            numbered = sorted(self.run.checkpoints.glob("iteration_*.ckpt"))
            for path in numbered[: max(0, len(numbered) - max(1, self.keep))]:
                path.unlink()


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints where they belong and has them on the disk before they get their name.

    Lightning's own way goes through the system's folder of temporary files, where a process that is killed leaves
    them, and does not wait for the disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint to a local file.

        Raises:
            OSError: it does not fit, or the folder cannot be written.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with Path(path).open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
