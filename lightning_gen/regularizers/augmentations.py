"""Random changes of images that pass gradients, for augmentations that a discriminator sees.

Everything works on a whole batch, images (N, C, H, W) in [-1, 1], and changes each image in its own way. Positions are
in pixels from the center of the image, x to the right and y down. Random numbers come from torch's global generators.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def flip_images(images: Tensor) -> Tensor:
    """Each image mirrored left to right with probability 1/2."""
    return torch.where(_draw(images) < 0.5, images.flip(3), images)


def shift_images(
    images: Tensor, down: Tensor, right: Tensor, reach: tuple[int, int], padding: Literal["constant", "reflect"]
) -> Tensor:
    """Images moved by whole pixels.

    Args:
        images: (N, C, H, W).
        down: (N,) int64, at most ``reach[0]`` in magnitude.
        right: (N,) int64, at most ``reach[1]`` in magnitude.
        reach: the largest moves, each less than the image's size where ``padding`` is ``reflect``.
        padding: what moves in: zeros (``constant``), or the image reflected about its outermost pixels.
    """
    _, channels, height, width = images.shape
    padded = F.pad(images, [reach[1], reach[1], reach[0], reach[0]], mode=padding)
    rows = torch.arange(reach[0], reach[0] + height, device=images.device) - down[:, None]
    columns = torch.arange(reach[1], reach[1] + width, device=images.device) - right[:, None]
    cut = padded.gather(2, rows[:, None, :, None].expand(-1, channels, -1, padded.shape[3]))
    return cut.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))


def translate_images(images: Tensor, reach: tuple[int, int], padding: Literal["constant", "reflect"]) -> Tensor:
    """Each image moved by a random whole number of pixels up to ``reach`` in each direction; see `shift_images`."""
    down, right = (torch.randint(-most, most + 1, (len(images),), device=images.device) for most in reach)
    return shift_images(images, down, right, reach, padding)


def jitter_brightness(images: Tensor) -> Tensor:
    """Plus U[-0.5, 0.5) (Zhao et al. 2020, DiffAugment, and its code)."""
    return images + _draw(images) - 0.5


def jitter_saturation(images: Tensor) -> Tensor:
    """Each pixel's difference from its mean over channels times U[0, 2) (Zhao et al. 2020)."""
    mean = images.mean(1, keepdim=True)
    return mean + (images - mean) * 2 * _draw(images)


def jitter_contrast(images: Tensor) -> Tensor:
    """Each image's difference from its mean times U[0.5, 1.5) (Zhao et al. 2020)."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (_draw(images) + 0.5)


def jitter_color(images: Tensor) -> Tensor:
    """Brightness, then saturation, then contrast (Zhao et al. 2020)."""
    return jitter_contrast(jitter_saturation(jitter_brightness(images)))


def translate_with_zeros(images: Tensor) -> Tensor:
    """A translation by up to 1/8 of each size, with zeros moving in (Zhao et al. 2020)."""
    height, width = images.shape[2:]
    return translate_images(images, (int(height / 8 + 0.5), int(width / 8 + 0.5)), "constant")


def cut_out(images: Tensor) -> Tensor:
    """Zeros in a rectangle of half the size around a random place; it may be partly outside (Zhao et al. 2020)."""
    inside = [_random_interval(images, size) for size in images.shape[2:]]
    return images * ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])


DIFFAUGMENT: dict[str, Callable[[Tensor], Tensor]] = {
    "color": jitter_color,
    "translation": translate_with_zeros,
    "cutout": cut_out,
}
"""The transformations of DiffAugment by the names of the paper."""


def warp_images(images: Tensor, matrices: Tensor) -> Tensor:
    """Images resampled once: bilinear, reflected about their outermost pixels.

    Args:
        images: (N, C, H, W).
        matrices: (N, 3, 3) of homogeneous positions (x, y, 1); from a position in the result to the one in ``images``
            whose value it takes.
    """
    height, width = images.shape[2:]
    y, x = (torch.arange(size, dtype=images.dtype, device=images.device) - (size - 1) / 2 for size in (height, width))
    rows = matrices[:, :2, :, None, None]
    # Written out, because a matrix product may round to TF32.
    source_x, source_y = (row[:, 0] * x + row[:, 1] * y[:, None] + row[:, 2] for row in rows.unbind(1))
    grid = torch.stack([source_x * 2 / (width - 1), source_y * 2 / (height - 1)], 3)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=True)


def transform_colors(images: Tensor, matrices: Tensor) -> Tensor:
    """Colors of images (N, 3, H, W), or of grey ones (N, 1, H, W), under matrices (N, 4, 4) of (r, g, b, 1).

    A grey image must stay grey under its matrix.
    """
    offsets = matrices[:, :3, 3, None, None]
    if images.shape[1] == 1:
        return images * matrices[:, :1, :3].sum(2)[:, :, None, None] + offsets[:, :1]
    return (matrices[:, :3, :3, None, None] * images[:, None]).sum(2) + offsets


def scale2d(x: Tensor, y: Tensor) -> Tensor:
    """Matrices (N, 3, 3) of the scalings by (N,) factors."""
    return _matrix([[x, 0, 0], [0, y, 0], [0, 0, 1]], x)


def rotate2d(angle: Tensor) -> Tensor:
    """Matrices (N, 3, 3) of the rotations by (N,) radians, from x towards y."""
    cosine, sine = angle.cos(), angle.sin()
    return _matrix([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], angle)


def translate2d(x: Tensor, y: Tensor) -> Tensor:
    """Matrices (N, 3, 3) of the translations by (N,) pixels."""
    return _matrix([[1, 0, x], [0, 1, y], [0, 0, 1]], x)


def random_blits(images: Tensor, probability: Tensor) -> Tensor:
    """Matrices (N, 3, 3) for `warp_images` that move whole pixels ("pixel blitting").

    Karras et al. 2020, ADA, appendix B. In this order, each with the probability: a flip of x, one of two ways; a
    rotation by 0, 90, 180 or 270 degrees; a translation by U[-1/8, 1/8] of each size, rounded to pixels.
    """
    sample = _Sampler(images, probability)
    height, width = images.shape[2:]
    flip = sample(1 - 2 * sample.integers(2), 1)
    turns = sample(sample.integers(4), 0)
    x, y = sample((2 * sample.uniform(2) - 1) / 8, 0)
    inverses = [scale2d(flip, torch.ones_like(flip)), rotate2d(turns * (math.pi / 2))]
    return _product(*inverses, translate2d(-(x * width).round(), -(y * height).round()))


def random_geometry(images: Tensor, probability: Tensor) -> Tensor:
    """Matrices (N, 3, 3) for `warp_images` ("general geometric transformations").

    Karras et al. 2020, ADA, appendix B. In this order, with s standing for 2^N(0, 0.2^2), and each with the
    probability: scaling by s; a rotation by U[-pi, pi]; scaling by s in x and 1/s in y; another rotation; a translation
    by N(0, 1/8^2) of each size. The two rotations have a probability of 1 - sqrt(1 - p) each, so that at least one of
    them happens with probability p.
    """
    sample = _Sampler(images, probability)
    rotated = _Sampler(images, 1 - (1 - probability).sqrt())
    height, width = images.shape[2:]
    size = sample((0.2 * sample.normal()).exp2(), 1)
    before = rotated((2 * sample.uniform() - 1) * math.pi, 0)
    aspect = sample((0.2 * sample.normal()).exp2(), 1)
    after = rotated((2 * sample.uniform() - 1) * math.pi, 0)
    x, y = sample(sample.normal(2) / 8, 0)
    inverses = [scale2d(1 / size, 1 / size), rotate2d(-before), scale2d(1 / aspect, aspect), rotate2d(-after)]
    return _product(*inverses, translate2d(-x * width, -y * height))


def random_colors(images: Tensor, probability: Tensor) -> Tensor:
    """Matrices (N, 4, 4) for `transform_colors` ("color transformations").

    Karras et al. 2020, ADA, appendix B. In this order, each with the probability: brightness plus N(0, 0.2^2); contrast
    times 2^N(0, 0.5^2); a reflection of the luma axis (1, 1, 1), one of two ways; a rotation of the hue about it by
    U[-pi, pi]; saturation times 2^N(0, 1). Hue and saturation leave grey as it is, so they are left out for images of
    one channel.
    """
    sample = _Sampler(images, probability)
    brightness = sample(0.2 * sample.normal(), 0)
    contrast = sample((0.5 * sample.normal()).exp2(), 1)
    luma = sample(1 - 2 * sample.integers(2), 1)
    turn, saturation = torch.zeros_like(luma), torch.ones_like(luma)
    if images.shape[1] > 1:
        turn = sample((2 * sample.uniform() - 1) * math.pi, 0)
        saturation = sample(sample.normal().exp2(), 1)
    # All of them keep the luma axis and turn and scale the plane across it, so that one product of each kind is enough.
    eye = torch.eye(3, dtype=images.dtype, device=images.device)
    along = torch.full_like(eye, 1 / 3)
    across = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]).to(eye) / math.sqrt(3)
    # Added to the identity, which a product of neutral ones is to the bit.
    plane = (saturation * turn.cos() - 1)[:, None, None] * (eye - along)
    plane = plane + (saturation * turn.sin())[:, None, None] * across
    linear = contrast[:, None, None] * (eye + (luma - 1)[:, None, None] * along + plane)
    offset = (luma * contrast * brightness)[:, None, None].expand(-1, 3, 1)
    last = torch.tensor([0.0, 0, 0, 1]).to(eye).expand(len(images), 1, 4)
    return torch.cat([torch.cat([linear, offset], 2), last], 1)


def augment_adaptively(images: Tensor, probability: Tensor, transformations: str = "bgc") -> Tensor:
    """The augmentation of ADA (Karras et al. 2020, appendix B), each transformation with the probability p.

    The geometric transformations become one matrix and one resampling, those of color one matrix. The paper resamples
    between wavelet filters that raise and lower the resolution; here it is bilinear without them, so that images that
    shrink much are not filtered. Images that nothing happens to come back to the bit.

    Args:
        images: (N, C, H, W) in [-1, 1]; C of 1 or 3 where ``transformations`` has a ``c``.
        probability: (), p in [0, 1].
        transformations: any of ``b`` (`random_blits`), ``g`` (`random_geometry`), ``c`` (`random_colors`).

    Returns:
        Augmented images, not clipped.
    """
    # Positions in half precision would be off by whole pixels.
    exact = images.to(torch.promote_types(images.dtype, torch.float32))
    probability = probability.to(exact.dtype)
    matrices = torch.eye(3, dtype=exact.dtype, device=exact.device).expand(len(exact), 3, 3)
    if "b" in transformations:
        matrices = random_blits(exact, probability)
    if "g" in transformations:
        matrices = _product(matrices, random_geometry(exact, probability))
    if "b" in transformations or "g" in transformations:
        exact = torch.where(_changes(matrices), warp_images(exact, matrices), exact)
    if "c" in transformations:
        colors = random_colors(exact, probability)
        exact = torch.where(_changes(colors), transform_colors(exact, colors), exact)
    return exact.to(images.dtype)


class _Sampler:
    """Random parameters (..., N) of N images, each in force for an image with a probability, else neutral."""

    def __init__(self, images: Tensor, probability: Tensor) -> None:
        self.like = images[:, 0, 0, 0]
        self.probability = probability

    def uniform(self, *rows: int) -> Tensor:
        return torch.rand_like(self.like.expand(*rows, -1))

    def normal(self, *rows: int) -> Tensor:
        return torch.randn_like(self.like.expand(*rows, -1))

    def integers(self, limit: int) -> Tensor:
        return torch.randint_like(self.like, limit)

    def __call__(self, values: Tensor, neutral: float) -> Tensor:
        """Values, for the images that are chosen at random."""
        return torch.where(self.uniform() < self.probability, values, neutral)


def _draw(images: Tensor) -> Tensor:
    """A number (N, 1, 1, 1) ~ U[0, 1) for each image."""
    return torch.rand_like(images[:, :1, :1, :1])


def _random_interval(images: Tensor, size: int) -> Tensor:
    """Where (N, size) an interval of half the size is, all its centers from edge to edge being equally likely."""
    length = (size + 1) // 2
    center = torch.randint(0, size + 1 - length % 2, (len(images), 1), device=images.device)
    distance = torch.arange(size, device=images.device) - (center - length // 2)
    return (distance >= 0) & (distance < length)


def _matrix(rows: list[list[Tensor | int]], like: Tensor) -> Tensor:
    full = [[torch.full_like(like, entry) if isinstance(entry, int) else entry for entry in row] for row in rows]
    return torch.stack([torch.stack(row, 1) for row in full], 1)


def _product(*matrices: Tensor) -> Tensor:
    """Products (N, K, K), written out because a matrix product may round to TF32."""
    product = matrices[0]
    for matrix in matrices[1:]:
        product = (product[:, :, :, None] * matrix[:, None]).sum(2)
    return product


def _changes(matrices: Tensor) -> Tensor:
    """Whether (N, 1, 1, 1) matrices are not the identity."""
    eye = torch.eye(matrices.shape[1], dtype=matrices.dtype, device=matrices.device)
    return (matrices != eye).any(2).any(1)[:, None, None, None]
