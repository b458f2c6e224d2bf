"""Fidelity, diversity and memorization by nearest neighbors in feature space.

Precision and recall include the surface of a ball (``<=``) and density and coverage leave it out (``<``), each as its
authors' code has it. Scores are recorded as ``<name>_<extractor>`` for every extractor, Inception too: the published
values of precision and recall are from VGG-16 features, so no score here bears the bare name.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.metrics.base import ScoreMetric, ScoreValue, ScoringPlan, score_metrics
from lightning_gen.metrics.extractors import FeatureExtractor, Features
from lightning_gen.metrics.neighbors import (
    DENSITY_NEIGHBORS,
    PRECISION_NEIGHBORS,
    FeatureReservoir,
    Neighbors,
)
from lightning_gen.metrics.reference import Reference


class NeighborScore(ScoreMetric):
    """A share or mean over neighbors of at most ``max_features`` samples and reference images.

    Args:
        extractor: of the features.
        num_samples: samples that will be drawn.
        reference: must have ``features``.
        reservoir: the samples' features; one reservoir may serve any number of scores.

    Attributes:
        neighbors: k.
    """

    reference_parts = ("features",)
    lower_is_better = False
    neighbors: ClassVar[int]

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
        """There must be more samples and reference images than neighbors.

        Raises:
            UserError: there are not.
        """
        if plan.num_samples <= PRECISION_NEIGHBORS:
            raise UserError(f"{cls.prefix} needs more than {PRECISION_NEIGHBORS} samples: raise metrics.num_samples")
        if plan.reference_size is not None and plan.reference_size <= DENSITY_NEIGHBORS:
            raise UserError(
                f"{cls.prefix} needs more than {DENSITY_NEIGHBORS} reference images: use a larger "
                "metrics.reference_split"
            )

    def settings(self) -> dict[str, Any]:
        """The number of neighbors and the bound on samples and reference images."""
        return {"neighbors": self.neighbors, "max_features": self.reservoir.max_features}

    def update(self, features: Features, indices: Tensor, labels: Tensor | None = None) -> None:
        """Keep features (N, D) of the samples at ``indices`` (N,)."""
        del labels
        self.reservoir.update(features.features, indices)

    def compute(self) -> ScoreValue:
        """The score over the samples of all processes."""
        return ScoreValue(self.of(self.reservoir.compute()))

    @abstractmethod
    def of(self, neighbors: Neighbors) -> float:
        """The score of samples among reference images."""


@score_metrics.register("precision")
class Precision(NeighborScore):
    """Share of samples within the estimated manifold of the data (Kynkaanniemi et al. 2019, eq. 1 and 2).

    The manifold is the union of balls around reference images that reach to their third neighbor. From 0 to 1.
    """

    prefix = "precision"
    neighbors = PRECISION_NEIGHBORS

    def of(self, neighbors: Neighbors) -> float:
        """Eq. 2: mean over samples."""
        return _mean(neighbors.cross.within)


@score_metrics.register("recall")
class Recall(NeighborScore):
    """Share of reference images within the estimated manifold of the samples (Kynkaanniemi et al. 2019, eq. 1 and 3).

    From 0 to 1; what the model never makes is missing.
    """

    prefix = "recall"
    neighbors = PRECISION_NEIGHBORS

    def of(self, neighbors: Neighbors) -> float:
        """Eq. 3: mean over reference images."""
        return _mean(neighbors.recalled)


@score_metrics.register("density")
class Density(NeighborScore):
    """Mean number of reference balls that a sample is in, over k = 5 (Naeem et al. 2020, eq. 3).

    At least 0, not bounded by 1, and 1 on average where samples and data follow one law.
    """

    prefix = "density"
    neighbors = DENSITY_NEIGHBORS

    def of(self, neighbors: Neighbors) -> float:
        """Eq. 3: mean over samples."""
        return _mean(neighbors.cross.balls) / DENSITY_NEIGHBORS


@score_metrics.register("coverage")
class Coverage(NeighborScore):
    """Share of reference images that have a sample nearer than their fifth neighbor (Naeem et al. 2020, eq. 4).

    From 0 to 1. Balls are around reference images, so that samples off the data cannot raise it.
    """

    prefix = "coverage"
    neighbors = DENSITY_NEIGHBORS

    def of(self, neighbors: Neighbors) -> float:
        """Eq. 4: mean over reference images."""
        return _mean(neighbors.cross.reference_distance < neighbors.reference_radii(DENSITY_NEIGHBORS))


@score_metrics.register("authenticity")
class Authenticity(NeighborScore):
    """Share of samples that are no near copies of training images (Alaa et al. 2022, section 3.2).

    A sample is a near copy if it is no farther from its nearest training image than that one is from its own nearest
    other training image. From 0 to 1; samples far off the data are authentic too, so read it beside the others.
    """

    prefix = "authenticity"
    neighbors = 1

    @classmethod
    def check(cls, plan: ScoringPlan) -> None:
        """The reference must be the training images.

        Raises:
            UserError: it is another split, or there are too few images.
        """
        super().check(plan)
        if plan.reference_split != "train":
            raise UserError(
                f"authenticity compares with training images, not with the {plan.reference_split} split: set "
                "metrics.reference_split=train"
            )

    def of(self, neighbors: Neighbors) -> float:
        """Mean over samples."""
        cross = neighbors.cross
        return _mean(cross.nearest_distance > neighbors.reference_radii(1)[cross.nearest])


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
