"""Latents to the parameters of a law of pixels: fully connected, convolutional, residual.

A decoder takes ``image_shape`` (C, H, W), ``latent_dim``, ``num_outputs`` (parameters of every pixel) and
``num_classes`` (None without labels), which the model hands in. Its outputs are unbounded: the law says what they mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from lightning_gen.networks.encoders import (
    Activation,
    PlainResidualBlock,
    check_halvings,
    map_sizes,
    norm_layer,
    perceptron,
)
from lightning_gen.networks.labels import concatenate_labels
from lightning_gen.networks.residual import GeneratorBlock


class MLPDecoder(nn.Module):
    """Fully connected layers, with one activation between them.

    Args:
        image_shape: (C, H, W).
        latent_dim: D.
        num_outputs: P, parameters of every pixel.
        num_classes: K for a decoder that takes labels, or None.
        hidden: widths of the hidden layers.
        activation: see `lightning_gen.networks.encoders.MLPEncoder`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        num_outputs: int,
        num_classes: int | None = None,
        hidden: Sequence[int] = (500,),
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.shape = (num_outputs, *image_shape[1:])
        self.layers = perceptron([latent_dim + (num_classes or 0), *hidden, math.prod(self.shape)], activation)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters (N, P, H, W) of latents (N, D) and labels (N,) int64 or None."""
        return self.layers(concatenate_labels(latents, labels, self.num_classes)).unflatten(1, self.shape)


class ConvDecoder(nn.Module):
    """The mirror of `lightning_gen.networks.encoders.ConvEncoder`: two linear layers, then 4x4 transposed convolutions.

    Args:
        image_shape: (C, H, W), H and W even and at least 8.
        latent_dim: D.
        num_outputs: P, parameters of every pixel.
        num_classes: K for a decoder that takes labels, or None.
        base_channels: width at half the image's size, which doubles as the size halves.
        hidden: width of the fully connected layer.
        norm: ``batch`` after every transposed convolution but the last, or ``none``.

    Raises:
        UserError: images too small, or an unknown norm.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        num_outputs: int,
        num_classes: int | None = None,
        base_channels: int = 32,
        hidden: int = 256,
        norm: Literal["batch", "none"] = "none",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        make_norm = norm_layer(norm, "decoder")
        maps = map_sizes(image_shape, "ConvDecoder")
        widths = [base_channels * 2**level for level in reversed(range(len(maps) - 1))]
        layers: list[nn.Module] = [
            nn.Linear(latent_dim + (num_classes or 0), hidden),
            nn.ReLU(),
            nn.Linear(hidden, widths[0] * math.prod(maps[-1])),
            nn.ReLU(),
            nn.Unflatten(1, (widths[0], *maps[-1])),
        ]
        for width_in, width_out in pairwise(widths):
            up = nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1)
            layers += [up, make_norm(width_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], num_outputs, 4, stride=2, padding=1))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters (N, P, H, W) of latents (N, D) and labels (N,) int64 or None."""
        return self.layers(concatenate_labels(latents, labels, self.num_classes))


class ResNetDecoder(nn.Module):
    """A linear layer, residual blocks (`lightning_gen.networks.residual.GeneratorBlock`) that double the size, 3x3.

    Args:
        image_shape: (C, H, W), H and W even and at least 8.
        latent_dim: D.
        num_outputs: P, parameters of every pixel.
        num_classes: K for a decoder that takes labels, or None.
        base_channels: width of the last block, which doubles as the size halves.
        norm: ``batch`` or ``none``.

    Raises:
        UserError: images too small, or an unknown norm.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        num_outputs: int,
        num_classes: int | None = None,
        base_channels: int = 32,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        make_norm = norm_layer(norm, "decoder")
        maps = map_sizes(image_shape, "ResNetDecoder")
        widths = [base_channels * 2**level for level in reversed(range(len(maps) - 1))]
        bottom = (widths[0], *maps[-1])
        self.layers = nn.Sequential(
            nn.Linear(latent_dim + (num_classes or 0), math.prod(bottom)),
            nn.Unflatten(1, bottom),
            *(GeneratorBlock(*pair, make_norm) for pair in pairwise([widths[0], *widths])),
            make_norm(widths[-1]),
            nn.ReLU(),
            nn.Conv2d(widths[-1], num_outputs, 3, padding=1),
        )

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters (N, P, H, W) of latents (N, D) and labels (N,) int64 or None."""
        return self.layers(concatenate_labels(latents, labels, self.num_classes))


class MapDecoder(nn.Module):
    """The mirror of `lightning_gen.networks.encoders.MapEncoder`.

    Args:
        image_shape: (C, H, W), H and W multiples of ``2 ** halvings``.
        latent_dim: D of the vectors.
        num_outputs: P, parameters of every pixel.
        channels: width of all layers.
        residual_channels: width within the residual blocks.
        halvings: how often the size is doubled.

    Raises:
        UserError: a size that cannot be halved so often.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        num_outputs: int,
        channels: int = 128,
        residual_channels: int = 32,
        halvings: int = 2,
    ) -> None:
        super().__init__()
        check_halvings(image_shape, halvings, "decoder")
        layers: list[nn.Module] = [nn.Conv2d(latent_dim, channels, 3, padding=1)]
        layers += [PlainResidualBlock(channels, residual_channels) for _ in range(2)]
        layers += [nn.ReLU()]
        for _ in range(halvings - 1):
            layers += [nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(channels, num_outputs, 4, stride=2, padding=1))

    def forward(self, vectors: Tensor) -> Tensor:
        """Parameters (N, P, H, W) of vectors (N, D, h, w)."""
        return self.layers(vectors)
