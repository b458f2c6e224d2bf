"""Layers of the U-Net of diffusion models (Ho et al. 2020, appendix B).

Layers that the paper initializes to "nearly zero" (scale 1e-10) are initialized to zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.conditions import Embedded

EPS = 1e-6
"""In group norms, as in the paper's code."""


def group_norm(channels: int) -> nn.GroupNorm:
    """With the largest number of groups up to 32 that divides the channels and leaves four to each."""
    groups = next(number for number in range(max(1, min(32, channels // 4)), 0, -1) if channels % number == 0)
    return nn.GroupNorm(groups, channels, EPS)


def silu(maps: Tensor) -> Tensor:
    """SiLU of maps that nothing else uses, in place where no gradient will be asked for."""
    return F.silu(maps, inplace=not torch.is_grad_enabled())


def zeroed(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """The layer with weights and bias 0."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """Twice group norm, SiLU and a 3x3 convolution, with the vectors added in between and dropout before the last.

    Args:
        in_channels: of the maps that come in.
        out_channels: of those that go out; a 1x1 convolution is the shortcut where they differ.
        vector_dim: D of the vectors.
        dropout: probability.
    """

    def __init__(self, in_channels: int, out_channels: int, vector_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.vectors = nn.Linear(vector_dim, out_channels)
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, maps: Tensor, vectors: Tensor) -> Tensor:
        """Maps (N, C', H, W) of maps (N, C, H, W) and vectors (N, D)."""
        # Additions in place spare memory traffic: no gradient needs the output of a convolution.
        found = self.conv1(silu(self.norm1(maps))).add_(self.vectors(vectors)[:, :, None, None])
        return self.conv2(self.dropout(silu(self.norm2(found)))).add_(self.shortcut(maps))


class Attention(nn.Module):
    """Adds what every position takes from all positions of the map, or from tokens (Vaswani et al. 2017).

    Args:
        channels: C of the maps.
        head_channels: C of a head; None for one head.
        token_dim: T of the tokens; None to attend to the map itself.

    Raises:
        UserError: the heads do not divide the channels.
    """

    def __init__(self, channels: int, head_channels: int | None = None, token_dim: int | None = None) -> None:
        super().__init__()
        head_channels = head_channels or channels
        if channels % head_channels:
            raise UserError(f"model.network.head_channels={head_channels} must divide the {channels} channels of a map")
        self.heads = channels // head_channels
        self.norm = group_norm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(token_dim or channels, 2 * channels)
        self.output = nn.Linear(channels, channels)

    def forward(self, maps: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Maps (N, C, H, W) of maps of that shape.

        Args:
            maps: (N, C, H, W).
            tokens: (N, L, T), or (1, L, T) for all, if the layer takes tokens.
            mask: (N, L) bool, true where there is a token.
        """
        number, _, height, _ = maps.shape
        positions = self.norm(maps).flatten(2).transpose(1, 2)
        others = positions if tokens is None else tokens.expand(number, -1, -1)
        key, value = self.key_value(others).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query = self.query(positions).unflatten(2, (self.heads, -1)).transpose(1, 2)
        allowed = None if mask is None else mask[:, None, None].expand(number, -1, -1, -1)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        found = self.output(found.transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, (height, -1))
        return found.add_(maps)


class Stage(nn.Module):
    """A residual block and, where asked, attention to the map and to the tokens of a condition.

    Args:
        in_channels: of the maps that come in.
        out_channels: of those that go out.
        vector_dim: D of the vectors.
        dropout: probability.
        attention: whether the map attends to itself.
        head_channels: see `Attention`.
        token_dim: T of tokens to attend to, after the map; None for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        vector_dim: int,
        dropout: float,
        attention: bool = False,
        head_channels: int | None = None,
        token_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(in_channels, out_channels, vector_dim, dropout)
        self.attention = Attention(out_channels, head_channels) if attention else None
        with_tokens = attention and token_dim is not None
        self.cross_attention = Attention(out_channels, head_channels, token_dim) if with_tokens else None

    def forward(self, maps: Tensor, vectors: Tensor, condition: Embedded | None) -> Tensor:
        """Maps (N, C', H, W) of maps (N, C, H, W), vectors (N, D) and what a condition says."""
        maps = self.block(maps, vectors)
        if self.attention is not None:
            maps = self.attention(maps)
        if self.cross_attention is not None:
            assert condition is not None
            maps = self.cross_attention(maps, condition.tokens, condition.mask)
        return maps


class Downsample(nn.Module):
    """A 3x3 convolution with stride 2; the paper's code pads the right and the lower edge.

    Args:
        channels: of the maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H/2, W/2) of maps (N, C, H, W) of even size."""
        return self.conv(F.pad(maps, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Every value to 2x2 values, then a 3x3 convolution.

    On the CPU both are one transposed convolution whose 4x4 kernel adds up the weights that meet the same value: the
    same numbers but for rounding, with 16 products a value instead of 36.

    Args:
        channels: of the maps.
    """

    folding: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        # Tap (i, j) of the convolution lands on the 2x2 taps from (i, j) of the 4x4 kernel, which is mirrored.
        folding = torch.zeros(3, 3, 4, 4)
        for row in range(3):
            for column in range(3):
                folding[row, column, 2 - row : 4 - row, 2 - column : 4 - column] = 1
        self.register_buffer("folding", folding.view(9, 16), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, 2H, 2W) of maps (N, C, H, W)."""
        if maps.device.type != "cpu":
            return self.conv(F.interpolate(maps, scale_factor=2.0, mode="nearest"))
        kernel = (self.conv.weight.flatten(2) @ self.folding).unflatten(2, (4, 4)).transpose(0, 1)
        return F.conv_transpose2d(maps, kernel, self.conv.bias, stride=2, padding=1)
