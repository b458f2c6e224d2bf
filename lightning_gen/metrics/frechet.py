"""Frechet distance between Gaussians fitted to features; with Inception features it is the FID."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gen.metrics.base import ScoreMetric, ScoreValue, score_metrics
from lightning_gen.metrics.extractors import FeatureExtractor, Features
from lightning_gen.metrics.reference import Reference
from lightning_gen.metrics.statistics import FeatureStatistics, GaussianStatistics


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
    if samples.n <= len(samples.mean):
        root_trace = torch.linalg.svdvals(reference.factor @ samples.factor.T).sum()
    else:
        product = reference.factor @ samples.covariance @ reference.factor.T
        root_trace = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0).sqrt().sum()
    mean_term = (samples.mean - reference.mean).square().sum()
    return float(mean_term + samples.covariance.trace() + reference.covariance.trace() - 2 * root_trace)


@score_metrics.register("frechet_distance")
class FrechetDistance(ScoreMetric):
    """Frechet distance between the features of samples and of the reference images.

    Recorded as ``fid`` for Inception features and as ``fd_<extractor>`` for all others.
    """

    reference_parts = ("statistics",)
    lower_is_better = True

    def __init__(self, extractor: FeatureExtractor, num_samples: int, reference: Reference | None) -> None:
        super().__init__(extractor, num_samples, reference)
        assert reference is not None
        assert reference.statistics is not None
        self.reference = reference.statistics
        self.statistics = FeatureStatistics(extractor.num_features)

    @classmethod
    def score_name(cls, extractor_name: str) -> str:
        """``fid``, or ``fd_<extractor>``."""
        return "fid" if extractor_name == "inception" else f"fd_{extractor_name}"

    def update(self, features: Features, indices: Tensor, labels: Tensor | None = None) -> None:
        """Add features (N, D); their order does not matter."""
        del indices, labels
        self.statistics.update(features.features)

    def compute(self) -> ScoreValue:
        """The distance over the samples of all processes."""
        return ScoreValue(frechet_distance(self.statistics.compute(), self.reference))
