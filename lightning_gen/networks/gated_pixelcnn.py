"""Gated PixelCNN (van den Oord et al. 2016b, "Conditional image generation with PixelCNN decoders")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.masked import ConvolutionCache, MaskedConv2d, PointwiseCache, spread_groups
from lightning_gen.networks.pixel_network import ClassBias, PixelCache, PixelNetwork
from lightning_gen.networks.pixelcnn import HeadCache, PixelHead


class RowsAboveConv2d(nn.Conv2d):
    """The convolution of the vertical stack: of rows up to the pixel's own, or to the one above, and all columns.

    Args:
        channels_in: C.
        channels_out: C'.
        kernel_size: odd; what lies below is not there.
        sees_own_row: whether the pixel's own row is seen, as it may be where the inputs are of the rows above it.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel_size: int, sees_own_row: bool) -> None:
        half = kernel_size // 2
        super().__init__(channels_in, channels_out, (half + sees_own_row, kernel_size), padding=half)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C', H, W) of maps (N, C, H, W)."""
        return super().forward(maps)[:, :, : maps.shape[2]]


def gate(features: Tensor, dim: int = 1) -> Tensor:
    """The tanh of the first half of the features times the sigmoid of the second (equation 2)."""
    values, gates = features.chunk(2, dim)
    return torch.tanh(values) * torch.sigmoid(gates)


class GatedLayer(nn.Module):
    """One layer of both stacks (figure 2), each with a vector of the label where there are classes (equation 4).

    The vertical stack at a pixel sees the rows above; the horizontal one sees those through it, and its own row.

    Args:
        channels_in: of the vertical stack's input.
        groups_in: the groups of the horizontal stack's input.
        groups: those of its output; both outputs have as many features.
        kernel_size: odd, at least 3.
        num_classes: K or None.
        first: whether this layer sees the image: no residual connection, and the vertical stack is shifted down a row.
    """

    def __init__(
        self,
        channels_in: int,
        groups_in: Sequence[int],
        groups: Sequence[int],
        kernel_size: int,
        num_classes: int | None,
        first: bool,
    ) -> None:
        super().__init__()
        width = len(groups)
        twice = [*groups, *groups]
        self.first = first
        self.vertical = RowsAboveConv2d(channels_in, 2 * width, kernel_size, sees_own_row=not first)
        self.across = nn.Conv2d(2 * width, 2 * width, 1)
        self.horizontal = MaskedConv2d(groups_in, twice, (1, kernel_size), "A" if first else "B")
        self.output = MaskedConv2d(groups, groups, 1, "B")
        self.vertical_bias, self.horizontal_bias = (ClassBias(num_classes, 2 * width) for _ in range(2))

    def forward(self, vertical: Tensor, horizontal: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both stacks' maps (N, C', H, W) of both stacks' maps (N, C, H, W)."""
        rows_above = self.vertical_bias(self.vertical(vertical), labels)
        both = self.horizontal(horizontal) + self.across(rows_above)
        outputs = self.output(gate(self.horizontal_bias(both, labels)))
        return gate(rows_above), outputs if self.first else horizontal + outputs


class GatedPixelCNN(PixelNetwork):
    """A stack of `GatedLayer` and the head of `PixelCNN`: no blind spot, and labels in every layer.

    Args:
        image_shape: (C, H, W) of the images.
        parameter_channels: see `PixelNetwork`.
        num_classes: K for a network that takes labels, or None.
        channels: features of each stack.
        layers: how many layers, with the first.
        head_channels: features in the head.
        first_kernel_size: odd, at least 3, of the first layer.
        kernel_size: odd, at least 3, of the others.

    Raises:
        UserError: a kernel that sees no row above.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        parameter_channels: Sequence[int],
        num_classes: int | None = None,
        channels: int = 128,
        layers: int = 15,
        head_channels: int = 1024,
        first_kernel_size: int = 7,
        kernel_size: int = 3,
    ) -> None:
        super().__init__(image_shape, parameter_channels, num_classes)
        for size in (first_kernel_size, kernel_size):
            if size < 3 or size % 2 == 0:
                raise UserError(f"model.network: kernel sizes must be odd and at least 3, not {size}")
        groups = spread_groups(channels, self.groups)
        first = GatedLayer(image_shape[0], range(image_shape[0]), groups, first_kernel_size, num_classes, first=True)
        others = [
            GatedLayer(channels, groups, groups, kernel_size, num_classes, first=False) for _ in range(layers - 1)
        ]
        self.layers = nn.ModuleList([first, *others])
        self.head = PixelHead(groups, spread_groups(head_channels, self.groups), parameter_channels)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `PixelNetwork.forward`."""
        vertical = horizontal = images
        for layer in self.layers:
            vertical, horizontal = layer(vertical, horizontal, labels)
        return self.head(horizontal)

    def cache(self, num_images: int, labels: Tensor | None = None) -> PixelCache:
        """See `PixelNetwork.cache`."""
        return _Cache(self, num_images, labels)


class _LayerCache(NamedTuple):
    layer: GatedLayer
    vertical_vectors: Tensor | float
    horizontal_vectors: Tensor | float
    horizontal: ConvolutionCache
    output: PointwiseCache


class _Cache(PixelCache):
    def __init__(self, network: GatedPixelCNN, num_images: int, labels: Tensor | None) -> None:
        width = network.image_shape[2]
        self.layers = [
            _LayerCache(
                layer,
                layer.vertical_bias.vectors(labels),
                layer.horizontal_bias.vectors(labels),
                ConvolutionCache(layer.horizontal, num_images, width),
                PointwiseCache(layer.output),
            )
            for layer in network.layers
            if isinstance(layer, GatedLayer)
        ]
        self.head = HeadCache(network.head)
        # Of every layer's vertical stack, the input rows that its kernel sees: (N, C, rows, W).
        weights = [cache.layer.vertical.weight for cache in self.layers]
        self.seen = [weight.new_zeros(num_images, weight.shape[1], weight.shape[2], width) for weight in weights]

    def begin_row(self) -> None:
        row: Tensor | None = None
        for number, cache in enumerate(self.layers):
            layer, seen = cache.layer, self.seen[number]
            if row is None:  # the image's rows were put in one pixel after another, the latest one last
                inputs = seen
                self.seen[number] = torch.cat([seen[:, :, 1:], torch.zeros_like(seen[:, :, :1])], 2)
            else:
                inputs = self.seen[number] = torch.cat([seen[:, :, 1:], row], 2)
            columns = layer.vertical.padding[1]
            assert isinstance(columns, int)
            rows_above = F.conv2d(inputs, layer.vertical.weight, layer.vertical.bias, padding=(0, columns))
            rows_above = rows_above + _as_maps(cache.vertical_vectors)
            added = layer.across(rows_above)[:, :, 0].permute(2, 0, 1) + cache.horizontal_vectors
            cache.horizontal.begin_row(added)
            row = gate(rows_above)

    def parameters(self, column: int, pixels: Tensor) -> Tensor:
        features = pixels
        for cache in self.layers:
            outputs = cache.output(gate(cache.horizontal.step(column, features)))
            features = outputs if cache.layer.first else features + outputs
        return self.head(features)

    def finish(self, column: int, pixels: Tensor) -> None:
        self.layers[0].horizontal.put(column, pixels)
        self.seen[0][:, :, -1, column] = pixels


def _as_maps(vectors: Tensor | float) -> Tensor | float:
    return vectors if isinstance(vectors, float) else vectors[:, :, None, None]
