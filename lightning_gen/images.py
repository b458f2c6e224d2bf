"""The only conversions between [-1, 1] images and uint8 or other levels, grids of images, and PNG and GIF files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lightning_gen.files import atomic_path

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


def to_float(images: Tensor) -> Tensor:
    """Images from uint8 [0, 255] to float32 [-1, 1], any shape: ``x / 127.5 - 1``."""
    return images.to(torch.float32).div_(127.5).sub_(1.0)


def as_float(images: Tensor) -> Tensor:
    """Images as float32 in [-1, 1]: uint8 ones by `to_float`, others as they are."""
    return to_float(images) if images.dtype == torch.uint8 else images.to(torch.float32)


def dequantize(images: Tensor, rng: torch.Generator) -> Tensor:
    """Images from uint8 to float32 [-1, 1) with uniform noise of one grey level: ``(x + u) / 128 - 1``, u ~ U[0, 1).

    The U(0, 1/128) of SNGAN (Miyato et al. 2018) and WGAN-GP (Gulrajani et al. 2017), which makes the density of the
    pixels bounded. ``rng`` lives on the images' device.
    """
    noise = torch.rand(images.shape, generator=rng, device=images.device)
    return noise.add_(images).div_(128.0).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Images from float [-1, 1] to uint8 [0, 255], any shape, by rounding to the nearest level and clipping.

    Exactly inverts `to_float`. Values outside [-1, 1] are clipped; NaN becomes 0.
    """
    levels = images.to(torch.float32).add(1.0).mul_(127.5).nan_to_num_(0.0)
    return levels.round_().clamp_(0, 255).to(torch.uint8)


def to_levels(images: Tensor, levels: int) -> Tensor:
    """Indices of the nearest levels, int64 in [0, levels), of images in [-1, 1]."""
    return (images.float().add(1).mul(0.5 * (levels - 1))).round().clamp(0, levels - 1).long()


def from_levels(indices: Tensor, levels: int) -> Tensor:
    """Images in [-1, 1] of indices in [0, levels)."""
    return indices.float() * (2 / (levels - 1)) - 1


def grey(images: Tensor) -> Tensor:
    """Brightness (N, 1, H, W) of float images (N, C, H, W), in their range: ITU-R BT.601 for three channels."""
    if images.shape[1] == 1:
        return images
    weights = images.new_tensor(LUMA)[None, :, None, None]
    return (images * weights).sum(1, keepdim=True)


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Float images (N, C, H, W) as (N, channels, H, W): grey ones repeated, colour ones turned `grey`.

    Args:
        images: grey or RGB.
        channels: 1 or 3.
    """
    return grey(images) if channels == 1 else images.expand(-1, channels, -1, -1)


def make_grid(images: Tensor, columns: int | None = None, padding: int = 1) -> Tensor:
    """One picture of many, row by row.

    Args:
        images: (N, C, H, W) uint8, N >= 1.
        columns: images in a row; None makes the grid as square as it can be.
        padding: black pixels between neighbours.

    Returns:
        (C, rows * (H + padding) - padding, columns * (W + padding) - padding) uint8.
    """
    number, channels, height, width = images.shape
    columns = min(columns or math.ceil(math.sqrt(number)), number)
    rows = math.ceil(number / columns)
    canvas = images.new_zeros(channels, rows * (height + padding) - padding, columns * (width + padding) - padding)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + padding), (index % columns) * (width + padding)
        canvas[:, top : top + height, left : left + width] = image
    return canvas


def to_pil(image: Tensor) -> Image.Image:
    """A PIL image of mode L or RGB from uint8 (C, H, W) with C 1 or 3."""
    array = image.cpu().numpy()
    return Image.fromarray(array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0))


def save_png(image: Tensor, path: Path, scale: int = 1) -> None:
    """Write uint8 (C, H, W) as a PNG, each pixel enlarged to ``scale`` x ``scale``; the file appears whole or not."""
    picture = to_pil(image)
    if scale > 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def save_gif(frames: Sequence[Tensor], path: Path, scale: int = 1, milliseconds: int = 60) -> None:
    """Write uint8 (C, H, W) frames as an endless GIF; the file appears whole or not.

    Args:
        frames: at least one frame, all of one shape.
        path: where to write.
        scale: each pixel is enlarged to ``scale`` x ``scale``.
        milliseconds: time each frame is shown.
    """
    pictures = [to_pil(frame) for frame in frames]
    size = (pictures[0].width * scale, pictures[0].height * scale)
    first, *rest = [picture.resize(size, Image.Resampling.NEAREST) for picture in pictures]
    with atomic_path(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)


def display_scale(image_size: int) -> int:
    """The enlargement that makes a small image readable on a screen: 32 -> 2, 64 and more -> 1."""
    return max(1, 64 // image_size)
