"""Inception Score, and the same score under other classifiers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.metrics.base import ScoreMetric, ScoreValue, score_metrics
from lightning_gen.metrics.extractors import FeatureExtractor, Features
from lightning_gen.metrics.reference import Reference

NUM_SPLITS = 10
SHUFFLE_SEED = 2020


@score_metrics.register("inception_score")
class InceptionScore(ScoreMetric):
    """``exp(E_x KL(p(y|x) || p(y)))`` over consecutive splits of the samples (Salimans et al. 2016, section 4).

    The value is the mean over splits and the deviation that of the population (divided by the number of splits, as the
    original code and torch-fidelity have it). Samples that a model draws are independent: they need no shuffling, and
    the split of a sample follows from its index alone. Files may be in the order of their classes.

    Args:
        extractor: of the logits.
        num_samples: samples that will be drawn.
        reference: not used.
        shuffle: put samples into the splits in a random order, that of torch-fidelity.
    """

    lower_is_better = False
    prefix = "class_score"
    inception_name = "inception_score"
    last_index: Tensor
    places: Tensor
    counts: Tensor
    probabilities: Tensor
    negative_entropy: Tensor

    def __init__(
        self, extractor: FeatureExtractor, num_samples: int, reference: Reference | None, shuffle: bool = False
    ) -> None:
        super().__init__(extractor, num_samples, reference)
        if extractor.num_classes is None:
            raise UserError(f"inception_score needs class logits, which extractor {extractor.name!r} does not have")
        if num_samples < NUM_SPLITS:
            raise UserError(f"inception_score needs at least {NUM_SPLITS} samples: raise metrics.num_samples")
        ends = [(split + 1) * num_samples // NUM_SPLITS - 1 for split in range(NUM_SPLITS)]
        self.register_buffer("last_index", torch.tensor(ends), persistent=False)
        self.shuffle = shuffle
        places = torch.arange(num_samples)
        if shuffle:
            places[torch.from_numpy(np.random.RandomState(SHUFFLE_SEED).permutation(num_samples))] = places.clone()
        self.register_buffer("places", places, persistent=False)
        zeros = torch.zeros(NUM_SPLITS, extractor.num_classes, dtype=torch.float64)
        self.add_state("counts", torch.zeros(NUM_SPLITS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("probabilities", zeros, dist_reduce_fx="sum")
        self.add_state("negative_entropy", torch.zeros(NUM_SPLITS, dtype=torch.float64), dist_reduce_fx="sum")

    def settings(self) -> dict[str, Any]:
        """The number of splits, and whether their samples are shuffled."""
        return {"splits": NUM_SPLITS, **({"shuffle": SHUFFLE_SEED} if self.shuffle else {})}

    def update(self, features: Features, indices: Tensor, labels: Tensor | None = None) -> None:
        """Add logits (N, K) of the samples at ``indices`` (N,)."""
        del labels
        assert features.logits is not None
        log_probabilities = features.logits.double().log_softmax(1)
        probabilities = log_probabilities.exp()
        splits = torch.bucketize(self.places[indices], self.last_index)
        self.counts.index_add_(0, splits, torch.ones_like(splits))
        self.probabilities.index_add_(0, splits, probabilities)
        self.negative_entropy.index_add_(0, splits, (probabilities * log_probabilities).sum(1))

    def compute(self) -> ScoreValue:
        """Mean and deviation over the splits, from the samples of all processes."""
        marginal = self.probabilities / self.counts[:, None]
        scores = (self.negative_entropy / self.counts - torch.xlogy(marginal, marginal).sum(1)).exp()
        return ScoreValue(float(scores.mean()), float(scores.std(correction=0)))
