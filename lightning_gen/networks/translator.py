"""What networks of image-to-image translation are: translators, and the discriminators of a domain."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Translator(nn.Module):
    """Images of one domain to images of another, of the same size.

    Attributes:
        size_multiple: height and width may be any multiples of this.
        smallest_batch: fewest images that it can be trained on at once.
    """

    size_multiple: int
    smallest_batch = 1

    def draw_noise(self, images: Tensor, *, generator: torch.Generator) -> Tensor | None:
        """What evaluation passes as ``noise`` for images (N, C, H, W); None for a network without noise."""
        del images, generator
        return None

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (N, C', H, W) in [-1, 1] of images (N, C, H, W) in [-1, 1]."""
        raise NotImplementedError


class DomainOutput(NamedTuple):
    """What a discriminator says of N images.

    Attributes:
        logits: (N, 1, h, w), of patches, or of the whole image with h = w = 1; before any sigmoid, higher for real.
        feature_maps: the outputs (N, C', H', W') of its blocks, from the first.
    """

    logits: Tensor
    feature_maps: list[Tensor]


class DomainDiscriminator(nn.Module):
    """Images to logits through blocks and a convolution.

    Attributes:
        blocks: from the image to the last feature map.
        head: from there to the logits.
    """

    blocks: nn.Sequential
    head: nn.Module

    def forward(self, images: Tensor, condition: Tensor | None = None) -> DomainOutput:
        """Logits and feature maps.

        Args:
            images: (N, C, H, W) in [-1, 1].
            condition: (N, C', H, W) in [-1, 1], what the images were translated from, for a discriminator that was made
                for the channels of both; None for one that sees the images alone.
        """
        maps = [images if condition is None else torch.cat([condition, images], 1)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return DomainOutput(self.head(maps[-1]), maps[1:])
