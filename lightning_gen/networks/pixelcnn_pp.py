"""PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517), after the description there and in its published code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from lightning_gen.errors import UserError
from lightning_gen.networks.pixel_network import ClassBias, PixelNetwork


def concat_elu(maps: Tensor) -> Tensor:
    """ELU of the maps and of their negatives, as twice as many channels."""
    return F.elu(torch.cat([maps, -maps], 1))


class ShiftedConv2d(nn.Module):
    """A convolution with weight norm whose kernel ends at the pixel's own row, and at its own column where it says so.

    Args:
        channels_in: C.
        channels_out: C'.
        kernel_size: height and width.
        own_column_last: whether the kernel also ends at the pixel's own column ("down-right shifted"); else it is
            centered on it ("down shifted").
        stride: of both directions.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel_size: tuple[int, int], own_column_last: bool, stride: int = 1
    ) -> None:
        super().__init__()
        height, width = kernel_size
        left = width - 1 if own_column_last else width // 2
        self.padding = (left, width - 1 - left, height - 1, 0)
        self.convolution = weight_norm(nn.Conv2d(channels_in, channels_out, kernel_size, stride=stride))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C', H, W), or half that size with stride 2, of maps (N, C, H, W)."""
        return self.convolution(F.pad(maps, self.padding))


class ShiftedUpsampling2d(nn.Module):
    """The transposed convolution by 2 that belongs to a `ShiftedConv2d`, so that no output depends on a later input.

    Args:
        channels: of input and output.
        kernel_size: height and width.
        own_column_last: see `ShiftedConv2d`.
    """

    def __init__(self, channels: int, kernel_size: tuple[int, int], own_column_last: bool) -> None:
        super().__init__()
        self.first_column = 0 if own_column_last else (kernel_size[1] - 1) // 2
        self.convolution = weight_norm(nn.ConvTranspose2d(channels, channels, kernel_size, stride=2, output_padding=1))

    def forward(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """Maps (N, C, H', W') of maps (N, C, H, W), H' and W' being ``size``, at most twice H and W."""
        columns = slice(self.first_column, self.first_column + size[1])
        return self.convolution(maps)[:, :, : size[0], columns]


class GatedResidual(nn.Module):
    """``x + a sigmoid(b)``, a and b being two convolutions away from x, with dropout between them (section 2.2.5).

    Args:
        channels: of input and output.
        shortcut_channels: of the maps that join after the first convolution, by 1x1; 0 for none.
        kernel_size: of the convolutions.
        own_column_last: see `ShiftedConv2d`.
        dropout: probability.
        num_classes: K or None; a vector of the label joins before the gate.
    """

    def __init__(
        self,
        channels: int,
        shortcut_channels: int,
        kernel_size: tuple[int, int],
        own_column_last: bool,
        dropout: float,
        num_classes: int | None,
    ) -> None:
        super().__init__()
        self.first = ShiftedConv2d(2 * channels, channels, kernel_size, own_column_last)
        self.shortcut = weight_norm(nn.Conv2d(2 * shortcut_channels, channels, 1)) if shortcut_channels else None
        self.dropout = nn.Dropout(dropout)
        self.second = ShiftedConv2d(2 * channels, 2 * channels, kernel_size, own_column_last)
        self.class_bias = ClassBias(num_classes, 2 * channels)

    def forward(self, maps: Tensor, shortcut: Tensor | None, labels: Tensor | None) -> Tensor:
        """Maps (N, C, H, W) of maps of that shape, shortcut maps (N, C', H, W) and labels."""
        residual = self.first(concat_elu(maps))
        if self.shortcut is not None:
            assert shortcut is not None
            residual = residual + self.shortcut(concat_elu(shortcut))
        residual = self.second(self.dropout(concat_elu(residual)))
        values, gates = self.class_bias(residual, labels).chunk(2, 1)
        return maps + values * torch.sigmoid(gates)


class Pair(nn.Module):
    """A gated residual layer of both streams: that of the rows above, and that of these and the own row.

    The second sees the first through a shortcut; on the way up both see the layers of the way down, too.

    Args:
        channels: of each stream.
        up: whether it is on the way up.
        dropout: probability.
        num_classes: K or None.
    """

    def __init__(self, channels: int, up: bool, dropout: float, num_classes: int | None) -> None:
        super().__init__()
        self.above = GatedResidual(channels, channels if up else 0, (2, 3), False, dropout, num_classes)
        self.beside = GatedResidual(channels, 2 * channels if up else channels, (2, 2), True, dropout, num_classes)

    def forward(
        self, streams: tuple[Tensor, Tensor], shortcuts: tuple[Tensor, Tensor] | None, labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both streams (N, C, H, W) of both streams, and the streams of the way down or None."""
        above, beside = streams
        if shortcuts is None:
            above = self.above(above, None, labels)
            return above, self.beside(beside, above, labels)
        above = self.above(above, shortcuts[0], labels)
        return above, self.beside(beside, torch.cat([above, shortcuts[1]], 1), labels)


class Resize(nn.Module):
    """Halves or doubles both streams.

    Args:
        channels: of each stream.
        up: whether it doubles.
    """

    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        if up:
            self.above: nn.Module = ShiftedUpsampling2d(channels, (2, 3), False)
            self.beside: nn.Module = ShiftedUpsampling2d(channels, (2, 2), True)
        else:
            self.above = ShiftedConv2d(channels, channels, (2, 3), False, stride=2)
            self.beside = ShiftedConv2d(channels, channels, (2, 2), True, stride=2)

    def forward(self, streams: tuple[Tensor, Tensor], *size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Both streams, half as large or, where they double, of height and width ``size``."""
        above, beside = streams
        return self.above(above, *size), self.beside(beside, *size)


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

        def stage(number: int, up: bool) -> nn.ModuleList:
            return nn.ModuleList(Pair(channels, up, dropout, num_classes) for _ in range(number))

        self.down = nn.ModuleList(stage(layers, False) for _ in range(sizes))
        self.shrink = nn.ModuleList(Resize(channels, False) for _ in range(sizes - 1))
        self.up = nn.ModuleList(stage(layers + (number > 0), True) for number in range(sizes))
        self.grow = nn.ModuleList(Resize(channels, True) for _ in range(sizes - 1))
        self.output = weight_norm(nn.Conv2d(channels, len(parameter_channels), 1))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `PixelNetwork.forward`."""
        images = torch.cat([images, torch.ones_like(images[:, :1])], 1)
        beside = _shift_down(self.first_row(images)) + _shift_right(self.first_beside(images))
        streams = _shift_down(self.first_above(images)), beside
        kept = [streams]
        shapes = []
        for number, stage in enumerate(self.down):
            if number:
                shapes.append(streams[0].shape[2:])
                streams = self.shrink[number - 1](streams)
                kept.append(streams)
            for layer in stage:
                streams = layer(streams, None, labels)
                kept.append(streams)
        streams = kept.pop()
        for number, stage in enumerate(self.up):
            if number:
                streams = self.grow[number - 1](streams, shapes.pop())
            for layer in stage:
                streams = layer(streams, kept.pop(), labels)
        return self.output(F.elu(streams[1]))


def _shift_down(maps: Tensor) -> Tensor:
    return F.pad(maps, (0, 0, 1, 0))[:, :, :-1]


def _shift_right(maps: Tensor) -> Tensor:
    return F.pad(maps, (1, 0))[..., :-1]
