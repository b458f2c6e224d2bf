"""PixelCNN++ pixel after pixel: its two streams in every size of maps, with what they have seen kept.

The stream of the rows above is computed a row at a time; a pixel costs the other stream's layers at that pixel alone.
A pixel of the smaller maps belongs to an even row and column of the larger ones, and is computed with that pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.networks.pixelcnn_pp_layers import (
    GatedResidual,
    Grow,
    Level,
    Pair,
    ShiftedConv2d,
    Shrink,
    concat_elu,
    gated,
)


class RowConvolution:
    """A down-shifted convolution, row after row.

    Args:
        convolution: of two rows.
        padding: columns of zeros to the left and right.
        stride: 2 for one that gives a row for every other one.
    """

    def __init__(self, convolution: nn.Conv2d, padding: tuple[int, int], stride: int = 1) -> None:
        self.weight, self.bias = convolution.weight.detach(), convolution.bias
        self.padding = padding
        self.stride = stride
        self.last: Tensor | None = None
        self.number = 0

    def __call__(self, row: Tensor) -> Tensor | None:
        """The output row (N, C', 1, W') that the next row (N, C, 1, W) completes, or None."""
        last = torch.zeros_like(row) if self.last is None else self.last
        self.last = row
        self.number += 1
        if (self.number - 1) % self.stride:
            return None
        rows = F.pad(torch.cat([last, row], 2), self.padding)
        return F.conv2d(rows, self.weight, self.bias, stride=self.stride)


class PixelConvolution:
    """A down-right-shifted convolution of 2x2, pixel after pixel, at whichever of them its output is wanted.

    Args:
        convolution: the convolution.
        num_images: N.
        width: W of its input.
    """

    def __init__(self, convolution: nn.Conv2d, num_images: int, width: int) -> None:
        weight = convolution.weight.detach()
        assert convolution.bias is not None
        self.bias = convolution.bias.detach()
        # ((column, channel), C') of the row above and of the own row
        self.from_above, self.from_row = weight.permute(2, 3, 1, 0).flatten(1, 2).unbind()
        self.row = weight.new_zeros(num_images, width + 1, weight.shape[1])
        self.sums: Sequence[Tensor] = ()

    def begin_row(self) -> None:
        """Turn to the next row, the first one at first."""
        above = torch.cat([self.row[:, :-1], self.row[:, 1:]], 2).transpose(0, 1)
        self.sums = (above @ self.from_above + self.bias).unbind()
        self.row = torch.zeros_like(self.row)

    def put(self, column: int, inputs: Tensor) -> None:
        """Make the inputs (N, C) at a column known."""
        self.row[:, column + 1] = inputs

    def at(self, column: int) -> Tensor:
        """Outputs (N, C') at a column whose inputs are known."""
        return torch.addmm(self.sums[column], self.row[:, column : column + 2].flatten(1), self.from_row)


class RowLayer:
    """A `GatedResidual` of the stream of the rows above, row after row.

    Args:
        layer: whose weights are taken as they are now.
        labels: (N,) int64 or None.
    """

    def __init__(self, layer: GatedResidual, labels: Tensor | None) -> None:
        self.layer = layer
        self.first, self.second = (RowConvolution(part.convolution, part.padding[:2]) for part in layer.convolutions())
        self.labels = labels

    def __call__(self, row: Tensor, shortcut: Tensor | None) -> Tensor:
        """The output row (N, C, 1, W) of the next input row and shortcut's."""
        residual = self.first(concat_elu(row))
        assert residual is not None
        if self.layer.shortcut is not None:
            assert shortcut is not None
            residual = residual + self.layer.shortcut(concat_elu(shortcut))
        residual = self.second(concat_elu(residual))
        assert residual is not None
        return gated(row, self.layer.class_bias(residual, self.labels))


class PixelLayer:
    """A `GatedResidual` of the stream of rows above and pixels to the left, pixel after pixel.

    Args:
        layer: whose weights are taken as they are now.
        num_images: N.
        width: W of the maps.
        labels: (N,) int64 or None.
    """

    def __init__(self, layer: GatedResidual, num_images: int, width: int, labels: Tensor | None) -> None:
        self.first, self.second = (
            PixelConvolution(part.convolution, num_images, width) for part in layer.convolutions()
        )
        assert layer.shortcut is not None
        assert layer.shortcut.bias is not None
        self.shortcut_weight = layer.shortcut.weight.detach()[:, :, 0, 0].t().contiguous()
        self.shortcut_bias = layer.shortcut.bias.detach()
        self.class_vectors = layer.class_bias.vectors(labels)

    def begin_row(self) -> None:
        """Turn to the next row, the first one at first."""
        self.first.begin_row()
        self.second.begin_row()

    def step(self, column: int, inputs: Tensor, shortcut: Tensor) -> Tensor:
        """Outputs (N, C) at a column, from its inputs (N, C) and the shortcut's (N, C')."""
        self.first.put(column, concat_elu(inputs))
        joined = torch.addmm(self.shortcut_bias, concat_elu(shortcut), self.shortcut_weight)
        self.second.put(column, concat_elu(self.first.at(column) + joined))
        return gated(inputs, self.second.at(column) + self.class_vectors)


class LevelCache:
    """A `Level`, row after row and pixel after pixel.

    Args:
        level: whose weights are taken as they are now.
        num_images: N.
        width: W of the maps.
        labels: (N,) int64 or None.
    """

    def __init__(self, level: Level, num_images: int, width: int, labels: Tensor | None) -> None:
        down, up = ([pair for pair in pairs if isinstance(pair, Pair)] for pairs in (level.down, level.up))
        self.rows_down, self.rows_up = ([RowLayer(pair.above, labels) for pair in pairs] for pairs in (down, up))
        self.down, self.up = (
            [PixelLayer(pair.beside, num_images, width, labels) for pair in pairs] for pairs in (down, up)
        )
        # What the layers of the other stream gave in this row, (W, N, C) each, on the way down and up.
        self.above_down: list[Tensor] = []
        self.above_up: list[Tensor] = []
        self.deeper: _DeeperCache | None = None
        if level.deeper is not None:
            assert level.shrink is not None
            assert level.grow is not None
            deeper = LevelCache(level.deeper, num_images, (width + 1) // 2, labels)
            self.deeper = _DeeperCache(deeper, level.shrink, level.grow, num_images, width)

    def begin_row(self, above: Tensor) -> Tensor:
        """The output row (N, C, 1, W) of the stream of the rows above, from its next input row."""
        kept = [above]
        for layer in self.rows_down:
            kept.append(layer(kept[-1], None))
        self.above_down = [_by_column(row) for row in kept[1:]]
        above = kept.pop() if self.deeper is None else self.deeper.begin_row(kept[-1])
        self.above_up = []
        for layer in self.rows_up:
            above = layer(above, kept.pop())
            self.above_up.append(_by_column(above))
        for pixel_layer in (*self.down, *self.up):
            pixel_layer.begin_row()
        return above

    def step(self, column: int, inputs: Tensor) -> Tensor:
        """Outputs (N, C) at a column of the stream of the own row, from its inputs (N, C)."""
        kept = [inputs]
        for layer, above in zip(self.down, self.above_down, strict=True):
            kept.append(layer.step(column, kept[-1], above[column]))
        features = kept.pop() if self.deeper is None else self.deeper.step(column, kept[-1])
        for layer, above in zip(self.up, self.above_up, strict=True):
            features = layer.step(column, features, torch.cat([above[column], kept.pop()], 1))
        return features


class _DeeperCache:
    """All smaller sizes of maps, seen from the larger ones: what leads to them and back."""

    def __init__(self, level: LevelCache, shrink: Shrink, grow: Grow, num_images: int, width: int) -> None:
        self.level = level
        self.shrink_row = RowConvolution(shrink.above.convolution, shrink.above.padding[:2], stride=2)
        self.shrink_pixel = PixelConvolution(shrink.beside.convolution, num_images, width)
        self.grow = grow
        weight, self.bias = grow.beside.convolution.weight.detach(), grow.beside.convolution.bias
        self.weight = weight.permute(0, 2, 3, 1).flatten(1)
        self.width = width
        self.row = -1
        # What the smaller maps gave of two rows: (N, C, 2, W), and (2, W rounded up to even, N, C).
        self.rows: Tensor | None = None
        self.pixels = weight.new_zeros(2, width + width % 2, num_images, weight.shape[1])

    def begin_row(self, above: Tensor) -> Tensor:
        self.row += 1
        self.shrink_pixel.begin_row()
        shrunk = self.shrink_row(above)
        if shrunk is not None:
            self.rows = self.grow.above(self.level.begin_row(shrunk), (2, self.width))
        assert self.rows is not None
        return self.rows[:, :, self.row % 2 : self.row % 2 + 1]

    def step(self, column: int, inputs: Tensor) -> Tensor:
        self.shrink_pixel.put(column, inputs)
        if self.row % 2 == column % 2 == 0:
            deep = self.level.step(column // 2, self.shrink_pixel.at(column))
            four = (deep @ self.weight).unflatten(1, (2, 2, -1)) + self.bias
            self.pixels[:, column : column + 2] = four.permute(1, 2, 0, 3)
        return self.pixels[self.row % 2, column]


class Initial:
    """What both streams start with, from the image.

    Args:
        above: the convolution of the two rows above.
        row: that of the row above, added to the other stream.
        beside: that of the pixel to the left and the one above it.
        num_images: N.
        width: W of the images.
    """

    def __init__(
        self, above: ShiftedConv2d, row: ShiftedConv2d, beside: ShiftedConv2d, num_images: int, width: int
    ) -> None:
        self.row_above = RowConvolution(above.convolution, above.padding[:2])
        self.row = row
        self.left_weight = beside.convolution.weight.detach()[:, :, :, 0].permute(2, 1, 0).flatten(0, 1)
        self.left_bias = beside.convolution.bias
        channels = beside.convolution.in_channels
        # The image with its channel of ones: the row above and the own one; (N, C + 1, 1, W), zeros before the first.
        self.last, self.own = self.left_weight.new_zeros(2, num_images, channels, 1, width)
        self.width_out = above.convolution.out_channels
        self.started = False
        self.sums: Tensor | None = None

    def begin_row(self) -> Tensor:
        """The next row (N, C, 1, W) of the stream of the rows above, the first one at first."""
        num_images, _, _, width = self.own.shape
        self.last, self.own = self.own, torch.zeros_like(self.own)
        if not self.started:
            self.started = True
            above = self.own.new_zeros(num_images, self.width_out, 1, width)
            self.sums = _by_column(above)
            return above
        row = self.row_above(self.last)
        assert row is not None
        self.sums = _by_column(self.row(self.last))
        return row

    def put(self, column: int, pixels: Tensor) -> None:
        """Make the pixels (N, C) at a column known."""
        self.own[:, :-1, 0, column] = pixels
        self.own[:, -1, 0, column] = 1

    def at(self, column: int) -> Tensor:
        """Features (N, C) of the other stream at a column, all pixels to the left being known."""
        assert self.sums is not None
        if column == 0:
            return self.sums[0]
        left = torch.cat([self.last[:, :, 0, column - 1], self.own[:, :, 0, column - 1]], 1)
        assert self.left_bias is not None
        return self.sums[column] + torch.addmm(self.left_bias, left, self.left_weight)


def _by_column(row: Tensor) -> Tensor:
    """(W, N, C) of a row (N, C, 1, W)."""
    return row[:, :, 0].permute(2, 0, 1).contiguous()
