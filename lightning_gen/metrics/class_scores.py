"""Scores by the extractor's class predictions: right classes, their shares, and classes that are missing."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.metrics.base import ScoreMetric, ScoreValue, ScoringPlan, score_metrics
from lightning_gen.metrics.extractors import FeatureExtractor, Features
from lightning_gen.metrics.reference import Reference

MISSING_SHARE = 0.1
"""A class is missing from the samples where they give it less than this part of its share of the data."""


class ClassScore(ScoreMetric):
    """A score of the classes that the extractor predicts."""

    @classmethod
    def check(cls, plan: ScoringPlan) -> None:
        """The extractor must predict classes.

        Raises:
            UserError: it does not.
        """
        if plan.extractor.num_classes is None:
            raise UserError(
                f"{cls.prefix} needs class logits, which extractor {plan.extractor.name!r} does not have: take it out "
                "of metrics.metrics"
            )


@score_metrics.register("class_accuracy")
class ClassAccuracy(ClassScore):
    """Share of samples that the extractor puts into the class that they were asked for, from 0 to 1."""

    lower_is_better = False
    prefix = "class_accuracy"
    count: Tensor
    right: Tensor

    def __init__(self, extractor: FeatureExtractor, num_samples: int, reference: Reference | None) -> None:
        super().__init__(extractor, num_samples, reference)
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("right", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @classmethod
    def check(cls, plan: ScoringPlan) -> None:
        """Samples must be asked for by class, and the extractor must know the same number of classes.

        Raises:
            UserError: one of the two is not so.
        """
        super().check(plan)
        if plan.label_classes is None:
            raise UserError(
                "class_accuracy needs a model that makes images of given classes: set model.conditional=true or take "
                "it out of metrics.metrics"
            )
        if plan.label_classes != plan.extractor.num_classes:
            raise UserError(
                f"class_accuracy: the data has {plan.label_classes} classes, but extractor {plan.extractor.name!r} "
                f"predicts {plan.extractor.num_classes}: take it out of metrics.metrics or set metrics.extractor.name"
            )

    def update(self, features: Features, indices: Tensor, labels: Tensor | None = None) -> None:
        """Add logits (N, K) and the classes (N,) that the samples were asked for."""
        del indices
        assert features.logits is not None
        if labels is None:
            raise ValueError("class_accuracy needs the labels of the samples")
        self.count += len(labels)
        self.right += (features.logits.argmax(1) == labels).sum()

    def compute(self) -> ScoreValue:
        """The share over the samples of all processes."""
        return ScoreValue(float(self.right) / float(self.count))


class ClassHistogram(ClassScore):
    """A score of the samples' predicted classes against the reference images'.

    Both histograms are of predictions: the classifier's mistakes are on both sides, and sets without labels, or with
    other classes than the extractor's, can be compared too.
    """

    reference_parts = ("class_counts",)
    lower_is_better = True
    counts: Tensor

    def __init__(self, extractor: FeatureExtractor, num_samples: int, reference: Reference | None) -> None:
        super().__init__(extractor, num_samples, reference)
        assert reference is not None
        assert reference.class_counts is not None
        self.reference_counts = reference.class_counts
        self.add_state("counts", torch.zeros_like(reference.class_counts), dist_reduce_fx="sum")

    def update(self, features: Features, indices: Tensor, labels: Tensor | None = None) -> None:
        """Add logits (N, K)."""
        del indices, labels
        assert features.logits is not None
        self.counts += features.logits.argmax(1).bincount(minlength=len(self.counts))


@score_metrics.register("class_kl")
class ClassDivergence(ClassHistogram):
    """``KL(samples || data)`` of the histograms of predicted classes, in nats; 0 where they agree.

    A class without samples adds nothing. One that no reference image shows counts there as half an image, so that the
    divergence stays finite.
    """

    prefix = "class_kl"

    def compute(self) -> ScoreValue:
        """The divergence over the samples of all processes."""
        shares = self.counts.double().cpu()
        expected = self.reference_counts.double().clamp_min(0.5)
        shares, expected = shares / shares.sum(), expected / expected.sum()
        return ScoreValue(float((torch.xlogy(shares, shares) - torch.xlogy(shares, expected)).sum()))


@score_metrics.register("missing_modes")
class MissingModes(ClassHistogram):
    """Number of classes to which the samples give less than a tenth of their share of the data.

    Classes that no reference image shows cannot be missing.
    """

    prefix = "missing_modes"

    def settings(self) -> dict[str, float]:
        """The part of its share below which a class is missing."""
        return {"missing_share": MISSING_SHARE}

    def compute(self) -> ScoreValue:
        """The number over the samples of all processes."""
        counts, reference = self.counts.double().cpu(), self.reference_counts.double()
        return ScoreValue(float((counts / counts.sum() < MISSING_SHARE * reference / reference.sum()).sum()))
