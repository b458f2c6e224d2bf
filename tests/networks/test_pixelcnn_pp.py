"""The layers of PixelCNN++ by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_gen.networks.pixelcnn_pp import PixelCNNPP
from lightning_gen.networks.pixelcnn_pp_layers import (
    GatedResidual,
    Level,
    ShiftedConv2d,
    ShiftedUpsampling2d,
    concat_elu,
)


@pytest.mark.parametrize(
    ("size", "own_column_last"), [((2, 3), False), ((1, 3), False), ((2, 2), True), ((2, 1), True)]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_shifted_convolution_ends_at_the_pixel_s_row(
    size: tuple[int, int], own_column_last: bool, stride: int
) -> None:
    torch.manual_seed(0)
    layer = ShiftedConv2d(2, 3, size, own_column_last, stride).double()
    maps = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    found = layer(maps).detach()
    weight, bias = layer.convolution.weight.detach(), layer.convolution.bias
    height, width = size
    assert found.shape == (1, 3, -(-5 // stride), -(-6 // stride))
    for row in range(found.shape[2]):
        for column in range(found.shape[3]):
            total = bias.detach().clone()
            for a in range(height):
                for b in range(width):
                    i = stride * row + a - (height - 1)
                    j = stride * column + b - (width - 1 if own_column_last else width // 2)
                    if 0 <= i < 5 and 0 <= j < 6:
                        total += weight[:, :, a, b] @ maps[0, :, i, j]
            torch.testing.assert_close(found[0, :, row, column], total)


@pytest.mark.parametrize(("size", "own_column_last"), [((2, 3), False), ((2, 2), True)])
def test_an_upsampling_gives_each_pixel_to_those_from_twice_its_place_on(
    size: tuple[int, int], own_column_last: bool
) -> None:
    torch.manual_seed(0)
    layer = ShiftedUpsampling2d(2, size, own_column_last).double()
    maps = torch.randn(1, 2, 3, 4, dtype=torch.float64)
    weight, bias = layer.convolution.weight.detach(), layer.convolution.bias.detach()
    expected = bias[:, None, None].repeat(1, 5, 7)
    for row in range(3):
        for column in range(4):
            for a in range(size[0]):
                for b in range(size[1]):
                    i, j = 2 * row + a, 2 * column + b - (0 if own_column_last else 1)
                    if i < 5 and 0 <= j < 7:
                        expected[:, i, j] += weight[:, :, a, b].T @ maps[0, :, row, column]
    torch.testing.assert_close(layer(maps, (5, 7))[0].detach(), expected)


def test_a_gated_residual_layer_is_the_paper_s() -> None:
    torch.manual_seed(0)
    layer = GatedResidual(4, 3, (2, 2), True, 0.5, num_classes=2).eval()
    maps, shortcut, labels = torch.randn(2, 4, 5, 5), torch.randn(2, 3, 5, 5), torch.tensor([1, 0])

    def both_signs(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([F.elu(x), F.elu(-x)], 1)

    torch.testing.assert_close(concat_elu(maps), both_signs(maps))
    assert layer.shortcut is not None
    assert layer.class_bias.table is not None
    inner = layer.first(both_signs(maps)) + layer.shortcut(both_signs(shortcut))
    outer = layer.second(both_signs(inner)) + layer.class_bias.table[labels][:, :, None, None]
    expected = maps + outer[:, :4] * torch.sigmoid(outer[:, 4:])
    torch.testing.assert_close(layer(maps, shortcut, labels), expected)
    layer.train()
    assert not torch.equal(layer(maps, shortcut, labels), layer(maps, shortcut, labels))


def test_it_has_the_published_layers() -> None:
    network = PixelCNNPP((3, 32, 32), [0] * 100, channels=3)
    layers = [module for module in network.modules() if isinstance(module, GatedResidual)]
    assert len(layers) == 2 * (3 * 5 + 5 + 6 + 6)
    assert {module.p for module in network.modules() if isinstance(module, nn.Dropout)} == {0.5}
    levels = [module for module in network.modules() if isinstance(module, Level)]
    assert [(len(level.down), len(level.up)) for level in levels] == [(5, 6), (5, 6), (5, 5)]
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 100, 32, 32)
