"""Residual generator and discriminator of WGAN-GP (Gulrajani et al. 2017) and SNGAN (Miyato et al. 2018)."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.conditional_norm import ConditionalBatchNorm2d
from lightning_gen.networks.residual import (
    DiscriminatorBlock,
    GeneratorBlock,
    Norm,
    Pooling,
    ResidualDiscriminator,
    ResidualGenerator,
    Stages,
    check_size,
)

# Widths in units of base_channels, by image size: the tables of Miyato et al. 2018, appendix B.4, for 32 (CIFAR-10) and
# 128 (ImageNet), and those of its code for 64.
GENERATOR_WIDTHS = {32: (1, 1, 1, 1), 64: (16, 8, 4, 2, 1), 128: (16, 16, 8, 4, 2, 1)}
GENERATOR_BASE = {32: 256, 64: 64, 128: 64}
DISCRIMINATOR_STAGES = {
    32: Stages((1, 1, 1, 1), downsamplings=2),
    64: Stages((1, 2, 4, 8, 16), downsamplings=5),
    128: Stages((1, 2, 4, 8, 16, 16), downsamplings=5),
}
DISCRIMINATOR_BASE = {32: 128, 64: 64, 128: 64}


class ResNetGenerator(ResidualGenerator):
    """Latents to images by residual blocks (Miyato et al. 2018, appendix B.4; SAGAN's with attention).

    With classes, the blocks' batch norms are conditional (Miyato and Koyama 2018, section 4).

    Args:
        image_shape: (C, H, W) of the images, H = W = 32, 64 or 128.
        latent_dim: D of the latents.
        num_classes: K, or None for a generator without labels.
        base_channels: width of the last hidden layer; the others are multiples of it. None for the paper's: 256 at 32
            pixels, where all layers have the same width, and 64 at other sizes.
        norm: ``batch``, or ``none``.
        attention_resolution: size of the feature map that is followed by self-attention (8, 16, ... to the images'), or
            None.

    Raises:
        UserError: an image shape that the architecture cannot make, no feature map of the attention's resolution, an
            unknown norm, or classes without norm.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        num_classes: int | None = None,
        base_channels: int | None = None,
        norm: Literal["batch", "none"] = "batch",
        attention_resolution: int | None = None,
    ) -> None:
        size = check_size(image_shape, tuple(GENERATOR_WIDTHS), "ResNetGenerator")
        base = base_channels or GENERATOR_BASE[size]
        norms: dict[str, Norm] = {"batch": nn.BatchNorm2d, "none": nn.Identity}
        if norm not in norms:
            raise UserError(f"model.generator.norm must be batch or none, not {norm!r}")
        if num_classes is not None and norm == "none":
            raise UserError("Classes enter the generator through its norms: set model.generator.norm=batch")
        block_norm = norms[norm]
        if num_classes is not None:
            block_norm = partial(ConditionalBatchNorm2d, num_classes=num_classes)
        widths = [base * factor for factor in GENERATOR_WIDTHS[size]]
        super().__init__(image_shape, latent_dim, widths, block_norm, norms[norm], attention_resolution)
        self.num_classes = num_classes
        initialize_glorot(self)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] from latents (N, latent_dim) and, with classes, labels (N,) int64."""
        assert (labels is None) == (self.num_classes is None)
        return self.make_images(latents, [labels] * len(self.blocks))


class ResNetDiscriminator(ResidualDiscriminator):
    """Images to logits by residual blocks (Miyato et al. 2018, appendix B.4; SAGAN's with attention).

    ``base_channels=128, pooling="mean"`` at 32 pixels is the critic of Gulrajani et al. 2017, appendix F.

    Args:
        image_shape: (C, H, W) of the images, H = W = 32, 64 or 128.
        num_classes: K for a projection discriminator (Miyato and Koyama 2018), or None.
        base_channels: width of the first block; the others are multiples of it. None for the paper's: 128 at 32
            pixels, where all blocks have the same width, and 64 at other sizes.
        norm: ``none``; ``layer``, over all of a sample's channels and positions; or ``batch``.
        pooling: ``sum`` (SNGAN) or ``mean`` (WGAN-GP) over the positions of the last feature map.
        wide: whether a block widens at its first convolution (SAGAN) instead of the second.
        attention_resolution: size of the feature map that is followed by self-attention, or None.

    Raises:
        UserError: an image shape that the architecture cannot take, no feature map of the attention's resolution, or an
            unknown norm or pooling.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None = None,
        base_channels: int | None = None,
        norm: Literal["none", "layer", "batch"] = "none",
        pooling: Pooling = "sum",
        wide: bool = False,
        attention_resolution: int | None = None,
    ) -> None:
        size = check_size(image_shape, tuple(DISCRIMINATOR_STAGES), "ResNetDiscriminator")
        base = base_channels or DISCRIMINATOR_BASE[size]
        # One gain and bias for each channel, as in WGAN-GP's code: group norm with a single group.
        norms: dict[str, Norm] = {"none": nn.Identity, "layer": partial(nn.GroupNorm, 1), "batch": nn.BatchNorm2d}
        if norm not in norms:
            raise UserError(f"model.discriminator.norm must be none, layer or batch, not {norm!r}")
        widths, downsamplings = DISCRIMINATOR_STAGES[size]
        stages = Stages(tuple(base * factor for factor in widths), downsamplings)
        super().__init__(image_shape, stages, num_classes, norms[norm], pooling, wide, attention_resolution)
        self.initialize(self)

    def initialize(self, network: nn.Module) -> None:
        """See `initialize_glorot`."""
        initialize_glorot(network)


def initialize_glorot(network: nn.Module) -> None:
    """Weights ~ U[-a, a], a = g sqrt(6 / (fan_in + fan_out)), biases 0.

    The gain g is sqrt(2) in the 3x3 convolutions of residual blocks and 1 elsewhere (code of Gulrajani et al. 2017 and
    of Miyato et al. 2018).
    """
    blocks = [block for block in network.modules() if isinstance(block, GeneratorBlock | DiscriminatorBlock)]
    residual = {id(convolution) for block in blocks for convolution in (block.conv1, block.conv2)}
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            nn.init.xavier_uniform_(module.weight, gain=math.sqrt(2) if id(module) in residual else 1.0)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
