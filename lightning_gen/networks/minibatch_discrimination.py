"""Minibatch discrimination (Salimans et al. 2016, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MinibatchDiscrimination(nn.Module):
    """Features with, appended, how close each sample is to the rest of its batch.

    A linear map takes sample i to a matrix M_i of B kernels and C dimensions; kernel b appends ``sum over j != i of
    exp(-|M_ib - M_jb|_1)``. The paper's sum includes j = i, always 1, which its code leaves out as well. Weights ~
    N(0, 1 / D), so that each column of the map has about length 1. In distributed training each rank has its own batch.

    Args:
        num_features: D.
        kernels: B.
        dims: C.

    Attributes:
        reference_size: samples at the beginning of a batch that are a batch of their own (virtual batch norm).
    """

    def __init__(self, num_features: int, kernels: int = 100, dims: int = 5) -> None:
        super().__init__()
        self.dims = dims
        self.reference_size = 0
        self.matrices = nn.Linear(num_features, kernels * dims, bias=False)
        nn.init.normal_(self.matrices.weight, 0.0, num_features**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D + B) of features (N, D)."""
        matrices = self.matrices(features).unflatten(1, (-1, self.dims))
        batches = matrices[: self.reference_size], matrices[self.reference_size :]
        return torch.cat([features, torch.cat([_closeness(batch) for batch in batches if len(batch)])], 1)


def _closeness(matrices: Tensor) -> Tensor:
    distances = (matrices[:, None] - matrices[None]).abs().sum(3)
    # exp(0) = 1 is what a sample adds to its own sum.
    return torch.exp(-distances).sum(1) - 1
