"""Streaming Gaussian statistics of features, of constant size and exact over any number of processes."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
import torchmetrics
from torch import Tensor


class GaussianStatistics:
    """Mean and covariance of n feature vectors of dimension D.

    Args:
        n: number of vectors, at least 2; None where a file does not say.
        mean: (D,) float64.
        covariance: (D, D) float64, unbiased (divided by n - 1).
        factor: what the property `factor` computes, where it is known already.
    """

    def __init__(self, n: int | None, mean: Tensor, covariance: Tensor, factor: Tensor | None = None) -> None:
        self.n = n
        self.mean = mean
        self.covariance = covariance
        if factor is not None:
            self.factor = factor

    @cached_property
    def factor(self) -> Tensor:
        """F (R, D) float64 with ``F.T @ F == covariance`` and R = min(n - 1, D), by the symmetric eigenvalues.

        The rank of a covariance of n vectors is at most n - 1, so the other eigenvalues, which are rounding noise whose
        square roots would not be small, are left out.
        """
        eigenvalues, eigenvectors = torch.linalg.eigh(self.covariance)
        rank = len(eigenvalues) if self.n is None else min(self.n - 1, len(eigenvalues))
        roots = eigenvalues[-rank:].clamp_min(0).sqrt()
        return (eigenvectors[:, -rank:] * roots).T.contiguous()


class FeatureStatistics(torchmetrics.Metric):
    """Number, sum and sum of outer products of features, in float64.

    Its size does not grow with the number of features. Processes may hold different numbers of features, or none.

    Args:
        num_features: D.
        options: of `torchmetrics.Metric`; ``sync_on_compute=False`` keeps `compute` to this process.
    """

    full_state_update = False
    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, num_features: int, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(num_features, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("outer", torch.zeros(num_features, num_features, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """Add features (N, D)."""
        features = features.double()
        self.count += len(features)
        self.total += features.sum(0)
        self.outer.addmm_(features.T, features)

    def compute(self) -> GaussianStatistics:
        """Statistics of the features of all processes, on the CPU.

        Raises:
            ValueError: fewer than two features were added.
        """
        return gaussian_statistics(self.count, self.total.cpu(), self.outer.cpu())


def gaussian_statistics(count: Tensor, total: Tensor, outer: Tensor) -> GaussianStatistics:
    """Statistics from sums.

    Args:
        count: () number of vectors.
        total: (D,) float64, their sum.
        outer: (D, D) float64, the sum of their outer products.

    Raises:
        ValueError: fewer than two vectors.
    """
    n = int(count)
    if n < 2:
        raise ValueError(f"a covariance needs at least two feature vectors, not {n}")
    mean = total / n
    covariance = (outer - torch.outer(total, mean)) / (n - 1)
    return GaussianStatistics(n, mean, (covariance + covariance.T) / 2)
