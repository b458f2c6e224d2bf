"""Networks that give the law of every pixel from the pixels before it, and how images are drawn from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Draw = Callable[[Tensor], Tensor]
"""Parameters (N, P, 1, 1) of a pixel's law -> pixels (N, C, 1, 1) drawn from it."""


class PixelNetwork(nn.Module, ABC):
    """Images to the parameters of their pixels' laws; a subclass is a network.

    Parameters of channel c at (i, j) depend on the pixels before (i, j), row by row and from left to right, and on the
    channels before c of the pixel itself.

    Args:
        image_shape: (C, H, W) of the images.
        parameter_channels: the channel that each of the P parameters is of; all 0 for a law that takes care of how
            channels depend on one another (see `lightning_gen.losses.pixel_laws.PixelLaw.parameter_channels`).
        num_classes: K for a network that takes labels, or None.

    Attributes:
        groups: how many channels have parameters of their own: a pixel is drawn in so many steps.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], parameter_channels: Sequence[int], num_classes: int | None = None
    ) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.parameter_channels = list(parameter_channels)
        self.num_classes = num_classes
        self.groups = max(parameter_channels) + 1

    @abstractmethod
    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters (N, P, H, W) of images (N, C, H, W) in [-1, 1], of any height, and labels (N,) int64 or None."""

    def cache(self, num_images: int, labels: Tensor | None = None) -> PixelCache | None:
        """What computes the same of one pixel after another, with the weights of now; None if the network has none."""
        del num_images, labels
        return None


class PixelCache(ABC):
    """A network on a batch of images whose pixels become known in raster order."""

    @abstractmethod
    def begin_row(self) -> None:
        """Turn to the next row, the first one at first."""

    @abstractmethod
    def parameters(self, column: int, pixels: Tensor) -> Tensor:
        """Parameters (N, P) at a column of the row.

        Args:
            column: columns are taken from left to right; each may be asked for again when more channels are known.
            pixels: (N, C) at the column, any numbers in the channels that are not known.
        """

    @abstractmethod
    def finish(self, column: int, pixels: Tensor) -> None:
        """Take the pixels (N, C) at a column whose parameters were asked for, now that all channels are known."""


@torch.no_grad()
def fill_pixels(
    network: PixelNetwork,
    images: Tensor,
    first_row: int,
    draw: Draw,
    labels: Tensor | None = None,
    use_cache: bool = True,
) -> None:
    """Draw the pixels of images from a row on, in raster order, each given those before it.

    Without a cache the network is run on all rows down to the pixel's for every draw. Both ways call ``draw`` for the
    same pixels in the same order, so that with one generator they differ only where the two ways of adding the same
    numbers up round to other sides of a drawn number.

    Args:
        network: in evaluation mode.
        images: (N, C, H, W) of the network's type; changed in place.
        first_row: the rows above stay.
        draw: see `Draw`.
        labels: (N,) int64 of a network with classes.
        use_cache: whether to use the network's cache, if it has one.
    """
    cache = network.cache(len(images), labels) if use_cache else None
    _, _, height, width = images.shape
    for row in range(first_row if cache is None else 0, height):
        if cache is not None:
            cache.begin_row()
        for column in range(width):
            pixels = images[:, :, row, column]
            for group in range(network.groups if row >= first_row else 0):
                if cache is None:
                    parameters = network(images[:, :, : row + 1], labels)[:, :, row, column]
                else:
                    parameters = cache.parameters(column, pixels)
                drawn = draw(parameters[:, :, None, None])[:, :, 0, 0]
                if network.groups == 1:
                    pixels.copy_(drawn)
                else:
                    pixels[:, group] = drawn[:, group]
            if cache is not None:
                if row < first_row:
                    cache.parameters(column, pixels)
                cache.finish(column, pixels)


class ClassBias(nn.Module):
    """Adds a learnt vector of each class to the features of all pixels; nothing for a network without classes.

    Args:
        num_classes: K or None.
        width: C of the features.
    """

    def __init__(self, num_classes: int | None, width: int) -> None:
        super().__init__()
        self.table = None if num_classes is None else nn.Parameter(torch.randn(num_classes, width) * 0.1)

    def vectors(self, labels: Tensor | None) -> Tensor | float:
        """Vectors (N, C) of labels (N,) int64, or 0."""
        if self.table is None:
            return 0.0
        if labels is None:
            raise ValueError("a conditional network takes labels")
        return self.table[labels]

    def forward(self, maps: Tensor, labels: Tensor | None) -> Tensor:
        """Maps (N, C, H, W) of maps of that shape."""
        vectors = self.vectors(labels)
        return maps if isinstance(vectors, float) else maps + vectors[:, :, None, None]
