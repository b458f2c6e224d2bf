"""Views of images, pixel by pixel."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_gen.errors import UserError
from lightning_gen.networks.views import Gradients, Half, Pixels

IMAGES = torch.arange(2 * 2 * 5 * 4.0).view(2, 2, 5, 4)
SHAPE = (2, 5, 4)


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        ("top", IMAGES[:, :, :2]),
        ("bottom", IMAGES[:, :, 3:]),
        ("left", IMAGES[..., :2]),
        ("right", IMAGES[..., 2:]),
    ],
)
def test_halves_share_no_pixel(side: Any, expected: torch.Tensor) -> None:
    view = Half(SHAPE, side)
    assert torch.equal(view(IMAGES), expected)
    assert view.view_shape == expected.shape[1:]


def test_gradients_are_differences_of_neighbours() -> None:
    view = Gradients((1, 2, 3))
    image = torch.tensor([[[[1.0, 4.0, 9.0], [0.0, 0.0, 5.0]]]])
    assert view(image).tolist() == [[[[3, 5, 0], [0, 5, 0]], [[-1, -4, -4], [0, 0, 0]]]]
    torch.testing.assert_close(view(image + 0.5), view(image))
    assert view.view_shape == (2, 2, 3)
    assert Gradients(SHAPE)(IMAGES).shape == (2, 4, 5, 4)


def test_pixels_are_all() -> None:
    assert torch.equal(Pixels(SHAPE)(IMAGES), IMAGES)
    assert Pixels(SHAPE).view_shape == SHAPE


def test_what_is_no_half_is_refused() -> None:
    with pytest.raises(UserError, match="a half is top, bottom, left or right, not 'middle'"):
        Half(SHAPE, "middle")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="images of 1x4 have no top half"):
        Half((1, 1, 4), "top")
