"""Pixel networks that look their inputs up in a learnt table, for images whose levels are names and no brightness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.images import to_levels
from lightning_gen.networks.pixel_network import PixelCache, PixelNetwork
from lightning_gen.registry import construct


class EmbeddedPixels(PixelNetwork):
    """Any `PixelNetwork` that sees, in the place of a pixel's brightness, a learnt vector of its level.

    Args:
        image_shape: (1, H, W) of the images.
        parameter_channels: see `PixelNetwork`; all 0.
        network: spec of the network that sees the vectors.
        levels: K, the number of levels.
        embedding_dim: D, the width of the vectors.
        num_classes: K for a network that takes labels, or None.

    Raises:
        UserError: images of several channels, or vectors of no width.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        parameter_channels: Sequence[int],
        network: Mapping[str, Any],
        levels: int,
        embedding_dim: int,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(image_shape, parameter_channels, num_classes)
        channels, height, width = image_shape
        if channels != 1 or self.groups != 1:
            raise UserError(f"levels are embedded in images of one channel, not {channels}")
        if embedding_dim < 1:
            raise UserError(f"the embedding of levels must have at least one dimension, not {embedding_dim}")
        self.levels = levels
        self.table = nn.Embedding(levels, embedding_dim)
        self.network = construct(
            network,
            PixelNetwork,  # type: ignore[type-abstract]
            image_shape=(embedding_dim, height, width),
            parameter_channels=parameter_channels,
            num_classes=num_classes,
        )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `PixelNetwork.forward`."""
        vectors = self.table(to_levels(images[:, 0], self.levels))
        return self.network(vectors.permute(0, 3, 1, 2).contiguous(), labels)

    def cache(self, num_images: int, labels: Tensor | None = None) -> PixelCache | None:
        """See `PixelNetwork.cache`."""
        cache = self.network.cache(num_images, labels)
        return None if cache is None else _Cache(self, cache)


class _Cache(PixelCache):
    def __init__(self, network: EmbeddedPixels, cache: PixelCache) -> None:
        self.network = network
        self.cache = cache

    def begin_row(self) -> None:
        self.cache.begin_row()

    def parameters(self, column: int, pixels: Tensor) -> Tensor:
        return self.cache.parameters(column, self._vectors(pixels))

    def finish(self, column: int, pixels: Tensor) -> None:
        self.cache.finish(column, self._vectors(pixels))

    def _vectors(self, pixels: Tensor) -> Tensor:
        return self.network.table(to_levels(pixels[:, 0], self.network.levels))
