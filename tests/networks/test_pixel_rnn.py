"""Row LSTM and Diagonal BiLSTM against loops over pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_gen.networks.pixel_rnn import DiagonalBiLSTM, DiagonalLSTM, RowLSTM, skew, unskew


def step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    output, forget, enter, content = gates.chunk(4)
    cell = forget.sigmoid() * cell + enter.sigmoid() * content.tanh()
    return output.sigmoid() * cell.tanh(), cell


def kernel(convolution: nn.Conv1d) -> Tensor:
    return convolution.weight.detach()


def test_maps_are_skewed_by_a_column_a_row() -> None:
    maps = torch.tensor([[1.0, 2, 3], [4, 5, 6]]).view(1, 1, 2, 3)
    assert skew(maps).tolist() == [[[[1, 2, 3, 0], [0, 4, 5, 6]]]]
    for shape in ((2, 3, 4, 5), (1, 2, 1, 3), (1, 1, 3, 1), (1, 2, 6, 2)):
        maps = torch.randn(shape)
        assert skew(maps).shape == (*shape[:3], shape[3] + shape[2] - 1)
        assert torch.equal(unskew(skew(maps), shape[3]), maps)


def test_a_row_lstm_follows_the_pixels_above() -> None:
    torch.manual_seed(0)
    lstm = RowLSTM([0] * 3, [0, 0], 3).double()
    maps = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    entering = lstm.input_to_state(maps).detach()[0]
    weights = kernel(lstm.state_to_state)
    states, cells = torch.zeros(2, 2, 5, 7, dtype=torch.float64)  # a row above and a column at each side of zeros
    for row in range(4):
        for column in range(5):
            gates = entering[:, row, column].clone()
            for offset in range(3):
                gates += weights[:, :, offset] @ states[:, row, column + offset]
            state, cell = step(gates, cells[:, row, column + 1])
            states[:, row + 1, column + 1], cells[:, row + 1, column + 1] = state, cell
    torch.testing.assert_close(lstm(maps)[0].detach(), states[:, 1:, 1:-1])


def diagonal_states(lstm: DiagonalLSTM, maps: Tensor) -> Tensor:
    """States (h, H, W) by following left and upper neighbors; the cell is that of the left neighbor."""
    entering = lstm.input_to_state(maps).detach()[0]
    weights = kernel(lstm.state_to_state)
    _, height, width = entering.shape
    states = torch.zeros(weights.shape[1], height + 1, width + 1, dtype=maps.dtype)
    cells = torch.zeros_like(states)
    for row in range(height):
        for column in range(width):
            above, left = states[:, row, column + 1], states[:, row + 1, column]
            gates = entering[:, row, column] + weights[:, :, 0] @ above + weights[:, :, 1] @ left
            state, cell = step(gates, cells[:, row + 1, column])
            states[:, row + 1, column + 1], cells[:, row + 1, column + 1] = state, cell
    return states[:, 1:, 1:]


def test_a_diagonal_lstm_follows_the_pixels_to_the_left_and_above() -> None:
    torch.manual_seed(0)
    lstm = DiagonalLSTM([0] * 3, [0, 0]).double()
    for height, width in ((4, 5), (5, 2), (1, 3), (3, 1)):
        maps = torch.randn(1, 3, height, width, dtype=torch.float64)
        torch.testing.assert_close(lstm(maps)[0].detach(), diagonal_states(lstm, maps))


def test_a_diagonal_bilstm_adds_the_states_from_the_right_a_row_lower() -> None:
    torch.manual_seed(0)
    both = DiagonalBiLSTM([0] * 3, [0, 0]).double()
    maps = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    expected = diagonal_states(both.left, maps)
    expected[:, 1:] += diagonal_states(both.right, maps.flip(3)).flip(2)[:, :-1]
    torch.testing.assert_close(both(maps)[0].detach(), expected)
