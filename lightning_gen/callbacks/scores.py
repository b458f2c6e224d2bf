"""Score the model while it trains and at the end."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_gen.callbacks.pictures import slerp
from lightning_gen.callbacks.schedule import EveryImages, find_callback
from lightning_gen.callbacks.stall import StallWatchdog
from lightning_gen.callbacks.translated import TranslationScoring
from lightning_gen.data import ImageDataModule
from lightning_gen.errors import UserError
from lightning_gen.metrics.base import Score
from lightning_gen.metrics.evaluator import Drawn, Evaluator
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import Latents, Samples, Translates
from lightning_gen.tracking.logs import log_scalars
from lightning_gen.tracking.run_directory import RunDirectory


class ScoringCallback(Callback):
    """Scores at intervals and at the end, with the averaged weights if there are any; a subclass measures.

    Scores go to ``metrics.jsonl`` (a line for each iteration that is scored: iteration, images seen, scores with their
    protocols), are logged as ``score/<name>`` and can be monitored by other callbacks under that name. All ranks take
    part.

    Args:
        run: where ``metrics.jsonl`` is.
        every_n_images: how often, in images seen; None for the end alone.

    Attributes:
        latest: the latest scores.
        latest_iteration: when they were measured; -1 before the first.
    """

    def __init__(self, run: RunDirectory, every_n_images: int | None) -> None:
        self.run = run
        self.every = EveryImages(every_n_images)
        self.latest: list[Score] = []
        self.latest_iteration = -1

    def measure(self, trainer: Trainer, model: GenerativeModel) -> list[Score]:
        """Scores of a model in evaluation mode, the same on every rank; every rank calls it."""
        raise NotImplementedError

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Score if it is time."""
        assert isinstance(pl_module, GenerativeModel)
        if self.every.due(trainer, pl_module):
            self.score(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the final weights, unless that is done."""
        assert isinstance(pl_module, GenerativeModel)
        if self.latest_iteration != pl_module.iteration and pl_module.iteration:
            self.score(trainer, pl_module)

    def score(self, trainer: Trainer, model: GenerativeModel) -> list[Score]:
        """Score now; every rank must call it."""
        with model.evaluation():
            synchronize_buffers(trainer, model)
            self.latest = self.measure(trainer, model)
        self.latest_iteration = model.iteration
        if trainer.is_global_zero:
            self.run.add_scores(model.iteration, model.images_seen, [score.to_json() for score in self.latest])
        values = {f"score/{score.name}": score.value for score in self.latest}
        log_scalars(trainer, values, model.images_seen)
        model.log_dict(values, logger=False)
        return self.latest


class Scores(ScoringCallback):
    """Scores of the model's samples by the run's evaluator.

    Args:
        run: see `ScoringCallback`.
        evaluator: the protocol.
        every_n_images: see `ScoringCallback`.
    """

    def __init__(self, run: RunDirectory, evaluator: Evaluator, every_n_images: int | None = None) -> None:
        super().__init__(run, every_n_images)
        self.evaluator = evaluator

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the extractor to the training device and have what is needed of the reference images at hand."""
        if not isinstance(pl_module, Samples):
            if isinstance(pl_module, Translates):
                raise UserError(f"{type(pl_module).__name__} is scored by its translations: set callbacks=translation")
            raise UserError(f"{type(pl_module).__name__} cannot sample, so it cannot be scored: set metrics=none")
        data = trainer.datamodule  # type: ignore[attr-defined]
        self.evaluator.to(pl_module.device)
        reference = data.reference_set(self.evaluator.reference_split, self.evaluator.num_reference)
        self.evaluator.set_reference(data.name, reference.images, reference.labels)

    def measure(self, trainer: Trainer, model: GenerativeModel) -> list[Score]:
        """The evaluator's scores."""
        watchdog = find_callback(trainer, StallWatchdog)
        alive = watchdog.beat if watchdog else None
        return evaluate_model(self.evaluator, model, alive, rank=trainer.global_rank, world_size=trainer.world_size)


class RecordKeeper(Callback):
    """Brings the run record up to date after every evaluation, so that a run that is killed keeps its scores.

    Args:
        write: writes the record.
    """

    def __init__(self, write: Callable[[], None]) -> None:
        self.write = write
        self._recorded = -1

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Write, if the iteration before was scored."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        scored = max((each.latest_iteration for each in callbacks if isinstance(each, ScoringCallback)), default=-1)
        if trainer.is_global_zero and scored > self._recorded:
            self._recorded = scored
            self.write()


def check_scores(evaluator: Evaluator, model: GenerativeModel, data: ImageDataModule) -> None:
    """Raise what would fail when a model is scored against its own set, before any training.

    Raises:
        UserError: see `Evaluator.check` and `TranslationScoring`.
    """
    if isinstance(model, Translates):
        TranslationScoring(evaluator, data, model, lpips=False)
    else:
        check_samples(evaluator, model, data.image_shape, len(data.split(evaluator.reference_split)))


def check_samples(
    evaluator: Evaluator,
    model: GenerativeModel,
    image_shape: tuple[int, int, int],
    reference_size: int | None,
    reference_parts: Collection[str] | None = None,
) -> None:
    """Raise what would fail when a model's samples are scored.

    Args:
        evaluator: the protocol.
        model: what will be scored.
        image_shape: see `Evaluator.check`.
        reference_size: see `Evaluator.check`.
        reference_parts: see `Evaluator.check`.

    Raises:
        UserError: see `Evaluator.check`.
    """
    evaluator.check(
        image_shape,
        reference_size,
        None if model.label_law is None else len(model.label_law),
        reference_parts=reference_parts,
        walks=isinstance(model, Latents),
    )


def evaluate_model(
    evaluator: Evaluator, model: GenerativeModel, on_draw: Callable[[], None] | None = None, **options: Any
) -> list[Score]:
    """Score a model that is in evaluation mode.

    Args:
        evaluator: the protocol.
        model: what is scored.
        on_draw: called before every block of samples.
        options: those of `Evaluator.evaluate`.
    """
    assert isinstance(model, Samples)
    make = model.sample

    def draw(number: int, rng: torch.Generator) -> Drawn:
        if on_draw is not None:
            on_draw()
        labels = None if model.label_law is None else model.draw_labels(number, generator=rng)
        return Drawn(make(number, labels, generator=rng), labels)

    def walk(number: int, step: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        assert isinstance(model, Latents)
        labels = None if model.label_law is None else model.draw_labels(number, generator=rng)
        start, end = (model.sample_latents(number, generator=rng) for _ in range(2))
        return walk_step(model, start, end, torch.rand(number, generator=rng), step, labels)

    return evaluator.evaluate(
        draw,
        walk=walk if isinstance(model, Latents) else None,
        images_seen=model.images_seen,
        weights="raw" if model.average is None else "ema",
        sampler=model.sampler_settings(),
        labels=None if model.label_law is None else {"law": model.label_law},
        **options,
    )


def walk_step(
    model: Latents, start: Tensor, end: Tensor, at: Tensor, step: float, labels: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Images at a place between two latents and a step further on (Karras et al. 2019, eq. 2).

    Args:
        model: decodes the latents.
        start: latents (N, D).
        end: latents (N, D).
        at: (N,) in [0, 1), where on the way from start to end.
        step: eps, length of the step as a part of the way.
        labels: (N,) int64 for a conditional model, of both images.

    Returns:
        Two times float images (N, C, H, W).
    """
    first, second = slerp(start, end, torch.stack([at, at + step]))
    return model.decode(first, labels), model.decode(second, labels)


def synchronize_buffers(trainer: Trainer, model: GenerativeModel) -> None:
    """Give all ranks rank zero's buffers, as the next forward pass under DDP will do anyway.

    Batch-norm statistics differ between ranks after a step; without this, ranks would sample from different models.
    """
    if trainer.world_size > 1:
        for network in model.networks().values():
            for buffer in network.buffers():
                torch.distributed.broadcast(buffer, src=0)
