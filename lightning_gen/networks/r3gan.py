"""Generator and discriminator of R3GAN (Huang et al. 2024, section 4), for any power-of-two resolution from 32.

Normalization-free residual blocks with grouped convolutions inside an inverted bottleneck; resolutions change by
bilinear filters alone. Each network mirrors the other.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lightning_gen.errors import UserError
from lightning_gen.networks.discriminator import Discriminator, LinearHead, ProjectionHead
from lightning_gen.networks.shapes import power_of_two_size

SMALLEST_MAP = 4
"""Height and width of the generator's first and the discriminator's last feature map."""

SLOPE = 0.2
"""Of every leaky ReLU."""


class ResidualBlock(nn.Module):
    """``x + conv1x1(act(group_conv3x3(act(conv1x1(x)))))``, with more channels inside than outside.

    Initialized as in Fixup (Zhang et al. 2019): the last convolution is zero, so that the block starts as the identity;
    the two others have He et al.'s spread times ``num_blocks ** -0.25``, which keeps an update's effect on the output
    independent of the depth (exponent -1 / (2m - 2) for m = 3 convolutions).

    Args:
        channels: C.
        cardinality: groups of the middle convolution.
        expansion: channels inside over channels outside.
        num_blocks: residual blocks of the whole network.
    """

    def __init__(self, channels: int, cardinality: int, expansion: int, num_blocks: int) -> None:
        super().__init__()
        inside = channels * expansion
        self.expand = nn.Conv2d(channels, inside, 1)
        self.spatial = nn.Conv2d(inside, inside, 3, padding=1, groups=cardinality)
        self.contract = nn.Conv2d(inside, channels, 1, bias=False)
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)
        for layer in (self.expand, self.spatial):
            nn.init.kaiming_normal_(layer.weight, SLOPE)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            with torch.no_grad():
                layer.weight *= num_blocks**-0.25
        nn.init.zeros_(self.contract.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W) of maps (N, C, H, W)."""
        inside = self.activation(self.spatial(self.activation(self.expand(maps))))
        return maps + self.contract(inside)


class Resample(nn.Module):
    """Maps of twice or half the size by bilinear interpolation, along one axis after the other.

    The filter is [1, 3, 3, 1], a [1, 2, 1] blur of doubled or of averaged pixels; beyond the border maps are zero. Sums
    of slices are several times faster in second derivatives than a convolution of as many groups as channels, and
    deterministic on every device, unlike `torch.nn.functional.interpolate`.

    Args:
        up: twice the size, else half of it.
    """

    def __init__(self, up: bool) -> None:
        super().__init__()
        self.up = up

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, 2H, 2W) or (N, C, H/2, W/2) of maps (N, C, H, W)."""
        function = _double if self.up else _halve
        return function(function(maps, 2), 3)


def _double(maps: Tensor, axis: int) -> Tensor:
    size = maps.shape[axis]
    padded = _pad_by_one(maps, axis)
    before, after = padded.narrow(axis, 0, size), padded.narrow(axis, 2, size)
    return torch.stack([0.75 * maps + 0.25 * before, 0.75 * maps + 0.25 * after], axis + 1).flatten(axis, axis + 1)


def _halve(maps: Tensor, axis: int) -> Tensor:
    pairs = _pad_by_one(maps, axis).unflatten(axis, (-1, 2))
    size = pairs.shape[axis] - 1
    (outer_left, left), (right, outer_right) = (pairs.narrow(axis, start, size).unbind(axis + 1) for start in (0, 1))
    return 0.375 * (left + right) + 0.125 * (outer_left + outer_right)


def _pad_by_one(maps: Tensor, axis: int) -> Tensor:
    return pad(maps, (0, 0, 1, 1) if axis == 2 else (1, 1))


class R3GANGenerator(nn.Module):
    """Latents to images: a learned 4x4 basis that the latents weigh, then stages of residual blocks.

    The output is linear, as in the paper, so images reach beyond [-1, 1] until training keeps them in.

    Args:
        image_shape: (C, S, S) of the images, S a power of two, at least 32.
        latent_dim: D of the latents.
        num_classes: K for a generator that takes labels, of which an embedding of D numbers joins the latents; or None.
        width: channels at 4x4 to 32x32 pixels; half as many at each larger resolution.
        cardinality: groups of a block's middle convolution at 4x4 to 32x32 pixels; half as many at each larger one.
        expansion: channels inside a block over those outside.
        blocks_per_stage: residual blocks at each resolution.

    Raises:
        UserError: an image shape that the architecture cannot make, or channels that the groups do not divide.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        num_classes: int | None = None,
        width: int = 768,
        cardinality: int = 96,
        expansion: int = 2,
        blocks_per_stage: int = 2,
    ) -> None:
        super().__init__()
        channels, size = power_of_two_size(image_shape, "R3GAN")
        stages = _stages("generator", size, width, cardinality, expansion)
        num_blocks = len(stages) * blocks_per_stage
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, latent_dim)
        num_inputs = latent_dim if num_classes is None else 2 * latent_dim
        self.basis = nn.Parameter(torch.randn(width, SMALLEST_MAP, SMALLEST_MAP))
        self.modulation = nn.Linear(num_inputs, width, bias=False)
        layers: list[nn.Module] = []
        previous = width
        for position, (stage_width, groups) in enumerate(stages):
            layers += [Resample(up=True)] if position else []
            layers += [_linear_convolution(previous, stage_width)] if stage_width != previous else []
            layers += [ResidualBlock(stage_width, groups, expansion, num_blocks) for _ in range(blocks_per_stage)]
            previous = stage_width
        layers.append(_linear_convolution(previous, channels))
        self.layers = nn.Sequential(*layers)
        _initialize_linear(self.modulation)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (N, C, S, S), about [-1, 1], from latents (N, latent_dim) and labels (N,) int64 or None."""
        if self.embedding is not None:
            assert labels is not None
            latents = torch.cat([latents, self.embedding(labels)], 1)
        return self.layers(self.basis * self.modulation(latents)[:, :, None, None])


class R3GANDiscriminator(Discriminator):
    """Images to logits: stages of residual blocks, then each 4x4 map weighed by a filter of its own.

    Args:
        image_shape: (C, S, S) of the images, S a power of two, at least 32.
        num_classes: K for a discriminator that takes labels, by projection; or None.
        width: channels at 4x4 to 32x32 pixels; half as many at each larger resolution.
        cardinality: groups of a block's middle convolution at 4x4 to 32x32 pixels; half as many at each larger one.
        expansion: channels inside a block over those outside.
        blocks_per_stage: residual blocks at each resolution.

    Raises:
        UserError: an image shape that the architecture cannot take, or channels that the groups do not divide.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None = None,
        width: int = 768,
        cardinality: int = 96,
        expansion: int = 2,
        blocks_per_stage: int = 2,
    ) -> None:
        super().__init__(num_classes)
        channels, size = power_of_two_size(image_shape, "R3GAN")
        stages = _stages("discriminator", size, width, cardinality, expansion)[::-1]
        num_blocks = len(stages) * blocks_per_stage
        blocks: list[nn.Module] = []
        entry: list[nn.Module] = [_linear_convolution(channels, stages[0][0])]
        for (stage_width, groups), (next_width, _) in pairwise([*stages, stages[-1]]):
            residuals = [ResidualBlock(stage_width, groups, expansion, num_blocks) for _ in range(blocks_per_stage)]
            blocks.append(nn.Sequential(*entry, *residuals))
            entry = [Resample(up=False)]
            entry += [_linear_convolution(stage_width, next_width)] if stage_width != next_width else []
        basis = nn.Conv2d(width, width, SMALLEST_MAP, groups=width, bias=False)
        nn.init.kaiming_normal_(basis.weight, nonlinearity="linear")
        self.blocks = nn.Sequential(*blocks, basis)
        # No bias: the relativistic loss, which sees differences of logits alone, would never move it.
        head = LinearHead(width, bias=False) if num_classes is None else ProjectionHead(width, num_classes)
        self.set_head(width, head)
        self.initialize(head)

    def initialize(self, network: nn.Module) -> None:
        """Weights of linear layers and embeddings ~ N(0, 1 / D) for D features, biases 0; others stay as they are."""
        for module in network.modules():
            if isinstance(module, nn.Linear):
                _initialize_linear(module)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, 0.0, module.embedding_dim**-0.5)


def _stages(player: str, size: int, width: int, cardinality: int, expansion: int) -> list[tuple[int, int]]:
    """Channels and groups of each resolution, from the smallest map up."""
    stages = []
    for level in range(int(math.log2(size // SMALLEST_MAP)) + 1):
        halvings = max(0, level - 3)
        stages.append((width >> halvings, max(1, cardinality >> halvings)))
    if any(channels < 1 or channels * expansion % groups for channels, groups in stages):
        raise UserError(
            f"model.{player}.cardinality={cardinality} must divide width * expansion = {width * expansion}, "
            "also where both are halved for resolutions above 32"
        )
    return stages


def _linear_convolution(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 1x1 convolution that no activation follows."""
    layer = nn.Conv2d(channels_in, channels_out, 1, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    return layer


def _initialize_linear(layer: nn.Linear) -> None:
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
