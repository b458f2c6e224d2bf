"""Masked convolutions: maps at a pixel see the pixels before it in raster order, and of its own channels those before.

Features of a pixel are split into groups. Those of group g depend on the pixels before and on the channels below g of
their own pixel; what a network computes of group g alone can therefore be the parameters of channel g.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def spread_groups(width: int, groups: int) -> list[int]:
    """Groups of ``width`` features: 0, ..., 0, 1, ..., groups - 1, as equally many of each as can be."""
    return [feature * groups // width for feature in range(width)]


class MaskedConv2d(nn.Conv2d):
    """A convolution that sees no pixel after its own.

    Source: van den Oord et al. 2016, "Pixel recurrent neural networks", section 3.4.

    The rows of the kernel below its center, which would be masked altogether, are not there: the weight has
    ``height // 2 + 1`` rows, the last of which is the pixel's own. There the columns after the center are masked; at
    the center, mask A lets a feature of group g see the inputs of groups below g, and mask B those of group g too. The
    weight is masked where it is used and never changed, and the mask is not in the state dict.

    Args:
        groups_in: the group of each input channel; for images, its number.
        groups_out: the group of each output feature.
        kernel_size: odd, or odd height and width.
        mask: ``A`` for the layer that sees the image, ``B`` for the others.
    """

    def __init__(
        self,
        groups_in: Sequence[int],
        groups_out: Sequence[int],
        kernel_size: int | tuple[int, int],
        mask: Literal["A", "B"],
    ) -> None:
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        rows, columns = height // 2, width // 2
        super().__init__(len(groups_in), len(groups_out), (rows + 1, width), padding=(rows, columns))
        inputs, outputs = torch.tensor(groups_in), torch.tensor(groups_out)[:, None]
        weight_mask = torch.ones_like(self.weight, requires_grad=False)
        weight_mask[:, :, -1, columns] = (inputs < outputs if mask == "A" else inputs <= outputs).float()
        weight_mask[:, :, -1, columns + 1 :] = 0
        self.register_buffer("mask", weight_mask, persistent=False)
        self.mask: Tensor

    def masked_weight(self) -> Tensor:
        """The weight (C', C, rows + 1, width) with zeros where the mask is."""
        return self.weight * self.mask

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C', H, W) of maps (N, C, H, W)."""
        # Padding is the same above and below; what the rows below would add are the last rows of the output.
        return F.conv2d(maps, self.masked_weight(), self.bias, padding=self.padding)[:, :, : maps.shape[2]]


class ConvolutionCache:
    """A `MaskedConv2d` pixel after pixel, in raster order, on a batch whose inputs become known in that order.

    What the rows above give is computed once a row; a pixel costs one product of matrices with the inputs to its left.

    Args:
        convolution: whose weights are taken as they are now.
        num_images: N.
        width: W of the maps.
    """

    def __init__(self, convolution: MaskedConv2d, num_images: int, width: int) -> None:
        weight = convolution.masked_weight().detach()
        assert convolution.bias is not None
        self.bias = convolution.bias.detach()
        self.columns = weight.shape[3] // 2
        self.from_above = weight[:, :, :-1]
        self.from_left = weight[:, :, -1, : self.columns + 1].permute(2, 1, 0).flatten(0, 1)
        # (N, rows, W with padding, C): the rows above and, as the last one, the pixel's own.
        self.rows = weight.new_zeros(num_images, weight.shape[2], width + 2 * self.columns, weight.shape[1])
        self.sums: Sequence[Tensor] = ()

    def begin_row(self, added: Tensor | float = 0.0) -> None:
        """Turn to the next row, the first one at first; every pixel of the row before must have been put in.

        Args:
            added: (W, N, C') or what expands to it, for the outputs of the row.
        """
        above = self.rows[:, 1:]
        self.rows = torch.cat([above, torch.zeros_like(self.rows[:, :1])], 1)
        if above.shape[1]:
            sums = F.conv2d(above.permute(0, 3, 1, 2), self.from_above, self.bias)[:, :, 0].permute(2, 0, 1) + added
        else:
            num_images, _, width, _ = self.rows.shape
            sums = (self.bias + added).expand(width - 2 * self.columns, num_images, -1)
        self.sums = sums.contiguous().unbind()

    def put(self, column: int, inputs: Tensor) -> None:
        """Make the inputs (N, C) at a column of the row known."""
        self.rows[:, -1, column + self.columns] = inputs

    def step(self, column: int, inputs: Tensor) -> Tensor:
        """Outputs (N, C') at a column, whose inputs (N, C) are made known; columns are taken from left to right."""
        self.put(column, inputs)
        seen = self.rows[:, -1, column : column + self.columns + 1].flatten(1)
        return torch.addmm(self.sums[column], seen, self.from_left)


class PointwiseCache:
    """A `MaskedConv2d` with a kernel of 1x1 on the features of single pixels.

    Args:
        convolution: whose weights are taken as they are now.
    """

    def __init__(self, convolution: MaskedConv2d) -> None:
        self.weight = convolution.masked_weight().detach()[:, :, 0, 0].t().contiguous()
        assert convolution.bias is not None
        self.bias = convolution.bias.detach()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs (N, C') of inputs (N, C)."""
        return torch.addmm(self.bias, inputs, self.weight)
