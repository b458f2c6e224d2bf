"""Row LSTM and Diagonal BiLSTM (van den Oord et al. 2016, "Pixel recurrent neural networks", arXiv:1601.06759)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.masked import ConvolutionCache, MaskedConv2d, PointwiseCache, spread_groups
from lightning_gen.networks.pixel_network import ClassBias, PixelCache, PixelNetwork
from lightning_gen.networks.pixelcnn import HeadCache, PixelHead


def lstm_step(gates: Tensor, cell: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
    """State and cell, h along ``dim``, of an LSTM (equation 3).

    Args:
        gates: 4h along ``dim``, before their nonlinearities: output, forget and input gates and content.
        cell: of the step before.
        dim: of the features.
    """
    output, forget, enter, content = gates.chunk(4, dim)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(content)
    return torch.sigmoid(output) * torch.tanh(cell), cell


class RowLSTM(nn.Module):
    """An LSTM from the top row to the bottom one, all pixels of a row at once (section 3.1).

    Input to state is a masked convolution along the row; state to state is one of the row above, which needs no mask.
    So a pixel sees a triangle of the rows above.

    Args:
        groups_in: the groups of the input's features.
        groups: those of the states.
        kernel_size: odd, of both convolutions.
    """

    def __init__(self, groups_in: Sequence[int], groups: Sequence[int], kernel_size: int) -> None:
        super().__init__()
        width = len(groups)
        self.input_to_state = MaskedConv2d(groups_in, list(groups) * 4, (1, kernel_size), "B")
        self.state_to_state = nn.Conv1d(width, 4 * width, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """States (N, h, H, W) of maps (N, C, H, W)."""
        rows = self.input_to_state(maps).unbind(2)
        state = cell = torch.zeros_like(rows[0][:, : rows[0].shape[1] // 4])
        states = []
        for row in rows:
            state, cell = lstm_step(row + self.state_to_state(state), cell)
            states.append(state)
        return torch.stack(states, 2)


class DiagonalLSTM(nn.Module):
    """An LSTM along diagonals: each pixel's state follows those of the pixels to the left and above (section 3.2).

    Row i of the maps is shifted by i columns, so that a diagonal becomes a column of the skewed map; state to state is
    a convolution of two rows of the column before.

    Args:
        groups_in: the groups of the input's features.
        groups: those of the states.
    """

    def __init__(self, groups_in: Sequence[int], groups: Sequence[int]) -> None:
        super().__init__()
        width = len(groups)
        self.input_to_state = MaskedConv2d(groups_in, list(groups) * 4, 1, "B")
        self.state_to_state = nn.Conv1d(width, 4 * width, 2, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """States (N, h, H, W) of maps (N, C, H, W)."""
        width = maps.shape[3]
        # One skewed column after the other, (N, H, features) each.
        inside = skew(torch.ones_like(maps[:1, :1])).permute(3, 0, 2, 1).contiguous().unbind()
        columns = skew(self.input_to_state(maps)).permute(3, 0, 2, 1).contiguous().unbind()
        weight = self.state_to_state.weight.permute(2, 1, 0).flatten(0, 1)
        state = cell = torch.zeros_like(columns[0][..., : columns[0].shape[2] // 4])
        states = []
        for column, within in zip(columns, inside, strict=True):
            above = F.pad(state, (0, 0, 1, 0))[:, :-1]
            gates = column + torch.cat([above, state], 2) @ weight
            # Outside the image there is no state.
            state, cell = (part * within for part in lstm_step(gates, cell, 2))
            states.append(state)
        return unskew(torch.stack(states).permute(1, 3, 2, 0), width)


def skew(maps: Tensor) -> Tensor:
    """Maps (N, C, H, W) with row i moved i columns to the right, as (N, C, H, W + H - 1) with zeros elsewhere."""
    *_, height, width = maps.shape
    # Rows that are one column too long for the output push each other to the right.
    padded = F.pad(maps, (0, height)).flatten(2)
    return padded[..., : height * (width + height - 1)].unflatten(2, (height, width + height - 1))


def unskew(maps: Tensor, width: int) -> Tensor:
    """What `skew` made maps (N, C, H, W + H - 1) of, W being ``width``."""
    height = maps.shape[2]
    return F.pad(maps.flatten(2), (0, height)).unflatten(2, (height, width + height))[..., :width]


class DiagonalBiLSTM(nn.Module):
    """Two diagonal LSTMs, from the left and from the right; together they see all pixels before (section 3.2).

    The states from the right are moved down by a row, so that they are of pixels before.

    Args:
        groups_in: the groups of the input's features.
        groups: those of the states.
    """

    def __init__(self, groups_in: Sequence[int], groups: Sequence[int]) -> None:
        super().__init__()
        self.left, self.right = DiagonalLSTM(groups_in, groups), DiagonalLSTM(groups_in, groups)

    def forward(self, maps: Tensor) -> Tensor:
        """Sums (N, h, H, W) of both LSTMs' states, of maps (N, C, H, W)."""
        from_right = self.right(maps.flip(3)).flip(3)
        return self.left(maps) + F.pad(from_right, (0, 0, 1, 0))[:, :, :-1]


class RecurrentBlock(nn.Module):
    """An LSTM, a 1x1 convolution to twice its width, plus the input (figure 5, right).

    Args:
        lstm: from the 2h features of the input to h states.
        groups: the groups of the states.
        groups_wide: those of the 2h features.
    """

    def __init__(self, lstm: nn.Module, groups: Sequence[int], groups_wide: Sequence[int]) -> None:
        super().__init__()
        self.lstm = lstm
        self.grow = MaskedConv2d(groups, groups_wide, 1, "B")

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, 2h, H, W) of maps of that shape."""
        return maps + self.grow(self.lstm(maps))


class PixelRNN(PixelNetwork):
    """A masked 7x7 convolution, LSTMs with residual connections, and a head (table 1).

    With classes, which the paper does not have, a vector of the label is added after the first layer. Features of a
    pixel do not see the pixel itself, so no LSTM from the right would ever see the last pixel of a row; for diagonal
    LSTMs the images therefore get an empty column to the right, whose features do.

    Args:
        image_shape: (C, H, W) of the images.
        parameter_channels: see `PixelNetwork`.
        num_classes: K for a network that takes labels, or None.
        lstm: ``row`` or ``diagonal``.
        channels: h of the LSTMs; the features between them are 2h.
        layers: how many LSTMs.
        head_channels: features in the head.
        first_kernel_size: odd, of the first layer.
        kernel_size: odd, of a row LSTM's convolutions.

    Raises:
        UserError: another LSTM.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        parameter_channels: Sequence[int],
        num_classes: int | None = None,
        lstm: Literal["row", "diagonal"] = "row",
        channels: int = 128,
        layers: int = 12,
        head_channels: int = 1024,
        first_kernel_size: int = 7,
        kernel_size: int = 3,
    ) -> None:
        super().__init__(image_shape, parameter_channels, num_classes)
        if lstm not in ("row", "diagonal"):
            raise UserError(f"model.network.lstm must be row or diagonal, not {lstm!r}")
        wide, narrow = spread_groups(2 * channels, self.groups), spread_groups(channels, self.groups)
        self.empty_columns = int(lstm == "diagonal")
        self.first = MaskedConv2d(range(image_shape[0]), wide, first_kernel_size, "A")
        self.class_bias = ClassBias(num_classes, 2 * channels)
        lstms = (
            RowLSTM(wide, narrow, kernel_size) if lstm == "row" else DiagonalBiLSTM(wide, narrow) for _ in range(layers)
        )
        self.blocks = nn.Sequential(*(RecurrentBlock(each, narrow, wide) for each in lstms))
        self.head = PixelHead(wide, spread_groups(head_channels, self.groups), parameter_channels)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `PixelNetwork.forward`."""
        maps = self.class_bias(self.first(F.pad(images, (0, self.empty_columns))), labels)
        return self.head(self.blocks(maps)[..., : images.shape[3]])

    def cache(self, num_images: int, labels: Tensor | None = None) -> PixelCache:
        """See `PixelNetwork.cache`."""
        return _Cache(self, num_images, labels)


class _RowCache:
    """A `RowLSTM` pixel after pixel; a pixel may be asked for again, so states enter when their row is done."""

    def __init__(self, lstm: RowLSTM, num_images: int, width: int) -> None:
        self.lstm = lstm
        self.entering = ConvolutionCache(lstm.input_to_state, num_images, width)
        weight = lstm.state_to_state.weight
        self.states, self.cells = weight.new_zeros(2, width, num_images, weight.shape[1])
        self.cells_above = self.cells

    def begin_row(self) -> None:
        self.entering.begin_row(self.lstm.state_to_state(self.states.permute(1, 2, 0)).permute(2, 0, 1))
        self.cells_above, self.cells = self.cells, torch.empty_like(self.cells)
        self.states = torch.empty_like(self.states)

    def step(self, column: int, inputs: Tensor) -> Tensor:
        gates = self.entering.step(column, inputs)
        self.states[column], self.cells[column] = lstm_step(gates, self.cells_above[column])
        return self.states[column]


class _DiagonalCache:
    """A `DiagonalLSTM` along one row after the other."""

    def __init__(self, lstm: DiagonalLSTM, num_images: int, width: int) -> None:
        self.entering = PointwiseCache(lstm.input_to_state)
        weight = lstm.state_to_state.weight.detach()
        self.from_above, self.from_beside = (weight[:, :, place].t().contiguous() for place in (0, 1))
        # The last ones, of the column -1 where a row begins, stay zeros.
        self.states, self.cells = weight.new_zeros(2, width + 1, num_images, weight.shape[1])
        self.above = self.states @ self.from_above

    def begin_row(self) -> None:
        self.above = self.states @ self.from_above

    def step(self, column: int, inputs: Tensor) -> Tensor:
        gates = torch.addmm(self.entering(inputs) + self.above[column], self.states[column - 1], self.from_beside)
        self.states[column], self.cells[column] = lstm_step(gates, self.cells[column - 1])
        return self.states[column]


class _DiagonalPairCache:
    """A `DiagonalBiLSTM` pixel after pixel: the states from the right are those of the row above, which is whole."""

    def __init__(self, lstm: DiagonalBiLSTM, num_images: int, width: int) -> None:
        self.left, self.right = (_DiagonalCache(each, num_images, width) for each in (lstm.left, lstm.right))
        self.inputs: list[Tensor | None] = [None] * width
        self.added: list[Tensor | float] = [0.0] * width

    def begin_row(self) -> None:
        self.left.begin_row()
        self.right.begin_row()
        for place, inputs in enumerate(reversed(self.inputs)):
            if inputs is not None:
                self.added[-1 - place] = self.right.step(place, inputs).clone()

    def step(self, column: int, inputs: Tensor) -> Tensor:
        self.inputs[column] = inputs
        return self.left.step(column, inputs) + self.added[column]


class _Cache(PixelCache):
    def __init__(self, network: PixelRNN, num_images: int, labels: Tensor | None) -> None:
        channels, _, self.image_width = network.image_shape
        width = self.image_width + network.empty_columns
        self.empty = network.first.weight.new_zeros(num_images, channels)
        self.width = width
        self.first = ConvolutionCache(network.first, num_images, width)
        self.class_vectors = network.class_bias.vectors(labels)
        self.blocks: list[tuple[_RowCache | _DiagonalPairCache, PointwiseCache]] = []
        for block in network.blocks:
            assert isinstance(block, RecurrentBlock)
            lstm = block.lstm
            cache = (
                _RowCache(lstm, num_images, width)
                if isinstance(lstm, RowLSTM)
                else _DiagonalPairCache(lstm, num_images, width)  # type: ignore[arg-type]
            )
            self.blocks.append((cache, PointwiseCache(block.grow)))
        self.head = HeadCache(network.head)

    def begin_row(self) -> None:
        self.first.begin_row()
        for lstm, _ in self.blocks:
            lstm.begin_row()

    def parameters(self, column: int, pixels: Tensor) -> Tensor:
        return self.head(self._features(column, pixels))

    def finish(self, column: int, pixels: Tensor) -> None:
        self.first.put(column, pixels)
        if column == self.image_width - 1:
            for empty in range(self.image_width, self.width):
                self._features(empty, self.empty)

    def _features(self, column: int, pixels: Tensor) -> Tensor:
        features = self.first.step(column, pixels) + self.class_vectors
        for lstm, grow in self.blocks:
            features = features + grow(lstm.step(column, features))
        return features
