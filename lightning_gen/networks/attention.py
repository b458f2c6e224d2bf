"""Self-attention over the positions of a feature map (SAGAN, Zhang et al. 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention2d(nn.Module):
    """``x + gamma o`` with ``o_j = V sum_i softmax_i(query(x_j) . key(x_i)) value(x_i)`` (Zhang et al. 2019, eq. 1-3).

    Queries, keys and values are 1x1 convolutions without bias. As in the paper's code, and not in its text, keys and
    values are max-pooled 2x2 and values have C/2 channels. Plain matrix products, because fused attention cannot be
    differentiated twice, which gradient penalties need.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.query = nn.Conv2d(channels, narrow, 1, bias=False)
        self.key = nn.Conv2d(channels, narrow, 1, bias=False)
        self.value = nn.Conv2d(channels, half, 1, bias=False)
        self.output = nn.Conv2d(half, channels, 1, bias=False)
        # 0, so that training begins with local cues (section 3).
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W) of maps of that shape; H and W are even."""
        queries = self.query(maps).flatten(2)
        keys = F.max_pool2d(self.key(maps), 2).flatten(2)
        values = F.max_pool2d(self.value(maps), 2).flatten(2)
        weights = torch.softmax(queries.transpose(1, 2) @ keys, -1)
        attended = (values @ weights.transpose(1, 2)).unflatten(2, maps.shape[2:])
        return maps + self.gamma * self.output(attended)
