"""PixelCNN (van den Oord et al. 2016, "Pixel recurrent neural networks", arXiv:1601.06759)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.networks.masked import ConvolutionCache, MaskedConv2d, PointwiseCache, spread_groups
from lightning_gen.networks.pixel_network import ClassBias, PixelCache, PixelNetwork


class ResidualBlock(nn.Module):
    """ReLU, 1x1 to half the width, ReLU, masked kernel, ReLU, 1x1 back, plus the input (figure 5, left).

    Args:
        groups_wide: the groups of the 2h features of input and output.
        groups_narrow: those of the h features between them.
        kernel_size: of the middle convolution.
    """

    def __init__(self, groups_wide: Sequence[int], groups_narrow: Sequence[int], kernel_size: int) -> None:
        super().__init__()
        self.shrink = MaskedConv2d(groups_wide, groups_narrow, 1, "B")
        self.middle = MaskedConv2d(groups_narrow, groups_narrow, kernel_size, "B")
        self.grow = MaskedConv2d(groups_narrow, groups_wide, 1, "B")

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, 2h, H, W) of maps of that shape."""
        return maps + self.grow(F.relu(self.middle(F.relu(self.shrink(F.relu(maps))))))


class PixelHead(nn.Module):
    """ReLU, 1x1, ReLU, 1x1 to the parameters (table 1), masked as the rest.

    Args:
        groups_in: the groups of the input's features.
        groups_hidden: those of the features between both convolutions.
        parameter_channels: see `PixelNetwork`.
    """

    def __init__(
        self, groups_in: Sequence[int], groups_hidden: Sequence[int], parameter_channels: Sequence[int]
    ) -> None:
        super().__init__()
        self.hidden = MaskedConv2d(groups_in, groups_hidden, 1, "B")
        self.output = MaskedConv2d(groups_hidden, parameter_channels, 1, "B")

    def forward(self, maps: Tensor) -> Tensor:
        """Parameters (N, P, H, W) of maps (N, C, H, W)."""
        return self.output(F.relu(self.hidden(F.relu(maps))))


class HeadCache:
    """A `PixelHead` on the features of single pixels.

    Args:
        head: whose weights are taken as they are now.
    """

    def __init__(self, head: PixelHead) -> None:
        self.hidden, self.output = PointwiseCache(head.hidden), PointwiseCache(head.output)

    def __call__(self, features: Tensor) -> Tensor:
        """Parameters (N, P) of features (N, C)."""
        return self.output(self.hidden(features.relu()).relu_())


class PixelCNN(PixelNetwork):
    """A masked 7x7 convolution, residual blocks of masked convolutions, and a head (table 1).

    With classes, which the paper does not have, a vector of the label is added after the first layer. The stacked masks
    leave a blind spot to the right above every pixel, which `GatedPixelCNN` has not.

    Args:
        image_shape: (C, H, W) of the images.
        parameter_channels: see `PixelNetwork`.
        num_classes: K for a network that takes labels, or None.
        channels: h; the features between blocks are 2h.
        blocks: how many residual blocks.
        head_channels: features in the head.
        first_kernel_size: odd, of the first layer.
        kernel_size: odd, of the blocks.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        parameter_channels: Sequence[int],
        num_classes: int | None = None,
        channels: int = 128,
        blocks: int = 15,
        head_channels: int = 1024,
        first_kernel_size: int = 7,
        kernel_size: int = 3,
    ) -> None:
        super().__init__(image_shape, parameter_channels, num_classes)
        wide, narrow = spread_groups(2 * channels, self.groups), spread_groups(channels, self.groups)
        hidden = spread_groups(head_channels, self.groups)
        self.first = MaskedConv2d(range(image_shape[0]), wide, first_kernel_size, "A")
        self.class_bias = ClassBias(num_classes, 2 * channels)
        self.blocks = nn.Sequential(*(ResidualBlock(wide, narrow, kernel_size) for _ in range(blocks)))
        self.head = PixelHead(wide, hidden, parameter_channels)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `PixelNetwork.forward`."""
        return self.head(self.blocks(self.class_bias(self.first(images), labels)))

    def cache(self, num_images: int, labels: Tensor | None = None) -> PixelCache:
        """See `PixelNetwork.cache`."""
        return _Cache(self, num_images, labels)


class _Cache(PixelCache):
    def __init__(self, network: PixelCNN, num_images: int, labels: Tensor | None) -> None:
        width = network.image_shape[2]
        self.first = ConvolutionCache(network.first, num_images, width)
        self.class_vectors = network.class_bias.vectors(labels)
        self.blocks = [
            (
                PointwiseCache(block.shrink),
                ConvolutionCache(block.middle, num_images, width),
                PointwiseCache(block.grow),
            )
            for block in network.blocks
            if isinstance(block, ResidualBlock)
        ]
        self.head = HeadCache(network.head)

    def begin_row(self) -> None:
        self.first.begin_row()
        for _, middle, _ in self.blocks:
            middle.begin_row()

    def parameters(self, column: int, pixels: Tensor) -> Tensor:
        features = self.first.step(column, pixels) + self.class_vectors
        for shrink, middle, grow in self.blocks:
            features = features + grow(middle.step(column, shrink(features.relu()).relu_()).relu_())
        return self.head(features)

    def finish(self, column: int, pixels: Tensor) -> None:
        self.first.put(column, pixels)
