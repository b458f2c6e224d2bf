"""Scoring under one protocol: draw samples, pass them through one extractor once, feed every metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.images import to_uint8
from lightning_gen.metrics.base import SCORING_VERSION, Score, ScoreMetric, ScoringPlan, score_metrics
from lightning_gen.metrics.extractors import create_extractor
from lightning_gen.metrics.neighbors import DENSITY_NEIGHBORS, FeatureReservoir
from lightning_gen.metrics.reference import Reference, ReferenceImages, load_reference
from lightning_gen.seeds import make_rng


class Drawn(NamedTuple):
    """Samples of a model.

    Attributes:
        images: (N, C, H, W) float in [-1, 1].
        labels: (N,) int64, the classes that they were asked for; None for a model that takes no labels.
    """

    images: Tensor
    labels: Tensor | None = None


Sampler = Callable[[int, torch.Generator], Drawn]
"""(number of samples, generator) -> samples."""


class Evaluator:
    """A protocol of scoring: which extractor, metrics, reference and samples.

    Samples are drawn in blocks of ``block_size``, block ``b`` from a generator seeded by (``seed``, ``b``); process
    ``r`` of ``w`` draws the blocks ``r, r + w, ...``. So every sample, and the batch in which it is computed, is the
    same at any number of processes, and only float64 sums are reduced.

    Args:
        extractor: ``{"name": ..., **options}`` of the feature extractor.
        metrics: names of registered metrics; the first one is the run's main score.
        num_samples: samples that are drawn.
        reference_split: split of the data set that they are compared with.
        num_reference: how many of its images are used, from the first; None for all.
        minimum_reference: fewer reference images than this are refused; None stands for one more than the feature
            dimensions, below which their covariance is singular.
        block_size: samples drawn at once.
        seed: of the samples; not the run's, so that runs are compared on equal draws.
        cache_dir: where what is computed of reference images is kept.
        max_features: scores by nearest neighbors keep the features of at most so many samples, the first ones, and of
            so many reference images, evenly spaced.

    Raises:
        UserError: unknown names, or numbers out of range.
    """

    def __init__(
        self,
        extractor: Mapping[str, Any],
        metrics: Sequence[str],
        num_samples: int,
        cache_dir: str | Path,
        reference_split: str = "train",
        num_reference: int | None = None,
        minimum_reference: int | None = None,
        block_size: int = 64,
        seed: int = 0,
        max_features: int = 10_000,
    ) -> None:
        if num_samples < 2 or block_size < 1:
            raise UserError(
                f"metrics.num_samples must be at least 2 and metrics.block_size 1, not {num_samples} and {block_size}"
            )
        if max_features <= DENSITY_NEIGHBORS:
            raise UserError(f"metrics.max_features must be more than {DENSITY_NEIGHBORS}, not {max_features}")
        if not metrics:
            raise UserError("metrics.metrics names no metric: use metrics=none to train without scores")
        self.extractor = create_extractor(**extractor)
        self.metric_classes = {name: score_metrics[name] for name in metrics}
        self.num_samples = num_samples
        self.reference_split = reference_split
        self.num_reference = num_reference
        self.minimum_reference = minimum_reference
        self.block_size = block_size
        self.seed = seed
        self.cache_dir = Path(cache_dir)
        self.max_features = max_features
        self._reference: Reference | None = None
        self._reference_protocol: dict[str, Any] | None = None

    @property
    def main_score(self) -> str:
        """Name of the score that ranks checkpoints and runs."""
        return next(iter(self.metric_classes.values())).score_name(self.extractor.name)

    @property
    def main_score_lower_is_better(self) -> bool:
        """Its direction."""
        return next(iter(self.metric_classes.values())).lower_is_better

    def check(
        self,
        image_shape: tuple[int, int, int],
        reference_size: int | None = None,
        label_classes: int | None = None,
    ) -> None:
        """Raise what would fail later, before any training.

        Args:
            image_shape: (C, H, W) of samples and reference images.
            reference_size: images in the reference split; None if the caller does not know yet.
            label_classes: number of classes that the model draws samples of; None for a model that takes no labels.

        Raises:
            UserError: the extractor cannot take the images, there are too few of them, or a metric cannot be computed.
        """
        self.extractor.check_image_shape(image_shape)
        used = reference_size if self.num_reference is None else self.num_reference
        plan = ScoringPlan(self.extractor, self.num_samples, self.reference_split, used, label_classes)
        for metric in self.metric_classes.values():
            metric.check(plan)
            if not metric.reference_parts:
                metric(self.extractor, self.num_samples, None)
        if reference_size is None or not self._reference_parts:
            return
        if self.num_reference is not None and self.num_reference > reference_size:
            raise UserError(
                f"metrics.num_reference is {self.num_reference}, but the {self.reference_split} split holds "
                f"{reference_size} images: lower it or set metrics.num_reference=null"
            )
        assert used is not None
        minimum = self.minimum_reference or self.extractor.num_features + 1
        if "statistics" in self._reference_parts and used < minimum:
            raise UserError(
                f"{used} reference images are too few: {self.extractor.name} features have "
                f"{self.extractor.num_features} dimensions and need {minimum}; use a larger metrics.reference_split "
                f"or allow it by metrics.minimum_reference={used}"
            )

    def set_reference(self, dataset: str, images: Tensor) -> None:
        """Take the images to compare with; what the metrics need of them comes from the cache or is computed now.

        Args:
            dataset: name of the set, for the protocol.
            images: (N, C, H, W) uint8 of ``reference_split``, at least the first ``num_reference``.
        """
        if not self._reference_parts:
            return
        reference = ReferenceImages.of(dataset, self.reference_split, images[: self.num_reference])
        self._reference = load_reference(
            reference, self.extractor, self.cache_dir, self._reference_parts, self.max_features
        )
        self._reference_protocol = reference.protocol()

    def evaluate(
        self,
        sample: Sampler,
        *,
        images_seen: int,
        weights: str,
        sampler: Mapping[str, Any],
        labels: Mapping[str, Any] | None = None,
        rank: int = 0,
        world_size: int = 1,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[Score]:
        """Draw the samples and score them; every process calls it and gets the same scores.

        Args:
            sample: draws images on this process, and says which classes they were asked for.
            images_seen: real images that the model was trained on, for the record.
            weights: ``ema`` or ``raw``.
            sampler: the model's sampler settings.
            labels: the law of the classes that the model draws, None for a model without classes.
            rank: this process, from 0.
            world_size: number of processes.
            progress: called with the number of samples this process has drawn.
        """
        device = self.device
        metrics = self._new_metrics()
        with torch.no_grad():
            for first in range(rank * self.block_size, self.num_samples, world_size * self.block_size):
                images, indices, asked_for = self._draw_block(sample, first)
                features = self.extractor(images.to(device))
                asked_for = None if asked_for is None else asked_for.to(device)
                for metric in metrics.values():
                    metric.update(features, indices.to(device), asked_for)
                progress(int(indices[-1]) + 1)
        return [self._score(name, metric, images_seen, weights, sampler, labels) for name, metric in metrics.items()]

    def to(self, device: torch.device) -> Evaluator:
        """Move the extractor to ``device``; scores are computed there."""
        self.extractor.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the extractor lives."""
        return next(self.extractor.parameters()).device

    @property
    def _reference_parts(self) -> set[str]:
        return {part for metric in self.metric_classes.values() for part in metric.reference_parts}

    def _new_metrics(self) -> dict[str, ScoreMetric]:
        """The metrics, empty and on the extractor's device; those that keep features share one reservoir."""
        reservoir = None
        if self._reference is not None and self._reference.features is not None:
            number, features = self.extractor.num_features, self._reference.features
            reservoir = FeatureReservoir(number, self.num_samples, features, self.max_features)
        metrics = {}
        for name, metric in self.metric_classes.items():
            shared = {"reservoir": reservoir} if "features" in metric.reference_parts else {}
            metrics[name] = metric(self.extractor, self.num_samples, self._reference, **shared).to(self.device)
        return metrics

    def _draw_block(self, sample: Sampler, first: int) -> tuple[Tensor, Tensor, Tensor | None]:
        size = min(self.block_size, self.num_samples - first)
        rng = make_rng("evaluation", self.seed, first // self.block_size)
        drawn = sample(size, rng)
        return to_uint8(drawn.images), torch.arange(first, first + size), drawn.labels

    def _score(
        self,
        name: str,
        metric: ScoreMetric,
        images_seen: int,
        weights: str,
        sampler: Mapping[str, Any],
        labels: Mapping[str, Any] | None,
    ) -> Score:
        value, std = metric.compute()
        protocol = {
            "metric": {"name": name, **metric.settings()},
            "extractor": self.extractor.protocol(),
            "reference": self._reference_protocol if metric.reference_parts else None,
            "num_samples": self.num_samples,
            "block_size": self.block_size,
            "labels": dict(labels) if labels else None,
            "weights": weights,
            "sampler": dict(sampler),
            "seed": self.seed,
            "scoring_version": SCORING_VERSION,
        }
        return Score(
            name=metric.score_name(self.extractor.name),
            value=value,
            std=std,
            images_seen=images_seen,
            lower_is_better=metric.lower_is_better,
            ranked=self.extractor.ranked,
            protocol=protocol,
        )
