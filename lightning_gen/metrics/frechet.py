"""Frechet distance between Gaussians fitted to features; with Inception features it is the FID."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from scipy.stats import linregress
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.metrics.base import (
    ScoreMetric,
    ScoreValue,
    ScoringPlan,
    check_few_features,
    score_metrics,
    sum_over_processes,
)
from lightning_gen.metrics.extractors import FeatureExtractor, Features
from lightning_gen.metrics.reference import Reference
from lightning_gen.metrics.shared import NUM_SEGMENTS, Segments, SegmentStatistics
from lightning_gen.metrics.statistics import GaussianStatistics, gaussian_statistics

SAMPLES_PER_CLASS = 20
"""On average, at least."""
MAX_STATE_BYTES = 2**32
"""Of the covariances of all classes."""


def frechet_distance(samples: GaussianStatistics, reference: GaussianStatistics) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians (Dowson and Landau 1982; Heusel et al. 2017, eq. 6).

    ``|m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))``. With factors ``S = F.T F`` the last trace is the sum of the
    singular values of ``F1 F2.T``. The reference's factor is computed once; the samples' only where they are fewer
    than their dimensions (small, singular case); otherwise the singular values are the roots of the symmetric
    eigenvalues of ``F2 S1 F2.T``.

    Returns:
        The distance; at least 0 up to rounding (about 1e-9 of the traces).

    Raises:
        ValueError: different dimensions, or statistics that are not finite.
    """
    if samples.mean.shape != reference.mean.shape:
        raise ValueError(f"statistics of {len(samples.mean)} and {len(reference.mean)} dimensions")
    if not (samples.covariance.isfinite().all() and reference.covariance.isfinite().all()):
        raise ValueError("statistics hold NaN or infinite values")
    if samples.n is not None and samples.n <= len(samples.mean):
        root_trace = torch.linalg.svdvals(reference.factor @ samples.factor.T).sum()
    else:
        product = reference.factor @ samples.covariance @ reference.factor.T
        root_trace = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0).sqrt().sum()
    mean_term = (samples.mean - reference.mean).square().sum()
    return float(mean_term + samples.covariance.trace() + reference.covariance.trace() - 2 * root_trace)


def jackknife_error(left_out: Sequence[float]) -> float:
    """Standard error of a score from its values with one of S equal parts of the samples left out (Tukey 1958).

    ``sqrt((S - 1) / S * sum (x_s - mean)^2)``.
    """
    values = torch.tensor(left_out, dtype=torch.float64)
    return float(((len(values) - 1) * values.var(correction=0)).sqrt())


@score_metrics.register("frechet_distance")
class FrechetDistance(ScoreMetric):
    """Frechet distance between the features of samples and of the reference images.

    Recorded as ``fid`` for Inception features and as ``fd_<extractor>`` for all others. Its error bar, where one is
    wanted, is the jackknife's over `NUM_SEGMENTS` parts of the samples; that of the reference images is not in it.

    Args:
        extractor: of the features.
        num_samples: samples that will be drawn.
        reference: must have ``statistics``.
        segments: sums over the samples.
    """

    reference_parts = ("statistics",)
    shared = ("segments",)
    lower_is_better = True
    prefix = "fd"
    inception_name = "fid"

    def __init__(
        self,
        extractor: FeatureExtractor,
        num_samples: int,
        reference: Reference | None,
        segments: SegmentStatistics,
    ) -> None:
        super().__init__(extractor, num_samples, reference)
        assert reference is not None
        assert reference.statistics is not None
        self.reference = reference.statistics
        self.segments = segments

    @classmethod
    def check(cls, plan: ScoringPlan) -> None:
        """There must be few enough features.

        Raises:
            UserError: there are too many.
        """
        check_few_features(cls.prefix, plan.extractor)

    def compute(self) -> ScoreValue:
        """The distance over the samples of all processes."""
        return distance_with_error(self.segments.compute(), self.reference)


@score_metrics.register("frechet_infinity")
class FrechetInfinity(FrechetDistance):
    """The Frechet distance of infinitely many samples (Chong and Forsyth 2020, section 3.1).

    The bias of the distance is linear in 1/n for large n. Distances of the whole, of halves and of quarters of the
    samples and of their eighths are fitted by a line in 1/n, whose value at 0 is the score; its error is that of the
    least squares. The paper fits random subsets instead of parts.
    """

    needs_segments = True
    prefix = "fd_infinity"
    inception_name = "fid_infinity"

    @classmethod
    def check(cls, plan: ScoringPlan) -> None:
        """The smallest part must have more samples than features, or the bias is not linear.

        Raises:
            UserError: it has not.
        """
        super().check(plan)
        smallest = plan.num_samples // NUM_SEGMENTS
        if smallest <= plan.extractor.num_features:
            raise UserError(
                f"{cls.prefix} fits distances of an eighth of the samples, {smallest}, which must be more than the "
                f"{plan.extractor.num_features} features: raise metrics.num_samples to "
                f"{NUM_SEGMENTS * (plan.extractor.num_features + 1)}"
            )

    def settings(self) -> dict[str, Any]:
        """Number of the smallest parts."""
        return {"segments": NUM_SEGMENTS}

    def compute(self) -> ScoreValue:
        """The distance at 1/n = 0 and its standard error."""
        segments = self.segments.compute()
        inverse_counts, distances = [], []
        parts = NUM_SEGMENTS
        while parts:
            for first in range(0, NUM_SEGMENTS, parts):
                statistics = segments.statistics(slice(first, first + parts))
                assert statistics.n is not None
                inverse_counts.append(1 / statistics.n)
                distances.append(frechet_distance(statistics, self.reference))
            parts //= 2
        fit = linregress(inverse_counts, distances)
        return ScoreValue(float(fit.intercept), float(fit.intercept_stderr))


@score_metrics.register("spatial_frechet_distance")
class SpatialFrechetDistance(ScoreMetric):
    """sFID: the Frechet distance of features that keep their place in the image (Nash et al. 2021, section 4.3)."""

    reference_parts = ("spatial_statistics",)
    lower_is_better = True
    prefix = "sfd"
    inception_name = "sfid"

    def __init__(self, extractor: FeatureExtractor, num_samples: int, reference: Reference | None) -> None:
        super().__init__(extractor, num_samples, reference)
        assert reference is not None
        assert reference.spatial_statistics is not None
        assert extractor.num_spatial is not None
        self.reference = reference.spatial_statistics
        self.statistics = SegmentStatistics(extractor.num_spatial, num_samples, spatial=True)

    @classmethod
    def check(cls, plan: ScoringPlan) -> None:
        """The extractor must have spatial features.

        Raises:
            UserError: it has none.
        """
        if plan.extractor.num_spatial is None:
            raise UserError(
                f"{cls.prefix} needs features that keep their place, which extractor {plan.extractor.name!r} does not "
                "have: use metrics.extractor.name=inception"
            )

    def update(self, features: Features, indices: Tensor, labels: Tensor | None = None) -> None:
        """Add spatial features (N, D)."""
        self.statistics.update(features, indices, labels)

    def compute(self) -> ScoreValue:
        """The distance over the samples of all processes."""
        return ScoreValue(frechet_distance(self.statistics.compute().statistics(), self.reference))


@score_metrics.register("class_frechet_distance")
class ClassFrechetDistance(ScoreMetric):
    """Mean over classes of the Frechet distance between samples of a class and its reference images.

    Intra-FID (Miyato and Koyama 2018, section 4.2). Samples belong to the class that they were asked for.
    """

    reference_parts = ("class_statistics",)
    lower_is_better = True
    prefix = "class_fd"
    inception_name = "intra_fid"
    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, extractor: FeatureExtractor, num_samples: int, reference: Reference | None) -> None:
        super().__init__(extractor, num_samples, reference)
        assert reference is not None
        assert reference.class_statistics is not None
        self.reference = reference.class_statistics
        classes, number = len(self.reference), extractor.num_features
        zeros = {"count": (classes,), "total": (classes, number), "outer": (classes, number, number)}
        self.dist_sync_fn = sum_over_processes
        for name, shape in zeros.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    @classmethod
    def check(cls, plan: ScoringPlan) -> None:
        """Samples must be asked for by class, and the classes' covariances fit into memory.

        Raises:
            UserError: they are not, or do not.
        """
        check_few_features(cls.prefix, plan.extractor)
        if plan.label_classes is None:
            raise UserError(
                f"{cls.prefix} needs a model that makes images of given classes: set model.conditional=true or take "
                "it out of metrics.metrics"
            )
        if plan.num_samples < SAMPLES_PER_CLASS * plan.label_classes:
            raise UserError(
                f"{cls.prefix} needs {SAMPLES_PER_CLASS} samples a class: raise metrics.num_samples to "
                f"{SAMPLES_PER_CLASS * plan.label_classes}"
            )
        if plan.label_classes * plan.extractor.num_features**2 * 8 > MAX_STATE_BYTES:
            raise UserError(
                f"{cls.prefix}: {plan.label_classes} covariances of {plan.extractor.num_features} features take more "
                f"than {MAX_STATE_BYTES // 2**30} GiB: use an extractor with fewer features"
            )

    def update(self, features: Features, indices: Tensor, labels: Tensor | None = None) -> None:
        """Add features (N, D) of samples of the classes ``labels`` (N,)."""
        del indices
        assert labels is not None
        values = features.features.double()
        for label in labels.unique().tolist():
            own = values[labels == label]
            self.count[label] += len(own)
            self.total[label] += own.sum(0)
            self.outer[label].addmm_(own.T, own)

    def compute(self) -> ScoreValue:
        """The mean over classes, from the samples of all processes.

        Raises:
            ValueError: a class has fewer than two samples.
        """
        sums = zip(self.count.cpu(), self.total.cpu(), self.outer.cpu(), strict=True)
        distances = [
            frechet_distance(gaussian_statistics(*each), reference)
            for each, reference in zip(sums, self.reference, strict=True)
        ]
        return ScoreValue(sum(distances) / len(distances))


def distance_with_error(segments: Segments, reference: GaussianStatistics) -> ScoreValue:
    """The Frechet distance of all parts together; its jackknife error where there are several."""
    value = frechet_distance(segments.statistics(), reference)
    parts = len(segments.numbers)
    if parts == 1 or int(segments.numbers.sum() - segments.numbers.max()) < 2:
        return ScoreValue(value)
    left_out = [frechet_distance(segments.statistics(leave_out=part), reference) for part in range(parts)]
    return ScoreValue(value, jackknife_error(left_out))
