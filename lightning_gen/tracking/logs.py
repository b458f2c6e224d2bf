"""Scalars and pictures to whatever loggers a run has, on the axis of images seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger


@runtime_checkable
class KeepsRecord(Protocol):
    """Loggers that keep the run record with the run."""

    def log_record(self, record: Mapping[str, Any]) -> None:
        """Keep it; called once, before ``finalize``."""


def log_scalars(trainer: Trainer, values: Mapping[str, float], images_seen: int) -> None:
    """Log numbers on rank zero to all of the trainer's loggers.

    The step of W&B is never set, because W&B drops rows whose step goes back; ``images_seen`` is a logged key instead.
    """
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics({**values, "images_seen": images_seen}, step=trainer.global_step)


def log_picture(trainer: Trainer, name: str, path: Path, images_seen: int) -> None:
    """Log a PNG or GIF file on rank zero to those of the trainer's loggers that take pictures."""
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if hasattr(logger, "log_picture"):
            logger.log_picture(name, path, images_seen)
        elif isinstance(logger, TensorBoardLogger) and path.suffix == ".png":
            pixels = np.atleast_3d(np.asarray(Image.open(path)))
            logger.experiment.add_image(name, pixels, global_step=images_seen, dataformats="HWC")
