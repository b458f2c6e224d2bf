"""Generator and discriminator of ACGAN (Odena et al. 2017, appendix A, CIFAR-10), for any power of two from 32."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.discriminator import Discriminator, LinearHead

SMALLEST_MAP = 4
"""Height and width of the generator's first feature map."""


class ACGANGenerator(nn.Module):
    """Latents and labels to images: a linear layer, then transposed convolutions of 5x5 that double the size.

    Labels enter as one-hot vectors beside the latents. ReLU everywhere, batch norm in all layers but the first and the
    last, tanh at the output. The widths 384, 192 and 96 are the paper's for 32 pixels; more pixels have wider layers in
    front.

    Args:
        image_shape: (C, H, W) of the images, H = W a power of two, at least 32.
        latent_dim: D of the latents.
        num_classes: K of the labels, or None for a generator without labels.
        base_channels: width of the last hidden layer.

    Raises:
        UserError: an image shape that the architecture cannot make.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        num_classes: int | None = None,
        base_channels: int = 96,
    ) -> None:
        super().__init__()
        channels, size, _ = _check_shape(image_shape)
        self.num_classes = num_classes
        doublings = int(math.log2(size // SMALLEST_MAP))
        widths = [base_channels * 2**level for level in reversed(range(doublings))]
        layers: list[nn.Module] = [
            nn.Linear(latent_dim + (num_classes or 0), widths[0] * SMALLEST_MAP**2),
            nn.ReLU(inplace=True),
            nn.Unflatten(1, (widths[0], SMALLEST_MAP, SMALLEST_MAP)),
        ]
        for width_in, width_out in pairwise(widths):
            layers += [_doubling(width_in, width_out), nn.BatchNorm2d(width_out), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, _doubling(widths[-1], channels), nn.Tanh())
        _initialize(self)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] from latents (N, latent_dim) and labels (N,) int64."""
        if self.num_classes is not None:
            assert labels is not None
            latents = torch.cat([latents, F.one_hot(labels, self.num_classes).to(latents.dtype)], 1)
        return self.layers(latents)


class ACGANDiscriminator(Discriminator):
    """Images to logits: six convolutions of 3x3, every other one halving the size; labels never enter.

    LeakyReLU 0.2 and dropout everywhere, batch norm in all layers but the first.

    Args:
        image_shape: (C, H, W) of the images, H = W a power of two, at least 32.
        base_channels: width of the first layer; the others double it.
        dropout: probability with which a feature is dropped.

    Raises:
        UserError: an image shape that the architecture cannot take.
    """

    def __init__(self, image_shape: tuple[int, int, int], base_channels: int = 16, dropout: float = 0.5) -> None:
        super().__init__()
        channels, size, _ = _check_shape(image_shape)
        widths = [channels] + [base_channels * 2**level for level in range(6)]
        blocks = []
        for index, (width_in, width_out) in enumerate(pairwise(widths)):
            norms = [nn.BatchNorm2d(width_out)] if index else []
            convolution = nn.Conv2d(width_in, width_out, 3, stride=1 if index % 2 else 2, padding=1)
            blocks.append(nn.Sequential(convolution, *norms, nn.LeakyReLU(0.2, inplace=True), nn.Dropout(dropout)))
        self.blocks = nn.Sequential(*blocks)
        num_features = widths[-1] * (size // 8) ** 2
        self.set_head(num_features, LinearHead(num_features))
        self.initialize(self)

    def initialize(self, network: nn.Module) -> None:
        """Weights ~ N(0, 0.02), biases 0."""
        _initialize(network)


def _doubling(width_in: int, width_out: int) -> nn.Module:
    return nn.ConvTranspose2d(width_in, width_out, 5, stride=2, padding=2, output_padding=1)


def _initialize(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _check_shape(image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    channels, height, width = image_shape
    if height != width or height < 32 or height & (height - 1):
        raise UserError(
            f"ACGAN makes square images of a power-of-two size from 32, not {height}x{width}: set data.image_size"
        )
    return channels, height, width
