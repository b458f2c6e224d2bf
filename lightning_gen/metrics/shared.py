"""States that several metrics read and the evaluator feeds, each kept once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
import torchmetrics
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.metrics.base import ScoreMetric, ScoringPlan, check_few_features, sum_over_processes
from lightning_gen.metrics.extractors import FeatureExtractor, Features
from lightning_gen.metrics.labelled_pixels import LabelledPixels, pooled_pixels
from lightning_gen.metrics.neighbors import Neighbors, ReferenceFeatures
from lightning_gen.metrics.reference import Reference
from lightning_gen.metrics.statistics import GaussianStatistics, gaussian_statistics

NUM_SEGMENTS = 8
"""Parts of the samples whose statistics are kept apart where error bars are wanted."""


class SharedOptions(NamedTuple):
    """What states need to know.

    Attributes:
        extractor: of the features.
        num_samples: samples that will be drawn.
        reference: what they are compared with.
        max_features: features that are kept at most.
        num_segments: parts of the samples whose statistics are kept apart.
    """

    extractor: FeatureExtractor
    num_samples: int
    reference: Reference
    max_features: int
    num_segments: int


class SharedState(torchmetrics.Metric):
    """A state over all processes; what `compute` gives is computed once."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__(dist_sync_fn=sum_over_processes)

    def update(self, features: Features, indices: Tensor, labels: Tensor | None = None) -> None:
        """Add N samples: their features, indices (N,) int64 among all, and the classes that they were asked for."""
        raise NotImplementedError


class FeatureReservoir(SharedState):
    """Features of the first samples by index, in that order whatever the number of processes; of constant size.

    Every process fills the rows of its own samples and leaves the others zero, so the sum over processes is exact.

    Args:
        num_features: D.
        num_samples: samples that will be drawn in all.
        reference: of the reference images.
        max_features: samples that are kept at most.
    """

    features: Tensor

    def __init__(self, num_features: int, num_samples: int, reference: ReferenceFeatures, max_features: int) -> None:
        super().__init__()
        self.reference = reference
        self.max_features = max_features
        self.add_state("features", torch.zeros(min(num_samples, max_features), num_features), dist_reduce_fx="sum")

    def update(self, features: Features, indices: Tensor, labels: Tensor | None = None) -> None:
        """Add features (N, D) of the samples at ``indices`` (N,) int64; those beyond the reservoir are left out."""
        del labels
        kept = indices < len(self.features)
        self.features[indices[kept]] = features.features[kept].to(self.features.dtype)

    def compute(self) -> Neighbors:
        """The samples of all processes among the reference images."""
        return Neighbors(self.features.clone(), self.reference)


class PixelReservoir(SharedState):
    """Pooled pixels and classes of the first samples by index, kept as `FeatureReservoir` keeps features.

    Args:
        num_pixels: D of pooled images.
        num_samples: samples that will be drawn in all.
        max_samples: samples that are kept at most.
    """

    pixels: Tensor
    labels: Tensor

    def __init__(self, num_pixels: int, num_samples: int, max_samples: int) -> None:
        super().__init__()
        number = min(num_samples, max_samples)
        self.max_samples = max_samples
        self.add_state("pixels", torch.zeros(number, num_pixels), dist_reduce_fx="sum")
        self.add_state("labels", torch.zeros(number, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, features: Features, indices: Tensor, labels: Tensor | None = None) -> None:
        """Add the images of the samples at ``indices`` (N,) int64 and the classes (N,) that they were asked for."""
        if labels is None:
            raise ValueError("a score of labelled samples needs the labels of the samples")
        assert features.images is not None
        kept = indices < len(self.pixels)
        self.pixels[indices[kept]] = pooled_pixels(features.images[kept])
        self.labels[indices[kept]] = labels[kept]

    def compute(self) -> LabelledPixels:
        """The samples of all processes."""
        return LabelledPixels(self.pixels.clone(), self.labels.clone())


class ReservoirScore(ScoreMetric):
    """A score of the features of at most ``max_features`` samples and reference images.

    Args:
        extractor: of the features.
        num_samples: samples that will be drawn.
        reference: must have ``features``.
        reservoir: the samples' features; one reservoir may serve any number of scores.

    Attributes:
        minimum_samples: samples and reference images that are needed.
    """

    reference_parts = ("features",)
    shared = ("reservoir",)
    minimum_samples: ClassVar[tuple[int, int]] = (2, 2)

    def __init__(
        self,
        extractor: FeatureExtractor,
        num_samples: int,
        reference: Reference | None,
        reservoir: FeatureReservoir,
    ) -> None:
        super().__init__(extractor, num_samples, reference)
        self.reservoir = reservoir

    @classmethod
    def check(cls, plan: ScoringPlan) -> None:
        """There must be enough samples and reference images, and few enough features.

        Raises:
            UserError: it is not so.
        """
        check_few_features(cls.prefix, plan.extractor)
        samples, images = cls.minimum_samples
        if plan.num_samples < samples:
            raise UserError(f"{cls.prefix} needs at least {samples} samples: raise metrics.num_samples")
        if plan.reference_size is not None and plan.reference_size < images:
            raise UserError(
                f"{cls.prefix} needs at least {images} reference images: use a larger metrics.reference_split"
            )

    def settings(self) -> dict[str, Any]:
        """The bound on samples and reference images."""
        return {"max_features": self.reservoir.max_features}


class SegmentStatistics(SharedState):
    """Number, sum and sum of outer products, in float64, of the features of consecutive equal parts of the samples.

    The size does not grow with the number of samples. Parts that are kept apart give the statistics of all, of all but
    one (jackknife), and of any union of parts.

    Args:
        num_features: D.
        num_samples: samples that will be drawn in all.
        num_segments: parts S.
        spatial: of the extractor's spatial features instead of its features.
    """

    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, num_features: int, num_samples: int, num_segments: int = 1, spatial: bool = False) -> None:
        super().__init__()
        self.num_samples = num_samples
        self.num_segments = num_segments
        self.spatial = spatial
        sums = torch.zeros(num_segments, num_features, dtype=torch.float64)
        outer = torch.zeros(num_segments, num_features, num_features, dtype=torch.float64)
        self.add_state("count", torch.zeros(num_segments, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", sums, dist_reduce_fx="sum")
        self.add_state("outer", outer, dist_reduce_fx="sum")

    def update(self, features: Features, indices: Tensor, labels: Tensor | None = None) -> None:
        """Add features (N, D) of the samples at ``indices`` (N,) int64."""
        del labels
        chosen = features.spatial if self.spatial else features.features
        assert chosen is not None
        values = chosen.double()
        segments = indices * self.num_segments // self.num_samples
        for segment in segments.unique().tolist():
            own = values[segments == segment]
            self.count[segment] += len(own)
            self.total[segment] += own.sum(0)
            self.outer[segment].addmm_(own.T, own)

    def compute(self) -> Segments:
        """The sums over the samples of all processes."""
        return Segments(self.count.cpu(), self.total.cpu(), self.outer.cpu())


class Segments:
    """Sums over the samples of each of S parts of all samples.

    Args:
        numbers: of samples (S,).
        total: of features (S, D) float64.
        outer: of their outer products (S, D, D) float64.
    """

    def __init__(self, numbers: Tensor, total: Tensor, outer: Tensor) -> None:
        self.numbers = numbers
        self.total = total
        self.outer = outer

    def statistics(self, segments: slice = slice(None), leave_out: int | None = None) -> GaussianStatistics:
        """Statistics of the samples in a range of parts, or in all but one."""
        sums = (self.numbers[segments], self.total[segments], self.outer[segments])
        if leave_out is None:
            return gaussian_statistics(*(part.sum(0) for part in sums))
        return gaussian_statistics(*(part.sum(0) - part[leave_out] for part in sums))


def _reservoir(options: SharedOptions) -> SharedState:
    assert options.reference.features is not None
    return FeatureReservoir(
        options.extractor.num_features, options.num_samples, options.reference.features, options.max_features
    )


def _segments(options: SharedOptions) -> SharedState:
    return SegmentStatistics(options.extractor.num_features, options.num_samples, options.num_segments)


def _pixels(options: SharedOptions) -> SharedState:
    assert options.reference.labelled_pixels is not None
    num_pixels = options.reference.labelled_pixels.pixels.shape[1]
    return PixelReservoir(num_pixels, options.num_samples, options.max_features)


SHARED_STATES: dict[str, Callable[[SharedOptions], SharedState]] = {
    "reservoir": _reservoir,
    "segments": _segments,
    "pixels": _pixels,
}
"""How each state is made, by the name under which metrics ask for it."""


def make_shared(names: set[str], options: SharedOptions) -> dict[str, SharedState]:
    """The named states, empty, on the extractor's device."""
    device = next(options.extractor.parameters()).device
    return {name: SHARED_STATES[name](options).to(device) for name in sorted(names)}
