"""Batch norm whose gain and bias depend on a class or on a vector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConditionalBatchNorm2d(nn.Module):
    """``gain[y] (x - mean) / std + bias[y]`` with a gain and a bias for each class (Dumoulin et al. 2017, eq. 5).

    Mean and std are those of `torch.nn.BatchNorm2d`, over all classes of the batch together. Gains and biases are
    parameters and no `torch.nn.Embedding`, so that spectral norm or an orthogonal penalty on the layers of a generator
    passes them by, as in SAGAN's code: a table of gains divided by its spectral norm would no longer start at 1.

    Args:
        channels: C.
        num_classes: K.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gains = nn.Parameter(torch.ones(num_classes, channels))
        self.biases = nn.Parameter(torch.zeros(num_classes, channels))

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Maps (N, C, H, W) of maps of that shape and labels (N,) int64."""
        gains = F.embedding(labels, self.gains)[:, :, None, None]
        biases = F.embedding(labels, self.biases)[:, :, None, None]
        return self.norm(maps) * gains + biases


class ProjectedBatchNorm2d(nn.Module):
    """``(1 + V c) (x - mean) / std + W c`` for a vector c for each sample (Brock et al. 2019, appendix B).

    Args:
        channels: C.
        condition_dim: D of the vectors.
    """

    def __init__(self, channels: int, condition_dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Linear(condition_dim, channels, bias=False)
        self.bias = nn.Linear(condition_dim, channels, bias=False)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        """Maps (N, C, H, W) of maps of that shape and vectors (N, D)."""
        gains = 1 + self.gain(condition)[:, :, None, None]
        return self.norm(maps) * gains + self.bias(condition)[:, :, None, None]
