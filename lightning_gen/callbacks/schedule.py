"""When callbacks act, on the axis of images seen and at the last iteration, on which images, and with which others."""

from __future__ import annotations

from typing import TypeVar

from pytorch_lightning import Callback, Trainer

from lightning_gen.data.loaders import TrainingLoader
from lightning_gen.data.plan import Draw
from lightning_gen.models import GenerativeModel

C = TypeVar("C", bound=Callback)


class EveryImages:
    """True once whenever training passes a multiple of so many images.

    Derived from the counters alone, so it needs no state and a resumed run acts at the same iterations.

    Args:
        every_n_images: the period; None or 0 for never.
    """

    def __init__(self, every_n_images: int | None) -> None:
        self.every_n_images = every_n_images

    def due(self, trainer: Trainer, model: GenerativeModel) -> bool:
        """Whether the iteration that just ended passed a multiple, or was the run's last."""
        return is_last_iteration(trainer) or self.passed(model)

    def passed(self, model: GenerativeModel) -> bool:
        """Whether the iteration that just ended passed a multiple."""
        if not self.every_n_images:
            return False
        before = model.images_seen - model.images_per_iteration
        return model.images_seen // self.every_n_images > before // self.every_n_images


def is_last_iteration(trainer: Trainer) -> bool:
    """Whether training stops after the iteration that just ended; for ``on_train_batch_end``."""
    loop = trainer.fit_loop
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return True
    last_epoch = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= int(trainer.max_epochs or 0)
    return trainer.should_stop or (last_epoch and loop.epoch_loop.batch_progress.is_last_batch)


def find_callback(trainer: Trainer, kind: type[C]) -> C | None:
    """The trainer's first callback of a class, or None."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)


def training_loader(trainer: Trainer) -> TrainingLoader:
    """The loader of the training in progress."""
    loader = trainer.train_dataloader
    assert isinstance(loader, TrainingLoader)
    return loader


def batch_draws(trainer: Trainer) -> list[Draw]:
    """What the batch of the iteration that begins takes from each set; for ``on_train_batch_start``."""
    loader = training_loader(trainer)
    # The loader's position is that of the next batch.
    return loader.plan.draws(loader.number - 1)
