"""Scoring under one protocol: draw samples, pass them through one extractor once, feed every metric."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.images import to_uint8
from lightning_gen.metrics.base import SCORING_VERSION, Score, ScoreMetric, ScoringPlan, WalkMetric, score_metrics
from lightning_gen.metrics.extractors import Features, create_extractor
from lightning_gen.metrics.neighbors import DENSITY_NEIGHBORS
from lightning_gen.metrics.reference import LABELLED_PARTS, Reference, ReferenceImages, load_reference
from lightning_gen.metrics.shared import NUM_SEGMENTS, SharedOptions, SharedState, make_shared
from lightning_gen.metrics.statistics import GaussianStatistics
from lightning_gen.seeds import make_rng


class Drawn(NamedTuple):
    """Samples of a model.

    Attributes:
        images: (N, C, H, W) float in [-1, 1], or uint8.
        labels: (N,) int64, the classes that they were asked for; None for a model that takes no labels.
    """

    images: Tensor
    labels: Tensor | None = None


Sampler = Callable[[int, torch.Generator], Drawn]
"""(number of samples, generator) -> samples."""

Walker = Callable[[int, float, torch.Generator], tuple[Tensor, Tensor]]
"""(number, step, generator) -> float images at points on walks between two latents, and a step further on."""


class Source(NamedTuple):
    """Where samples come from, and what of it is in their protocol.

    Attributes:
        draw: (first index, number) -> samples; the same on every process.
        walk: (first index, number, step) -> pairs of float images a step apart, or None.
        protocol: what must be equal for two sources' scores to be comparable.
        images_seen: real images that the model was trained on.
    """

    draw: Callable[[int, int], Drawn]
    walk: Callable[[int, int, float], tuple[Tensor, Tensor]] | None
    protocol: Mapping[str, Any]
    images_seen: int


class Evaluator:
    """A protocol of scoring: which extractor, metrics, reference and samples.

    Samples are drawn in blocks of ``block_size``, block ``b`` from a generator seeded by (``seed``, ``b``); process
    ``r`` of ``w`` draws the blocks ``r, r + w, ...``. So every sample, and the batch in which it is computed, is the
    same at any number of processes, and only float64 sums are reduced.

    Args:
        extractor: ``{"name": ..., **options}`` of the feature extractor.
        metrics: names of registered metrics or of the scores that they give (``fid``), or ``{"name": ..., **options}``;
            the first one is the run's main score.
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
        error_bars: measure the standard error of the Frechet distance, by eight more distances.

    Raises:
        UserError: unknown names, or numbers out of range.
    """

    def __init__(
        self,
        extractor: Mapping[str, Any],
        metrics: Sequence[str | Mapping[str, Any]],
        num_samples: int,
        cache_dir: str | Path,
        reference_split: str = "train",
        num_reference: int | None = None,
        minimum_reference: int | None = None,
        block_size: int = 64,
        seed: int = 0,
        max_features: int = 10_000,
        error_bars: bool = False,
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
        self.metric_options: dict[str, dict[str, Any]] = {}
        for entry in metrics:
            options = {"name": entry} if isinstance(entry, str) else dict(entry)
            self.metric_options[_metric_name(str(options.pop("name", "")), self.extractor.name)] = options
        self.metric_classes = {name: score_metrics[name] for name in self.metric_options}
        for name, options in self.metric_options.items():
            unknown = options.keys() - inspect.signature(self.metric_classes[name]).parameters
            if unknown:
                raise UserError(f"metrics.metrics: {name} has no option {', '.join(sorted(unknown))}")
        self.num_samples = num_samples
        self.reference_split = reference_split
        self.num_reference = num_reference
        self.minimum_reference = minimum_reference
        self.block_size = block_size
        self.seed = seed
        self.cache_dir = Path(cache_dir)
        self.max_features = max_features
        self.error_bars = error_bars
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
        *,
        reference_parts: Collection[str] | None = None,
        walks: bool = True,
    ) -> None:
        """Raise what would fail later, before any training.

        Args:
            image_shape: (C, H, W) of samples and reference images.
            reference_size: images in the reference split; None if the caller does not know yet.
            label_classes: number of classes that the model draws samples of; None for a model that takes no labels.
            reference_parts: what can be known of the reference (`lightning_gen.metrics.reference.Reference`); None for
                everything.
            walks: whether the model has latents to walk between.

        Raises:
            UserError: the extractor cannot take the images, there are too few of them, or a metric cannot be computed.
        """
        self.extractor.check_image_shape(image_shape)
        used = reference_size if self.num_reference is None else self.num_reference
        plan = ScoringPlan(self.extractor, self.num_samples, self.reference_split, used, label_classes, walks)
        for name, metric in self.metric_classes.items():
            unknown = () if reference_parts is None else set(metric.reference_parts) - set(reference_parts)
            if unknown:
                raise UserError(
                    f"{metric.prefix} needs the reference images, of which only {', '.join(reference_parts or ())} are "
                    "known: take it out of metrics.metrics, or compare with a set or folder"
                )
            metric.check(plan)
            if not metric.reference_parts:
                self._make_metric(name, {}, None)
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

    def set_reference(self, dataset: str, images: Tensor, labels: Tensor | None = None) -> None:
        """Take the images to compare with; what the metrics need of them comes from the cache or is computed now.

        Args:
            dataset: name of the set, for the protocol.
            images: (N, C, H, W) uint8 of ``reference_split``, at least the first ``num_reference``.
            labels: (N,) int64 of the images, for scores by class.
        """
        if self._reference_parts:
            number = self.num_reference
            labels = None if labels is None else labels[:number]
            self.use_reference(ReferenceImages.of(dataset, self.reference_split, images[:number], labels))

    def use_reference(self, images: ReferenceImages) -> None:
        """Like `set_reference`, with images that may be read as they are needed."""
        if not self._reference_parts:
            return
        if self._reference_parts & LABELLED_PARTS and images.labels is None:
            raise UserError(f"{images.dataset} has no labels, which a score by class needs: take it out")
        self._reference = load_reference(
            images, self.extractor, self.cache_dir, self._reference_parts, self.max_features
        )
        self._reference_protocol = images.protocol()

    def use_statistics(self, statistics: GaussianStatistics, protocol: Mapping[str, Any]) -> None:
        """Compare with the statistics of a file instead of images.

        Args:
            statistics: mean and covariance of the extractor's features.
            protocol: what identifies them.

        Raises:
            UserError: they are of another number of features.
        """
        if len(statistics.mean) != self.extractor.num_features:
            raise UserError(
                f"the statistics are of {len(statistics.mean)} features, but extractor {self.extractor.name!r} has "
                f"{self.extractor.num_features}"
            )
        self._reference = Reference(statistics=statistics)
        self._reference_protocol = dict(protocol)

    def evaluate(
        self,
        sample: Sampler,
        *,
        images_seen: int,
        weights: str,
        sampler: Mapping[str, Any],
        labels: Mapping[str, Any] | None = None,
        walk: Walker | None = None,
        rank: int = 0,
        world_size: int = 1,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[Score]:
        """Draw the samples of a model and score them; every process calls it and gets the same scores.

        Args:
            sample: draws images on this process, and says which classes they were asked for.
            images_seen: real images that the model was trained on, for the record.
            weights: ``ema`` or ``raw``.
            sampler: the model's sampler settings.
            labels: the law of the classes that the model draws, None for a model without classes.
            walk: draws pairs of images a small step in latent space apart, None for a model without latents.
            rank: this process, from 0.
            world_size: number of processes.
            progress: called with the number of samples this process has drawn.
        """

        def draw(first: int, number: int) -> Drawn:
            return sample(number, make_rng("evaluation", self.seed, first // self.block_size))

        def step(first: int, number: int, length: float) -> tuple[Tensor, Tensor]:
            assert walk is not None
            return walk(number, length, make_rng("evaluation walk", self.seed, first // self.block_size))

        protocol = {
            "block_size": self.block_size,
            "labels": dict(labels) if labels else None,
            "weights": weights,
            "sampler": dict(sampler),
            "seed": self.seed,
        }
        source = Source(draw, None if walk is None else step, protocol, images_seen)
        return self.evaluate_source(source, rank=rank, world_size=world_size, progress=progress)

    def evaluate_source(
        self,
        source: Source,
        *,
        rank: int = 0,
        world_size: int = 1,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[Score]:
        """Score samples from anywhere; see `evaluate`."""
        metrics, shared = self._new_metrics()
        walkers = [metric for metric in metrics.values() if isinstance(metric, WalkMetric)]
        of_samples = [metric for metric in metrics.values() if not isinstance(metric, WalkMetric)]
        with torch.no_grad():
            for first in range(rank * self.block_size, self.num_samples, world_size * self.block_size):
                number = min(self.block_size, self.num_samples - first)
                indices = torch.arange(first, first + number, device=self.device)
                if of_samples:
                    drawn = source.draw(first, number)
                    images = drawn.images if drawn.images.dtype == torch.uint8 else to_uint8(drawn.images)
                    images = images.to(self.device)
                    features = self.extractor(images)._replace(images=images)
                    labels = None if drawn.labels is None else drawn.labels.to(self.device)
                    for state in (*shared.values(), *of_samples):
                        state.update(features, indices, labels)
                for walker in walkers:
                    assert source.walk is not None
                    pairs = (images.to(self.device) for images in source.walk(first, number, walker.step))
                    ends = torch.stack([self.extractor(images).features for images in pairs], 1)
                    walker.update(Features(ends, None), indices)
                progress(first + number)
        return [self._score(name, metric, source) for name, metric in metrics.items()]

    @property
    def reference_statistics(self) -> GaussianStatistics:
        """Statistics of the reference images' features, once the reference is there and a metric needs them."""
        assert self._reference is not None
        assert self._reference.statistics is not None
        return self._reference.statistics

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

    def _make_metric(self, name: str, shared: Mapping[str, SharedState], reference: Reference | None) -> ScoreMetric:
        metric, options = self.metric_classes[name], self.metric_options[name]
        wanted = {state: shared[state] for state in metric.shared}
        return metric(self.extractor, self.num_samples, reference, **wanted, **options).to(self.device)

    def _new_metrics(self) -> tuple[dict[str, ScoreMetric], dict[str, SharedState]]:
        """The metrics and the states that they share, empty and on the extractor's device."""
        names = {state for metric in self.metric_classes.values() for state in metric.shared}
        segmented = self.error_bars or any(metric.needs_segments for metric in self.metric_classes.values())
        reference = self._reference or Reference()
        segments = NUM_SEGMENTS if segmented else 1
        options = SharedOptions(self.extractor, self.num_samples, reference, self.max_features, segments)
        shared = make_shared(names, options)
        return {name: self._make_metric(name, shared, self._reference) for name in self.metric_classes}, shared

    def _score(self, name: str, metric: ScoreMetric, source: Source) -> Score:
        value, std = metric.compute()
        protocol = {
            "metric": {"name": name, **metric.settings()},
            "extractor": self.extractor.protocol() if metric.of_features else None,
            "reference": self._reference_protocol if metric.reference_parts else None,
            "num_samples": self.num_samples,
            **source.protocol,
            "scoring_version": SCORING_VERSION,
        }
        return Score(
            name=metric.score_name(self.extractor.name),
            value=value,
            std=std,
            images_seen=source.images_seen,
            lower_is_better=metric.lower_is_better,
            ranked=self.extractor.ranked or not metric.of_features,
            protocol=protocol,
        )


def _metric_name(name: str, extractor_name: str) -> str:
    """The name under which a metric is registered, from that or from the name of the score that it gives."""
    for known in score_metrics:
        if name == score_metrics[known].score_name(extractor_name):
            return known
    _ = score_metrics[name]
    return name
