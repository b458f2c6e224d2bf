"""The layers of PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517), as there and in its published code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from lightning_gen.networks.pixel_network import ClassBias


def concat_elu(maps: Tensor) -> Tensor:
    """ELU of the maps (N, C, ...) and of their negatives, as twice as many channels."""
    return F.elu(torch.cat([maps, -maps], 1))


def gated(inputs: Tensor, outputs: Tensor) -> Tensor:
    """``x + a sigmoid(b)`` of x (N, C, ...) and of a and b, the halves of (N, 2C, ...)."""
    values, gates = outputs.chunk(2, 1)
    return inputs + values * torch.sigmoid(gates)


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

    def convolutions(self) -> tuple[ShiftedConv2d, ShiftedConv2d]:
        """Both, in order."""
        return self.first, self.second

    def forward(self, maps: Tensor, shortcut: Tensor | None, labels: Tensor | None) -> Tensor:
        """Maps (N, C, H, W) of maps of that shape, shortcut maps (N, C', H, W) and labels."""
        residual = self.first(concat_elu(maps))
        if self.shortcut is not None:
            assert shortcut is not None
            residual = residual + self.shortcut(concat_elu(shortcut))
        residual = self.second(self.dropout(concat_elu(residual)))
        return gated(maps, self.class_bias(residual, labels))


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


class Shrink(nn.Module):
    """Halves both streams.

    Args:
        channels: of each stream.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.above = ShiftedConv2d(channels, channels, (2, 3), False, stride=2)
        self.beside = ShiftedConv2d(channels, channels, (2, 2), True, stride=2)

    def forward(self, streams: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Both streams, half as large, rounded up."""
        above, beside = streams
        return self.above(above), self.beside(beside)


class Grow(nn.Module):
    """Doubles both streams.

    Args:
        channels: of each stream.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.above = ShiftedUpsampling2d(channels, (2, 3), False)
        self.beside = ShiftedUpsampling2d(channels, (2, 2), True)

    def forward(self, streams: tuple[Tensor, Tensor], size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Both streams, of height and width ``size``, at most twice theirs."""
        above, beside = streams
        return self.above(above, size), self.beside(beside, size)


class Level(nn.Module):
    """The layers of one size of maps, on the way down and up, with all smaller sizes between them (figure 2).

    Args:
        channels: of each stream.
        layers: pairs of layers on the way down; there is one more on the way up, but for the smallest size.
        deeper: the next smaller size, or None for the smallest.
        dropout: probability.
        num_classes: K or None.
    """

    def __init__(
        self, channels: int, layers: int, deeper: Level | None, dropout: float, num_classes: int | None
    ) -> None:
        super().__init__()
        more = int(deeper is not None)
        self.down = nn.ModuleList(Pair(channels, False, dropout, num_classes) for _ in range(layers))
        self.up = nn.ModuleList(Pair(channels, True, dropout, num_classes) for _ in range(layers + more))
        self.deeper = deeper
        self.shrink = None if deeper is None else Shrink(channels)
        self.grow = None if deeper is None else Grow(channels)

    def forward(self, streams: tuple[Tensor, Tensor], labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both streams (N, C, H, W) of both streams of that shape."""
        kept = [streams]
        for pair in self.down:
            kept.append(pair(kept[-1], None, labels))
        if self.deeper is None:
            streams = kept.pop()
        else:
            assert self.shrink is not None
            assert self.grow is not None
            streams = self.grow(self.deeper(self.shrink(kept[-1]), labels), streams[0].shape[2:])
        for pair in self.up:
            streams = pair(streams, kept.pop(), labels)
        return streams
