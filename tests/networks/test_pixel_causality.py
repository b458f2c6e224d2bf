"""Parameters of a pixel see the pixels and channels before it and no others."""

from __future__ import annotations

import pytest
import torch

from lightning_gen.errors import UserError
from lightning_gen.networks.pixel_rnn import PixelRNN
from lightning_gen.networks.pixelcnn import PixelCNN
from lightning_gen.networks.pixelcnn_pp import PixelCNNPP
from tests.networks.pixel_networks import NETWORKS, before, make, reached

GREY, COLORS, COUPLED = (1, [0, 0]), (3, [0, 0, 1, 1, 2, 2]), (3, [0, 0])
KINDS = {"grey": GREY, "colors": COLORS, "coupled_colors": COUPLED}
CASES = [(name, kind) for name in NETWORKS for kind in KINDS if (name, kind) != ("pixelcnn_pp", "colors")]
WITHOUT_BLIND_SPOT = ("gated_pixelcnn", "pixel_rnn_diagonal", "pixelcnn_pp")


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_nothing_after_a_pixel_and_channel_reaches_it(name: str, kind: str) -> None:
    channels, parameter_channels = KINDS[kind]
    network = make(name, (channels, 5, 6), parameter_channels)
    found, allowed = reached(network), before(network)
    assert found.shape == allowed.shape
    assert not (found & ~allowed).any()


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if case[0] in WITHOUT_BLIND_SPOT])
def test_all_that_is_before_reaches_a_pixel(name: str, kind: str) -> None:
    channels, parameter_channels = KINDS[kind]
    network = make(name, (channels, 5, 6), parameter_channels)
    assert torch.equal(reached(network), before(network))


def test_a_pixelcnn_of_any_depth_has_the_blind_spot_of_its_kernel() -> None:
    torch.manual_seed(0)
    network = PixelCNN((1, 5, 6), [0], None, 12, 10, 24, 3, 3).double()
    rows, columns = torch.arange(5), torch.arange(6)
    above = rows[:, None, None, None] - rows[:, None]
    right = columns - columns[:, None, None]
    seen = before(network)[0, :, :, 0] & (right <= above)
    assert torch.equal(reached(network)[0, :, :, 0], seen)
    assert not torch.equal(seen, before(network)[0, :, :, 0])


def test_a_row_lstm_sees_a_triangle() -> None:
    torch.manual_seed(0)
    network = PixelRNN((1, 5, 8), [0], None, "row", 12, 1, 24, 3, 3).double()
    found = reached(network)[0, 4, 4, 0]
    # States widen it by a column on both sides for each row up; the first layer and the one from input to state by a
    # column each to the left, and the first layer, which sees the row above, by none beyond the states to the right.
    expected = torch.zeros(5, 8, dtype=torch.bool)
    for row in range(5):
        up = 4 - row
        left, right = up + 2, up if up else -1
        expected[row, max(0, 4 - left) : 4 + right + 1] = True
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_below_need_not_be_there(name: str) -> None:
    network = make(name, (3, 7, 5), [0] * 4)
    images = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    whole = network(images)
    assert whole.shape == (2, 4, 7, 5)
    for rows in range(1, 7):
        torch.testing.assert_close(network(images[:, :, :rows]), whole[:, :, :rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_labels_reach_every_pixel(name: str) -> None:
    network = make(name, (1, 4, 4), [0], num_classes=3)
    images = torch.randn(1, 1, 4, 4, dtype=torch.float64).expand(3, -1, -1, -1)
    one, two, three = network(images, torch.arange(3))
    assert (one != two).all()
    assert (two != three).all()
    with pytest.raises(ValueError, match="takes labels"):
        network(images)


def test_pixelcnn_pp_leaves_colors_to_the_law() -> None:
    with pytest.raises(UserError, match=r"model\.law\.name=logistic_mixture"):
        PixelCNNPP((3, 8, 8), [0, 1, 2])
    with pytest.raises(UserError, match="at least 1"):
        PixelCNNPP((1, 8, 8), [0], sizes=0)


def test_another_lstm_is_refused() -> None:
    with pytest.raises(UserError, match="row or diagonal"):
        PixelRNN((1, 8, 8), [0], lstm="column")  # type: ignore[arg-type]
