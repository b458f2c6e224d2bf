"""PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517), after the description there and in its published code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from lightning_gen.errors import UserError
from lightning_gen.networks.pixel_network import PixelCache, PixelNetwork
from lightning_gen.networks.pixelcnn_pp_cache import Initial, LevelCache
from lightning_gen.networks.pixelcnn_pp_layers import Level, ShiftedConv2d


class PixelCNNPP(PixelNetwork):
    """Two streams of gated residual layers through smaller maps and back, with shortcuts (figure 2).

    One stream sees the rows above, the other also the pixels to the left. The channels of a pixel do not see one
    another: the law has to couple them. Layers have weight norm; they start as torch's, without the initialization from
    data of the paper's code, and with it a constant channel that tells images from padding.

    Args:
        image_shape: (C, H, W) of the images, of any size.
        parameter_channels: see `PixelNetwork`.
        num_classes: K for a network that takes labels, or None.
        channels: of each stream.
        layers: gated residual layers of each size of maps on the way down, and one more than that on the way up but
            for the smallest.
        sizes: how many sizes of maps, each half the one before.
        dropout: probability.

    Raises:
        UserError: a law of images with several channels that does not couple them.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        parameter_channels: Sequence[int],
        num_classes: int | None = None,
        channels: int = 160,
        layers: int = 5,
        sizes: int = 3,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(image_shape, parameter_channels, num_classes)
        if self.groups > 1:
            raise UserError(
                "PixelCNN++ leaves it to the law how a pixel's channels depend on one another: set "
                "model.law.name=logistic_mixture"
            )
        if layers < 1 or sizes < 1:
            raise UserError(f"model.network: layers and sizes must be at least 1, not {layers} and {sizes}")
        inputs = image_shape[0] + 1
        self.first_above = ShiftedConv2d(inputs, channels, (2, 3), False)
        self.first_row = ShiftedConv2d(inputs, channels, (1, 3), False)
        self.first_beside = ShiftedConv2d(inputs, channels, (2, 1), True)
        level: Level | None = None
        for _ in range(sizes):
            level = Level(channels, layers, level, dropout, num_classes)
        assert level is not None
        self.level = level
        self.output = weight_norm(nn.Conv2d(channels, len(parameter_channels), 1))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `PixelNetwork.forward`."""
        images = torch.cat([images, torch.ones_like(images[:, :1])], 1)
        beside = _shift_down(self.first_row(images)) + _shift_right(self.first_beside(images))
        _, beside = self.level((_shift_down(self.first_above(images)), beside), labels)
        return self.output(F.elu(beside))

    def cache(self, num_images: int, labels: Tensor | None = None) -> PixelCache:
        """See `PixelNetwork.cache`."""
        return _Cache(self, num_images, labels)


class _Cache(PixelCache):
    def __init__(self, network: PixelCNNPP, num_images: int, labels: Tensor | None) -> None:
        width = network.image_shape[2]
        self.initial = Initial(network.first_above, network.first_row, network.first_beside, num_images, width)
        self.level = LevelCache(network.level, num_images, width, labels)
        self.weight = network.output.weight.detach()[:, :, 0, 0].t().contiguous()
        self.bias = network.output.bias

    def begin_row(self) -> None:
        self.level.begin_row(self.initial.begin_row())

    def parameters(self, column: int, pixels: Tensor) -> Tensor:
        assert self.bias is not None
        return torch.addmm(self.bias, F.elu(self.level.step(column, self.initial.at(column))), self.weight)

    def finish(self, column: int, pixels: Tensor) -> None:
        self.initial.put(column, pixels)


def _shift_down(maps: Tensor) -> Tensor:
    return F.pad(maps, (0, 0, 1, 0))[:, :, :-1]


def _shift_right(maps: Tensor) -> Tensor:
    return F.pad(maps, (1, 0))[..., :-1]
