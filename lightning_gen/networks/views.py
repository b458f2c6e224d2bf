"""Views of an image: parts or features of it that a classifier may see alone (Blum and Mitchell 1998).

A view takes ``image_shape`` (C, H, W) and says in its attribute ``view_shape`` what it makes of it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError

Side = Literal["top", "bottom", "left", "right"]


class View(nn.Module):
    """Images to what is seen of them; without parameters.

    Attributes:
        view_shape: (C', H', W').
    """

    view_shape: tuple[int, int, int]


class Half(View):
    """One half of the image; of an odd number of rows or columns the middle one is in neither.

    Args:
        image_shape: (C, H, W).
        side: ``top``, ``bottom``, ``left`` or ``right``.

    Raises:
        UserError: another side, or an image too small.
    """

    def __init__(self, image_shape: tuple[int, int, int], side: Side) -> None:
        super().__init__()
        channels, height, width = image_shape
        if side not in ("top", "bottom", "left", "right"):
            raise UserError(f"model.views: a half is top, bottom, left or right, not {side!r}")
        self.side = side
        self.dim = 2 if side in ("top", "bottom") else 3
        self.size = (height if self.dim == 2 else width) // 2
        if not self.size:
            raise UserError(f"model.views: images of {height}x{width} have no {side} half")
        self.view_shape = (channels, self.size, width) if self.dim == 2 else (channels, height, self.size)

    def forward(self, images: Tensor) -> Tensor:
        """The half (N, C, H', W') of images (N, C, H, W)."""
        start = 0 if self.side in ("top", "left") else images.shape[self.dim] - self.size
        return images.narrow(self.dim, start, self.size)


class Pixels(View):
    """The whole image.

    Args:
        image_shape: (C, H, W).
    """

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.view_shape = image_shape

    def forward(self, images: Tensor) -> Tensor:
        """The images (N, C, H, W) themselves."""
        return images


class Gradients(View):
    """Differences of neighbouring pixels, along rows and along columns; what is flat is 0, whatever its brightness.

    Args:
        image_shape: (C, H, W).
    """

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.view_shape = (2 * channels, height, width)

    def forward(self, images: Tensor) -> Tensor:
        """x[i, j + 1] - x[i, j], then x[i + 1, j] - x[i, j], 0 past the border: (N, 2 C, H, W) in [-2, 2]."""
        across = torch.zeros_like(images)
        across[..., :-1] = images[..., 1:] - images[..., :-1]
        down = torch.zeros_like(images)
        down[..., :-1, :] = images[..., 1:, :] - images[..., :-1, :]
        return torch.cat([across, down], 1)
