"""Score the translations of a model while it trains and at the end."""

from __future__ import annotations

from pytorch_lightning import LightningModule, Trainer

from lightning_gen.callbacks.schedule import find_callback
from lightning_gen.callbacks.scores import Scores
from lightning_gen.callbacks.stall import StallWatchdog
from lightning_gen.callbacks.translated import TranslationScoring
from lightning_gen.errors import UserError
from lightning_gen.metrics.base import Score
from lightning_gen.metrics.evaluator import Evaluator
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import Translates
from lightning_gen.tracking.run_directory import RunDirectory


class TranslationScores(Scores):
    """Scores of the model's translations of the test images (see `TranslationScoring`); the evaluator's first is main.

    Args:
        run: see `ScoringCallback`.
        evaluator: extractor, metrics and reference split.
        every_n_images: see `ScoringCallback`.
        lpips: of a paired set, score LPIPS too: true, false, or null for where its weights are at hand.
    """

    def __init__(
        self,
        run: RunDirectory,
        evaluator: Evaluator,
        every_n_images: int | None = None,
        lpips: bool | None = None,
    ) -> None:
        super().__init__(run, evaluator, every_n_images)
        self.lpips = lpips
        self._scoring: TranslationScoring | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the inputs, their partners and what is needed of the reference images at hand."""
        assert isinstance(pl_module, GenerativeModel)
        if not isinstance(pl_module, Translates):
            raise UserError(f"{type(pl_module).__name__} does not translate: set callbacks=default")
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._scoring = TranslationScoring(self.evaluator, data, pl_module, self.lpips)
        self._scoring.prepare(pl_module.device)

    def measure(self, trainer: Trainer, model: GenerativeModel) -> list[Score]:
        """The scores of all directions."""
        assert self._scoring is not None
        watchdog = find_callback(trainer, StallWatchdog)
        alive = watchdog.beat if watchdog else lambda: None
        return self._scoring.measure(model, rank=trainer.global_rank, world_size=trainer.world_size, on_draw=alive)
