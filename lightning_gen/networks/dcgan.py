"""Generator and discriminator of DCGAN (Radford et al. 2016), for any power-of-two resolution from 32.

With classes they are conditional by concatenation (Mirza and Osindero 2014): the one-hot label joins the latents and,
as constant maps, the channels of the image.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.discriminator import Discriminator, LinearHead
from lightning_gen.networks.labels import concatenate_labels
from lightning_gen.networks.shapes import power_of_two_size

SMALLEST_MAP = 4
"""Height and width of the generator's first and the discriminator's last feature map."""


class DCGANGenerator(nn.Module):
    """Latents to images by transposed convolutions alone: no pooling, no hidden fully connected layer.

    Batch norm and ReLU after every layer but the last, tanh at the output (Radford et al. 2016, section 3). The width
    halves as the resolution doubles; the last hidden layer, at half the image size, has ``base_channels``.

    Args:
        image_shape: (C, H, W) of the images, H = W a power of two, at least 32.
        latent_dim: D of the latents.
        base_channels: width of the last hidden layer.
        num_classes: K for a generator that takes labels, or None.

    Raises:
        UserError: an image shape that the architecture cannot make.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        base_channels: int = 64,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        channels, size = power_of_two_size(image_shape, "DCGAN")
        doublings = int(math.log2(size // SMALLEST_MAP))
        widths = [base_channels * 2**level for level in reversed(range(doublings))]
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent_dim + (num_classes or 0), widths[0], SMALLEST_MAP, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        for width_in, width_out in pairwise(widths):
            layers += [
                nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width_out),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        initialize_dcgan(self)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] from latents (N, latent_dim) and labels (N,) int64 or None."""
        return self.layers(concatenate_labels(latents, labels, self.num_classes)[:, :, None, None])


class DCGANDiscriminator(Discriminator):
    """Images to logits by strided convolutions alone; the mirror of `DCGANGenerator`.

    LeakyReLU 0.2 everywhere, batch norm in all layers but the first and the last (Radford et al. 2016, section 3).

    Args:
        image_shape: (C, H, W) of the images, H = W a power of two, at least 32.
        base_channels: width of the first layer.
        norm: ``batch``, or ``none`` with biases instead, for losses that look at single images (gradient penalties).
        num_classes: K for a discriminator that takes labels, or None.

    Raises:
        UserError: an image shape that the architecture cannot take, or an unknown norm.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        base_channels: int = 64,
        norm: Literal["batch", "none"] = "batch",
        num_classes: int | None = None,
    ) -> None:
        super().__init__(num_classes)
        if norm not in ("batch", "none"):
            raise UserError(f"model.discriminator.norm must be batch or none, not {norm!r}")
        channels, size = power_of_two_size(image_shape, "DCGAN")
        halvings = int(math.log2(size // SMALLEST_MAP))
        widths = [base_channels * 2**level for level in range(halvings)]
        first = nn.Conv2d(channels + (num_classes or 0), widths[0], 4, stride=2, padding=1, bias=False)
        blocks = [nn.Sequential(first, nn.LeakyReLU(0.2, inplace=True))]
        for width_in, width_out in pairwise(widths):
            layers: list[nn.Module] = [nn.Conv2d(width_in, width_out, 4, stride=2, padding=1, bias=norm == "none")]
            layers += [nn.BatchNorm2d(width_out)] if norm == "batch" else []
            blocks.append(nn.Sequential(*layers, nn.LeakyReLU(0.2, inplace=True)))
        self.blocks = nn.Sequential(*blocks)
        num_features = widths[-1] * SMALLEST_MAP**2
        self.set_head(num_features, LinearHead(num_features, bias=False))
        self.initialize(self)

    def initialize(self, network: nn.Module) -> None:
        """See `initialize_dcgan`."""
        initialize_dcgan(network)

    def prepare_input(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Images, with K constant maps of the one-hot label as further channels where there are classes."""
        return concatenate_labels(images, labels, self.num_classes)


def initialize_dcgan(network: nn.Module) -> None:
    """Weights ~ N(0, 0.02), batch-norm gains ~ N(1, 0.02), biases 0 (Radford et al. 2016 and its code)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
