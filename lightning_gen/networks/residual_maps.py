"""Images to maps of latents and back by residual blocks with group norm (Esser et al. 2021; Rombach et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.attention import SelfAttention2d
from lightning_gen.networks.encoders import check_halvings

GROUPS = 32
"""Of every group norm at most; fewer where a group would have less than four channels."""


class NormalizedBlock(nn.Module):
    """Group norm, SiLU, 3x3, group norm, SiLU, 3x3, plus the input, through a 1x1 convolution where the width changes.

    Args:
        channels_in: of the input.
        channels_out: of the output.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_normalized(channels_in),
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            *_normalized(channels_out),
            nn.Conv2d(channels_out, channels_out, 3, padding=1),
        )
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, channels_out, H, W) of maps (N, channels_in, H, W)."""
        return self.shortcut(maps) + self.layers(maps)


class Upsample(nn.Module):
    """Nearest-neighbor upsampling by 2 and a 3x3 convolution.

    Args:
        channels: of the input and the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, 2H, 2W) of maps (N, C, H, W)."""
        return self.convolution(F.interpolate(maps, scale_factor=2, mode="nearest"))


class ResidualMapEncoder(nn.Module):
    """Images to maps: 3x3, blocks at every size with 3x3 of stride 2 between, two blocks around self-attention, 3x3.

    Esser et al. 2021, "Taming transformers for high-resolution image synthesis", table 7.

    Args:
        image_shape: (C, H, W), H and W multiples of 2 to the number of halvings, one less than the multipliers.
        num_outputs: channels of the maps.
        channels: width at the image's size.
        multipliers: of the width at every size, from the image's own.
        blocks: at every size.
        attention: whether the smallest maps have self-attention.

    Raises:
        UserError: a size that cannot be halved so often, or no multipliers.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_outputs: int,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 2,
        attention: bool = True,
    ) -> None:
        super().__init__()
        widths = _widths(image_shape, channels, multipliers, "encoder")
        layers: list[nn.Module] = [nn.Conv2d(image_shape[0], widths[0], 3, padding=1)]
        width = widths[0]
        for level, wide in enumerate(widths):
            if level:
                layers.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
            for _ in range(blocks):
                layers.append(NormalizedBlock(width, wide))
                width = wide
        layers += _middle(width, attention)
        self.layers = nn.Sequential(*layers, *_normalized(width), nn.Conv2d(width, num_outputs, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """Maps (N, num_outputs, h, w) of images (N, C, H, W)."""
        return self.layers(images)


class ResidualMapDecoder(nn.Module):
    """The mirror of `ResidualMapEncoder`, with one block more at every size.

    Args:
        image_shape: (C, H, W), see `ResidualMapEncoder`.
        latent_dim: channels of the maps.
        num_outputs: P, parameters of every pixel.
        channels: see `ResidualMapEncoder`.
        multipliers: see `ResidualMapEncoder`, in the same order.
        blocks: at every size, less one.
        attention: see `ResidualMapEncoder`.

    Raises:
        UserError: see `ResidualMapEncoder`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        num_outputs: int,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 2,
        attention: bool = True,
    ) -> None:
        super().__init__()
        widths = _widths(image_shape, channels, multipliers, "decoder")[::-1]
        width = widths[0]
        layers: list[nn.Module] = [nn.Conv2d(latent_dim, width, 3, padding=1), *_middle(width, attention)]
        for level, wide in enumerate(widths):
            if level:
                layers.append(Upsample(width))
            for _ in range(blocks + 1):
                layers.append(NormalizedBlock(width, wide))
                width = wide
        self.layers = nn.Sequential(*layers, *_normalized(width), nn.Conv2d(width, num_outputs, 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        """Parameters (N, P, H, W) of maps (N, latent_dim, h, w)."""
        return self.layers(latents)


def _widths(image_shape: tuple[int, int, int], channels: int, multipliers: Sequence[int], network: str) -> list[int]:
    if len(multipliers) < 2:
        raise UserError(f"model.{network}.multipliers={list(multipliers)} must be at least two: one for every size")
    check_halvings(image_shape, len(multipliers) - 1, network)
    return [channels * multiplier for multiplier in multipliers]


def _middle(width: int, attention: bool) -> list[nn.Module]:
    between = [SelfAttention2d(width)] if attention else []
    return [NormalizedBlock(width, width), *between, NormalizedBlock(width, width)]


def _normalized(channels: int) -> list[nn.Module]:
    return [nn.GroupNorm(math.gcd(GROUPS, channels, max(1, channels // 4)), channels, eps=1e-6), nn.SiLU()]
