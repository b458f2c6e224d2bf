"""Small images as vectors, with their classes: what classifiers of pixels are fitted to and tested on."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

GRID = 16
"""Height and width that larger images are averaged to, so that the size of what is kept has a bound."""


class LabelledPixels(NamedTuple):
    """Images as vectors.

    Attributes:
        pixels: (N, D) float32 in [0, 1], see `pooled_pixels`.
        labels: (N,) int64.
    """

    pixels: Tensor
    labels: Tensor


def pooled_pixels(images: Tensor) -> Tensor:
    """uint8 images (N, C, H, W) as vectors (N, C * h * w) float32 in [0, 1], averaged to at most `GRID` x `GRID`."""
    height, width = images.shape[-2:]
    small = adaptive_avg_pool2d(images.float() / 255, (min(GRID, height), min(GRID, width)))
    return small.flatten(1)
