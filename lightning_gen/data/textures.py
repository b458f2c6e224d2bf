"""What makes another domain of grey images: colours, and textures that are cut from photographs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.images import LUMA
from lightning_gen.seeds import make_rng

PHOTOS = ("china.jpg", "flower.jpg")
"""The photographs that ship with scikit-learn, of 427x640 pixels."""
SQUARE = 64
"""Side of the squares that a photograph is cut into."""
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
"""Of the pictures that textures are cut from, how many are for each split."""
CONTRAST = 64
"""Grey levels by which foreground and background differ at least in brightness."""


def photo_squares() -> Tensor:
    """Squares (120, 3, 64, 64) uint8 that share no pixel, of both photographs of scikit-learn, row by row."""
    squares = []
    for name in PHOTOS:
        photo = torch.from_numpy(np.array(load_sample_image(name))).permute(2, 0, 1)
        cut = photo.unfold(1, SQUARE, SQUARE).unfold(2, SQUARE, SQUARE)
        squares.append(cut.permute(1, 2, 0, 3, 4).flatten(0, 1))
    return torch.cat(squares)


def divide(number: int, seed: int) -> dict[str, Tensor]:
    """Which of so many pictures are for which split: split -> ascending indices, none of them for two.

    Args:
        number: at least 5.
        seed: another seed divides them otherwise.
    """
    order = torch.randperm(number, generator=make_rng("textures", seed))
    sizes = [round(share * number) for share in SHARES.values()]
    sizes[0] = number - sum(sizes[1:])
    return {split: part.sort().values for split, part in zip(SHARES, order.split(sizes), strict=True)}


def textured(images: Tensor, pictures: Tensor, rngs: Sequence[torch.Generator]) -> Tensor:
    """Images blended with textures, ``|texture - image|``, pixel by pixel and channel by channel.

    As MNIST-M is made (Ganin et al. 2016, "Domain-adversarial training of neural networks", section 5.2.4).

    Args:
        images: (N, 1, H, W) or (N, 3, H, W) uint8.
        pictures: (T, 3, S, S) uint8, S at least H and W; each texture is a part of one of them.
        rngs: one for each image, of its texture.

    Returns:
        (N, 3, H, W) uint8.

    Raises:
        UserError: pictures smaller than the images.
    """
    height, width = images.shape[2:]
    side = pictures.shape[2]
    if max(height, width) > side:
        raise UserError(f"textures are cut from pictures of {side}x{side}: set data.image_size to at most {side}")
    blended = torch.empty(len(images), 3, height, width, dtype=torch.uint8)
    for image, out, rng in zip(images, blended, rngs, strict=True):
        which, top, left = (
            int(torch.randint(bound, (), generator=rng))
            for bound in (len(pictures), side - height + 1, side - width + 1)
        )
        texture = pictures[which, :, top : top + height, left : left + width]
        out.copy_((texture.to(torch.int16) - image.to(torch.int16)).abs())
    return blended


def coloured(images: Tensor, rngs: Sequence[torch.Generator]) -> Tensor:
    """Grey images in two random colours each: that of black, and that of white; what is between is mixed.

    Colours are uniform among pairs whose brightness differs by at least `CONTRAST` levels.

    Args:
        images: (N, 1, H, W) uint8.
        rngs: one for each image, of its colours.

    Returns:
        (N, 3, H, W) uint8.
    """
    colours = torch.stack([_two_colours(rng) for rng in rngs]).to(torch.float32)
    black, white = colours[:, 0, :, None, None], colours[:, 1, :, None, None]
    share = images.to(torch.float32) / 255
    return (black + share * (white - black)).round().to(torch.uint8)


def _two_colours(rng: torch.Generator) -> Tensor:
    """(2, 3) int64 levels of red, green and blue."""
    luma = torch.tensor(LUMA)
    while True:
        colours = torch.randint(256, (2, 3), generator=rng)
        first, second = (colours * luma).sum(1)
        if (first - second).abs() >= CONTRAST:
            return colours
