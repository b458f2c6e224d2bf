"""Residual blocks of GANs, and the generator and discriminator that are stacks of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.attention import SelfAttention2d
from lightning_gen.networks.discriminator import Discriminator, LinearHead, ProjectionHead

BOTTOM_SIZE = 4
"""Height and width of a generator's first feature map."""

Norm = Callable[[int], nn.Module]
"""Number of channels -> a layer that normalizes maps with so many."""

Pooling = Literal["sum", "mean"]


class Stages(NamedTuple):
    """A discriminator's blocks.

    Attributes:
        widths: channels of each block's output.
        downsamplings: how many of the blocks, from the first, halve height and width.
    """

    widths: tuple[int, ...]
    downsamplings: int


class GeneratorBlock(nn.Module):
    """Norm, ReLU, nearest-neighbor upsampling by 2, 3x3, norm, ReLU, 3x3, plus a 1x1 shortcut of the upsampled input.

    Source: Gulrajani et al. 2017, appendix F; Miyato et al. 2018, figure 9.

    Args:
        channels_in: of the input.
        channels_out: of the output.
        norm: makes the normalization layers.
        attention: whether self-attention follows.
    """

    def __init__(self, channels_in: int, channels_out: int, norm: Norm, attention: bool = False) -> None:
        super().__init__()
        self.norm1 = norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1)
        self.attention = SelfAttention2d(channels_out) if attention else nn.Identity()

    def forward(self, maps: Tensor, condition: Tensor | None = None) -> Tensor:
        """Maps (N, C', 2H, 2W) of maps (N, C, H, W) and what the norms depend on, if anything."""
        residual = F.relu(_normalize(self.norm1, maps, condition))
        residual = self.conv1(_upsample(residual))
        residual = self.conv2(F.relu(_normalize(self.norm2, residual, condition)))
        # A 1x1 convolution and nearest-neighbor upsampling commute; this order has a quarter of the work.
        return self.attention(residual + _upsample(self.shortcut(maps)))


class DiscriminatorBlock(nn.Module):
    """Norm, ReLU, 3x3, norm, ReLU, 3x3, mean pooling by 2, plus a shortcut of the pooled input.

    The shortcut has a 1x1 convolution where size or width change. Source: Gulrajani et al. 2017, appendix F; Miyato et
    al. 2018, figure 9.

    Args:
        channels_in: of the input.
        channels_out: of the output.
        norm: makes the normalization layers.
        downsample: whether height and width are halved.
        first: for the block that takes images: no norms, and no ReLU on its input.
        wide: whether the 3x3 convolutions meet at ``channels_out`` (SAGAN, BigGAN) instead of ``channels_in``.
        attention: whether self-attention follows.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        norm: Norm,
        downsample: bool = True,
        first: bool = False,
        wide: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.downsample = downsample
        self.first = first
        hidden = channels_out if wide or first else channels_in
        self.norm1 = nn.Identity() if first else norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, hidden, 3, padding=1)
        self.norm2 = nn.Identity() if first else norm(hidden)
        self.conv2 = nn.Conv2d(hidden, channels_out, 3, padding=1)
        changes = downsample or channels_in != channels_out
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1) if changes else nn.Identity()
        self.attention = SelfAttention2d(channels_out) if attention else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C', H, W), or half that size, of maps (N, C, H, W)."""
        residual = maps if self.first else F.relu(self.norm1(maps))
        residual = self.conv2(F.relu(self.norm2(self.conv1(residual))))
        if self.downsample:
            # A 1x1 convolution and mean pooling commute; pooling first has a quarter of the work.
            residual, maps = F.avg_pool2d(residual, 2), F.avg_pool2d(maps, 2)
        return self.attention(residual + self.shortcut(maps))


class ResidualGenerator(nn.Module):
    """Vectors to images: a linear layer to 4x4 maps, blocks that double the size, batch norm, ReLU, 3x3, tanh.

    Args:
        image_shape: (C, H, W) of the images.
        input_dim: D of the vectors that the linear layer takes.
        widths: channels of the 4x4 maps and of each block's output.
        norm: makes the blocks' normalization layers.
        output_norm: makes the last one.
        attention_resolution: size of the feature map that is followed by self-attention, or None.

    Raises:
        UserError: no feature map has the attention's resolution.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        input_dim: int,
        widths: Sequence[int],
        norm: Norm,
        output_norm: Norm,
        attention_resolution: int | None = None,
    ) -> None:
        super().__init__()
        sizes = [BOTTOM_SIZE * 2**level for level in range(1, len(widths))]
        attended = attention_place(sizes, attention_resolution, "generator")
        self.dense = nn.Linear(input_dim, widths[0] * BOTTOM_SIZE**2)
        self.blocks = nn.ModuleList(
            GeneratorBlock(*pair, norm, attention=place == attended) for place, pair in enumerate(pairwise(widths))
        )
        self.output_norm = output_norm(widths[-1])
        self.output = nn.Conv2d(widths[-1], image_shape[0], 3, padding=1)

    def make_images(self, vectors: Tensor, conditions: Sequence[Tensor | None]) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of vectors (N, D), and of what each block's norms depend on."""
        maps = self.dense(vectors).unflatten(1, (-1, BOTTOM_SIZE, BOTTOM_SIZE))
        for block, condition in zip(self.blocks, conditions, strict=True):
            maps = block(maps, condition)
        return torch.tanh(self.output(F.relu(self.output_norm(maps))))


class ResidualDiscriminator(Discriminator):
    """Images to logits by residual blocks, ReLU and a sum or mean over all positions.

    With classes the head is a projection (Miyato and Koyama 2018), else linear.

    Args:
        image_shape: (C, H, W) of the images.
        stages: the blocks' widths and how many of them downsample.
        num_classes: K, or None for a discriminator without labels.
        norm: makes the normalization layers of all blocks but the first.
        pooling: how the last map becomes features.
        wide: see `DiscriminatorBlock`.
        attention_resolution: size of the feature map that is followed by self-attention, or None; where several blocks
            have maps of that size, the first of them.

    Raises:
        UserError: no feature map has the attention's resolution, or an unknown pooling.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        stages: Stages,
        num_classes: int | None = None,
        norm: Norm = nn.Identity,
        pooling: Pooling = "sum",
        wide: bool = False,
        attention_resolution: int | None = None,
    ) -> None:
        super().__init__(num_classes)
        if pooling not in ("sum", "mean"):
            raise UserError(f"model.discriminator.pooling must be sum or mean, not {pooling!r}")
        self.pooling = pooling
        channels, size, _ = image_shape
        widths, downsamplings = stages
        sizes = [size // 2 ** min(number, downsamplings) for number in range(1, len(widths) + 1)]
        attended = attention_place(sizes, attention_resolution, "discriminator")
        self.blocks = nn.Sequential(
            *(
                DiscriminatorBlock(
                    *pair,
                    norm,
                    downsample=place < downsamplings,
                    first=place == 0,
                    wide=wide,
                    attention=place == attended,
                )
                for place, pair in enumerate(pairwise((channels, *widths)))
            )
        )
        head = LinearHead(widths[-1]) if num_classes is None else ProjectionHead(widths[-1], num_classes)
        self.set_head(widths[-1], head)

    def pool(self, maps: Tensor) -> Tensor:
        """Sum or mean (N, D) of the last block's rectified output over all positions."""
        maps = F.relu(maps)
        return maps.sum((2, 3)) if self.pooling == "sum" else maps.mean((2, 3))


def attention_place(sizes: Sequence[int], resolution: int | None, network: str) -> int | None:
    """Number of the first block whose output has the size ``resolution``; None for no resolution.

    Raises:
        UserError: no block has.
    """
    if resolution is None:
        return None
    if resolution not in sizes:
        known = ", ".join(str(size) for size in sorted(set(sizes)))
        raise UserError(f"model.{network}.attention_resolution must be null or one of {known}, not {resolution}")
    return sizes.index(resolution)


def check_size(image_shape: tuple[int, int, int], sizes: Sequence[int], network: str) -> int:
    """The size of square images, if it is one of ``sizes``.

    Raises:
        UserError: it is not.
    """
    _, height, width = image_shape
    if height != width or height not in sizes:
        known = ", ".join(str(size) for size in sizes)
        raise UserError(f"{network} is for square images of size {known}, not {height}x{width}: set data.image_size")
    return height


def _normalize(norm: nn.Module, maps: Tensor, condition: Tensor | None) -> Tensor:
    return norm(maps) if condition is None else norm(maps, condition)


def _upsample(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2, mode="nearest")
