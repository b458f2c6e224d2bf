"""Distances of two sets of features that assume no Gaussian: by a kernel, and by projections to lines."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.metrics.base import ScoreValue, score_metrics
from lightning_gen.metrics.extractors import FeatureExtractor
from lightning_gen.metrics.neighbors import MAX_PAIRS, Neighbors
from lightning_gen.metrics.reference import Reference
from lightning_gen.metrics.shared import FeatureReservoir, ReservoirScore
from lightning_gen.seeds import make_rng

SUBSET_SEED = 2020
"""With it and this order of draws the subsets are torch-fidelity's."""


class DistributionDistance(ReservoirScore):
    """A distance of at most ``max_features`` samples from so many reference images; ``of`` computes it."""

    lower_is_better = True

    def compute(self) -> ScoreValue:
        """The score over the samples of all processes."""
        neighbors: Neighbors = self.reservoir.compute()
        return self.of(neighbors.samples, neighbors.reference.features.to(neighbors.samples.device))

    def of(self, samples: Tensor, reference: Tensor) -> ScoreValue:
        """The score of features (M, D) of samples and (N, D) of reference images."""
        raise NotImplementedError


@score_metrics.register("kernel_distance")
class KernelDistance(DistributionDistance):
    """Squared maximum mean discrepancy with the kernel ``(x.y / D + 1)^3``, unbiased (Binkowski et al. 2018, eq. 4).

    The mean over random subsets; its error bar is the deviation over them. With Inception features it is the KID,
    with torch-fidelity's subsets. It may be below zero.

    Args:
        extractor: of the features.
        num_samples: samples that will be drawn.
        reference: must have ``features``.
        reservoir: the samples' features.
        subsets: how many.
        subset_size: samples and reference images of each; fewer where there are fewer.
    """

    prefix = "kd"
    inception_name = "kid"

    def __init__(
        self,
        extractor: FeatureExtractor,
        num_samples: int,
        reference: Reference | None,
        reservoir: FeatureReservoir,
        subsets: int = 100,
        subset_size: int = 1000,
    ) -> None:
        super().__init__(extractor, num_samples, reference, reservoir)
        if subsets < 1 or subset_size < 2:
            raise UserError("kernel_distance needs at least 1 subset of 2 samples: set subsets and subset_size")
        self.subsets = subsets
        self.subset_size = min(subset_size, len(reservoir.features), len(reservoir.reference.features))

    def settings(self) -> dict[str, Any]:
        """Number and size of the subsets."""
        return {**super().settings(), "subsets": self.subsets, "subset_size": self.subset_size}

    def of(self, samples: Tensor, reference: Tensor) -> ScoreValue:
        """Mean and deviation over the subsets."""
        rng = np.random.RandomState(SUBSET_SEED)
        sizes = (len(samples), len(reference))
        chosen = [torch.zeros(self.subsets, size, dtype=torch.float64) for size in sizes]
        for subset in range(self.subsets):
            for indicator, size in zip(chosen, sizes, strict=True):
                indicator[subset, rng.choice(size, self.subset_size, replace=False)] = 1
        distances = subset_discrepancies(
            samples.double(), reference.double(), *(indicator.to(samples.device) for indicator in chosen)
        )
        return ScoreValue(float(distances.mean()), float(distances.std(correction=0)))


def subset_discrepancies(samples: Tensor, reference: Tensor, in_sample: Tensor, in_reference: Tensor) -> Tensor:
    """Unbiased squared MMD with the cubic kernel of many subsets at once (Binkowski et al. 2018, eq. 4).

    Each kernel value is computed once, whatever the number of subsets that it is in: the sums over a subset are
    ``s^T K s`` with its indicator s. No more than `MAX_PAIRS` values are held.

    Args:
        samples: (M, D) float64.
        reference: (N, D) float64.
        in_sample: (S, M) float64, one where a sample is in a subset, else zero; each row has the same number k of ones.
        in_reference: (S, N), likewise.

    Returns:
        (S,) float64.
    """
    size = in_sample[0].sum()
    within = [
        _kernel_sums(points, points, chosen, chosen) - chosen @ _kernel(points.square().sum(1), points.shape[1])
        for points, chosen in ((samples, in_sample), (reference, in_reference))
    ]
    between = _kernel_sums(samples, reference, in_sample, in_reference)
    return (within[0] + within[1]) / (size * (size - 1)) - 2 * between / size**2


def _kernel(products: Tensor, dimensions: int) -> Tensor:
    return (products / dimensions + 1) ** 3


def _kernel_sums(points: Tensor, others: Tensor, chosen: Tensor, chosen_others: Tensor) -> Tensor:
    rows = max(1, MAX_PAIRS // len(others))
    total = torch.zeros(len(chosen), dtype=points.dtype, device=points.device)
    for block, weights in zip(points.split(rows), chosen.split(rows, 1), strict=True):
        total += ((weights @ _kernel(block @ others.T, points.shape[1])) * chosen_others).sum(1)
    return total


@score_metrics.register("sliced_distance")
class SlicedDistance(DistributionDistance):
    """Sliced 2-Wasserstein distance: root of the mean over directions of the squared distance on that line.

    Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures", definition 3; directions are uniform
    on the sphere and the same for all models. On a line the squared distance is the mean squared difference of the
    quantile functions. It takes time linear in the samples where a kernel takes it quadratic.

    Args:
        extractor: of the features.
        num_samples: samples that will be drawn.
        reference: must have ``features``.
        reservoir: the samples' features.
        directions: how many.
    """

    prefix = "sliced"

    def __init__(
        self,
        extractor: FeatureExtractor,
        num_samples: int,
        reference: Reference | None,
        reservoir: FeatureReservoir,
        directions: int = 512,
    ) -> None:
        super().__init__(extractor, num_samples, reference, reservoir)
        if directions < 1:
            raise UserError("sliced_distance needs at least 1 direction: set directions")
        self.directions = directions

    def settings(self) -> dict[str, Any]:
        """The number of directions."""
        return {**super().settings(), "directions": self.directions}

    def of(self, samples: Tensor, reference: Tensor) -> ScoreValue:
        """The distance."""
        rng = make_rng("sliced distance", samples.shape[1])
        directions = torch.randn(self.directions, samples.shape[1], dtype=torch.float64, generator=rng)
        directions = torch.nn.functional.normalize(directions).to(samples.device)
        squares = [line_distance(samples.double() @ d, reference.double() @ d) for d in directions]
        return ScoreValue(float(torch.stack(squares).mean().sqrt()))


def line_distance(points: Tensor, others: Tensor) -> Tensor:
    """Squared 2-Wasserstein distance of points (M,) and (N,) on a line, exact: both quantile functions are steps."""
    one, two = points.sort().values, others.sort().values
    # Every step of either function ends at a multiple of 1 / (M N); whole numbers keep equal ends equal.
    m, n = len(one), len(two)
    ends = torch.cat([torch.arange(1, m + 1) * n, torch.arange(1, n + 1) * m]).unique().to(points.device)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    difference = one[starts // n] - two[starts // m]
    return ((ends - starts) * difference.square()).sum() / (m * n)
