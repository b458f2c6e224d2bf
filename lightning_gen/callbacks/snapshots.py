"""Keep averages of several times in training, to make averages of other widths of them afterwards."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_gen.callbacks.schedule import EveryImages
from lightning_gen.errors import UserError
from lightning_gen.models import GenerativeModel
from lightning_gen.models.power_average import PowerFunctionAverage
from lightning_gen.models.snapshots import list_snapshots, save_snapshot
from lightning_gen.tracking.run_directory import RunDirectory


class Snapshots(Callback):
    """Saves the averages of a run with ``ema=power`` at a period, in the run's folder ``snapshots``.

    When there are too many, every other one is removed and the period doubles, so that they stay evenly spaced. Nothing
    happens to a model with another average, or none.

    Args:
        run: where they go.
        every_n_images: the first period, in images seen.
        keep: largest number of them.

    Raises:
        UserError: less than two are to be kept.
    """

    def __init__(self, run: RunDirectory, every_n_images: int, keep: int = 32) -> None:
        if keep < 2 or every_n_images < 1:
            raise UserError(
                f"callbacks.snapshots.keep must be at least 2 and every_n_images 1, not {keep} and {every_n_images}"
            )
        self.folder = run.snapshots
        self.every = EveryImages(every_n_images)
        self.period = every_n_images
        self.keep = keep

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove what a run that goes on from an earlier checkpoint will save again."""
        assert isinstance(pl_module, GenerativeModel)
        if trainer.is_global_zero:
            for images_seen, path in list_snapshots(self.folder).items():
                if images_seen > pl_module.images_seen:
                    path.unlink()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save if it is time."""
        assert isinstance(pl_module, GenerativeModel)
        average = pl_module.average
        if not (trainer.is_global_zero and isinstance(average, PowerFunctionAverage) and self.every.passed(pl_module)):
            return
        # Derived from the counter alone, so that a resumed run keeps the same ones.
        number, stride = pl_module.images_seen // self.period, 1
        while number // stride > self.keep:
            stride *= 2
        if number % stride == 0:
            save_snapshot(average, pl_module.images_seen, self.folder)
        for images_seen, path in list_snapshots(self.folder).items():
            if images_seen // self.period % stride:
                path.unlink()
