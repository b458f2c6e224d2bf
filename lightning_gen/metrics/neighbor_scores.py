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
from lightning_gen.metrics.base import ScoreValue, ScoringPlan, score_metrics
from lightning_gen.metrics.neighbors import DENSITY_NEIGHBORS, PRECISION_NEIGHBORS, Neighbors
from lightning_gen.metrics.shared import ReservoirScore


class NeighborScore(ReservoirScore):
    """A share or mean over neighbors of at most ``max_features`` samples and reference images.

    Attributes:
        neighbors: k.
        scale: of the mean.
        of_training_images: whether the reference must be the training images.
    """

    lower_is_better = False
    minimum_samples = (PRECISION_NEIGHBORS + 1, DENSITY_NEIGHBORS + 1)
    neighbors: ClassVar[int]
    scale: ClassVar[float] = 1.0
    of_training_images: ClassVar[bool] = False

    @classmethod
    def check(cls, plan: ScoringPlan) -> None:
        """There must be more samples and reference images than neighbors, of the right split.

        Raises:
            UserError: it is not so.
        """
        super().check(plan)
        if cls.of_training_images and plan.reference_split != "train":
            raise UserError(
                f"{cls.prefix} compares with training images, not with the {plan.reference_split} split: set "
                "metrics.reference_split=train"
            )

    def settings(self) -> dict[str, Any]:
        """The number of neighbors too."""
        return {"neighbors": self.neighbors, **super().settings()}

    def compute(self) -> ScoreValue:
        """The mean over samples or reference images of what `of` gives, and its standard error."""
        value, error = mean_with_error(self.of(self.reservoir.compute()))
        assert error is not None
        return ScoreValue(self.scale * value, self.scale * error)

    @abstractmethod
    def of(self, neighbors: Neighbors) -> Tensor:
        """What the score is the mean of: a value for each sample or for each reference image."""


@score_metrics.register("precision")
class Precision(NeighborScore):
    """Share of samples within the estimated manifold of the data (Kynkaanniemi et al. 2019, eq. 1 and 2).

    The manifold is the union of balls around reference images that reach to their third neighbor. From 0 to 1.
    """

    prefix = "precision"
    neighbors = PRECISION_NEIGHBORS

    def of(self, neighbors: Neighbors) -> Tensor:
        """Eq. 2, for every sample."""
        return neighbors.cross.within


@score_metrics.register("recall")
class Recall(NeighborScore):
    """Share of reference images within the estimated manifold of the samples (Kynkaanniemi et al. 2019, eq. 1 and 3).

    From 0 to 1; what the model never makes is missing.
    """

    prefix = "recall"
    neighbors = PRECISION_NEIGHBORS

    def of(self, neighbors: Neighbors) -> Tensor:
        """Eq. 3, for every reference image."""
        return neighbors.recalled


@score_metrics.register("density")
class Density(NeighborScore):
    """Mean number of reference balls that a sample is in, over k = 5 (Naeem et al. 2020, eq. 3).

    At least 0, not bounded by 1, and 1 on average where samples and data follow one law.
    """

    prefix = "density"
    neighbors = DENSITY_NEIGHBORS
    scale = 1 / DENSITY_NEIGHBORS

    def of(self, neighbors: Neighbors) -> Tensor:
        """Eq. 3, for every sample."""
        return neighbors.cross.balls


@score_metrics.register("coverage")
class Coverage(NeighborScore):
    """Share of reference images that have a sample nearer than their fifth neighbor (Naeem et al. 2020, eq. 4).

    From 0 to 1. Balls are around reference images, so that samples off the data cannot raise it.
    """

    prefix = "coverage"
    neighbors = DENSITY_NEIGHBORS

    def of(self, neighbors: Neighbors) -> Tensor:
        """Eq. 4, for every reference image."""
        return neighbors.cross.reference_distance < neighbors.reference_radii(DENSITY_NEIGHBORS)


@score_metrics.register("authenticity")
class Authenticity(NeighborScore):
    """Share of samples that are no near copies of training images (Alaa et al. 2022, section 3.2).

    A sample is a near copy if it is no farther from its nearest training image than that one is from its own nearest
    other training image. From 0 to 1; samples far off the data are authentic too, so read it beside the others.
    """

    prefix = "authenticity"
    neighbors = 1
    of_training_images = True

    def of(self, neighbors: Neighbors) -> Tensor:
        """For every sample."""
        cross = neighbors.cross
        return cross.nearest_distance > neighbors.reference_radii(1)[cross.nearest]


@score_metrics.register("memorization")
class Memorization(NeighborScore):
    """Share of samples that are copies: less than a third as far from their nearest training image as from the next.

    Yoon et al. 2023, "Diffusion probabilistic models generalize when they fail to memorize", section 3. From 0 to 1.
    A training set that holds an image twice hides its copies.
    """

    lower_is_better = True
    prefix = "memorization"
    neighbors = 2
    of_training_images = True

    def settings(self) -> dict[str, Any]:
        """The ratio too."""
        return {**super().settings(), "ratio": "1/3"}

    def of(self, neighbors: Neighbors) -> Tensor:
        """For every sample."""
        nearest, second = neighbors.nearest_two
        return 3 * nearest < second


def mean_with_error(values: Tensor) -> ScoreValue:
    """Mean of values (N,), and its standard error: their deviation over the root of their number."""
    values = values.double()
    return ScoreValue(float(values.mean()), float(values.std(correction=0)) / len(values) ** 0.5)
