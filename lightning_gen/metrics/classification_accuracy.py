"""How good samples are as labelled training images: Ravuri and Vinyals 2019."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lightning_gen.errors import UserError
from lightning_gen.metrics.base import ScoreMetric, ScoreValue, ScoringPlan, score_metrics
from lightning_gen.metrics.extractors import FeatureExtractor
from lightning_gen.metrics.labelled_pixels import GRID, LabelledPixels
from lightning_gen.metrics.reference import Reference
from lightning_gen.metrics.shared import PixelReservoir

PENALTY = 10.0
"""C of the support vector machine."""


@score_metrics.register("classification_accuracy_score")
class ClassificationAccuracyScore(ScoreMetric):
    """Share of real images that a classifier gets right which is trained on samples alone, from 0 to 1.

    Each sample's label is the class that it was asked for (Ravuri and Vinyals 2019, "Classification accuracy score for
    conditional generative models"). Their classifier is a ResNet-50. Ours is a support vector machine with the kernel
    ``exp(-g |x - y|^2)`` on pixels averaged to at most 16x16, a convex problem without random numbers, so that the
    score is the same at any number of processes and threads. Samples that lack the variety of the data or show other
    classes than they were asked for give a lower share than as many real training images do.

    The error bar is the standard error of the share over the real images.

    Args:
        extractor: not used.
        num_samples: samples that will be drawn, of which the first ``max_features`` are trained on.
        reference: must have ``labelled_pixels``.
        pixels: of the samples.
    """

    reference_parts = ("labelled_pixels",)
    shared = ("pixels",)
    lower_is_better = False
    prefix = "classification_accuracy_score"
    of_features = False

    def __init__(
        self,
        extractor: FeatureExtractor,
        num_samples: int,
        reference: Reference | None,
        pixels: PixelReservoir,
    ) -> None:
        super().__init__(extractor, num_samples, reference)
        assert reference is not None
        assert reference.labelled_pixels is not None
        self.real = reference.labelled_pixels
        self.pixels = pixels

    @classmethod
    def check(cls, plan: ScoringPlan) -> None:
        """Samples must be asked for by class.

        Raises:
            UserError: they are not.
        """
        if plan.label_classes is None:
            raise UserError(
                "classification_accuracy_score needs a model that makes images of given classes: set "
                "model.conditional=true or take it out of metrics.metrics"
            )

    def compute(self) -> ScoreValue:
        """The share over the real images, by a classifier of the samples of all processes."""
        share = fitted_accuracy(self.pixels.compute(), self.real)
        return ScoreValue(share, math.sqrt(share * (1 - share) / len(self.real.labels)))

    def settings(self) -> dict[str, Any]:
        """The classifier, what it sees, and the bound on samples and real images."""
        return {
            "classifier": {"name": "svm", "kernel": "rbf", "gamma": "scale", "penalty": PENALTY},
            "pixels": {"grid": GRID, "filter": "average"},
            "max_features": self.pixels.max_samples,
        }


def fitted_accuracy(training: LabelledPixels, test: LabelledPixels) -> float:
    """Share of test images that a support vector machine fitted to training images classifies rightly.

    Its kernel is ``exp(-g |x - y|^2)`` with g one over D times the variance of all training pixels. Where the training
    images have one class alone, or are all the same, that of most of them is taken for the class of every image.

    Args:
        training: at least one image.
        test: at least one image.
    """
    from sklearn.svm import SVC  # most of a second that only this score needs

    pixels, labels = training.pixels.cpu().numpy(), training.labels.cpu().numpy()
    truth = test.labels.cpu().numpy()
    if len(np.unique(labels)) == 1 or not pixels.var():
        return float((truth == np.bincount(labels).argmax()).mean())
    classifier = SVC(C=PENALTY, kernel="rbf", gamma="scale").fit(pixels, labels)
    return float((classifier.predict(test.pixels.cpu().numpy()) == truth).mean())
