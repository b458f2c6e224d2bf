"""Masked convolutions against ordinary ones with masks laid out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lightning_gen.networks.masked import ConvolutionCache, MaskedConv2d, PointwiseCache, spread_groups


def full_kernel(convolution: MaskedConv2d, height: int) -> torch.Tensor:
    """The weight with the rows below the center, as zeros, and the mask written out."""
    weight = convolution.weight.detach()
    rows = weight.shape[2]
    return torch.cat([weight, weight.new_zeros(*weight.shape[:2], height - rows, weight.shape[3])], 2)


@pytest.mark.parametrize(
    ("mask", "own"), [("A", [[0, 0, 0], [1, 0, 0], [1, 1, 0]]), ("B", [[1, 0, 0], [1, 1, 0], [1, 1, 1]])]
)
@pytest.mark.parametrize("size", [(3, 3), (7, 7), (1, 5), (5, 3)])
def test_it_is_a_convolution_with_zeros_after_the_center(
    mask: str, own: list[list[int]], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    convolution = MaskedConv2d([0, 1, 2], [0, 0, 1, 1, 2, 2], size, mask).double()  # type: ignore[arg-type]
    height, width = size
    kernel = full_kernel(convolution, height)
    row, column = height // 2, width // 2
    kernel[:, :, row, column + 1 :] = 0
    kernel[:, :, row, column] *= torch.tensor(own).repeat_interleave(2, 0)
    images = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    expected = F.conv2d(images, kernel, convolution.bias, padding=(row, column))
    torch.testing.assert_close(convolution(images), expected)


def test_the_mask_stays_out_of_checkpoints_and_the_weight_as_it_was() -> None:
    convolution = MaskedConv2d([0], [0, 0], 3, "A")
    assert set(convolution.state_dict()) == {"weight", "bias"}
    before = convolution.weight.detach().clone()
    convolution(torch.randn(1, 1, 4, 4)).sum().backward()
    assert torch.equal(convolution.weight, before)
    assert convolution.weight.grad is not None
    assert (convolution.weight.grad[:, :, -1, 1:] == 0).all()


@pytest.mark.parametrize("size", [(3, 3), (7, 7), (1, 5), (3, 1)])
def test_pixel_after_pixel_gives_the_whole_convolution(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    convolution = MaskedConv2d([0, 0, 1], [0, 1, 1, 1], size, "B").double()
    maps = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    added = torch.randn(5, 6, 2, 4, dtype=torch.float64)
    cache = ConvolutionCache(convolution, 2, 6)
    found = torch.zeros(2, 4, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        for row in range(5):
            cache.begin_row(added[row])
            for column in range(6):
                found[:, :, row, column] = cache.step(column, maps[:, :, row, column])
    torch.testing.assert_close(found, convolution(maps).detach() + added.permute(2, 3, 0, 1))


def test_a_pixel_alone_gives_the_convolution_of_one_by_one() -> None:
    torch.manual_seed(0)
    convolution = MaskedConv2d([0, 1, 1], [1, 0], 1, "B")
    features = torch.randn(4, 3)
    with torch.no_grad():
        torch.testing.assert_close(
            PointwiseCache(convolution)(features), convolution(features[..., None, None])[..., 0, 0]
        )


def test_groups_are_as_even_as_can_be() -> None:
    assert spread_groups(6, 3) == [0, 0, 1, 1, 2, 2]
    assert spread_groups(4, 3) == [0, 0, 1, 2]
    assert spread_groups(5, 1) == [0] * 5
