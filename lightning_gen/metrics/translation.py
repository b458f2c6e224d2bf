"""Scores of translations: how far an image is from the one it should be.

Each is a mean over images, so it comes with the standard error of a mean. Sums are in float64 and added over processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from lightning_gen.errors import UserError
from lightning_gen.images import to_uint8
from lightning_gen.metrics.base import ScoreValue
from lightning_gen.metrics.extractors import create_extractor
from lightning_gen.metrics.extractors.base import FeatureExtractor
from lightning_gen.metrics.extractors.lpips import lpips_at_hand

SMALLEST_SSIM = 6
"""Height and width from which images have an SSIM: its window reaches five pixels beyond the border."""
LPIPS_BLOCK = 4
"""Images whose features are held at once: each has millions of them."""


class ImageMean(torchmetrics.Metric):
    """Mean of a number of each image, with its standard error."""

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add the numbers (N,) of N images."""
        values = values.double()
        self.sums += torch.stack([values.new_tensor(len(values)), values.sum(), values.square().sum()])

    def compute(self) -> ScoreValue:
        """Mean and standard error over the images of all processes; no error for a single image."""
        number, total, squares = self.sums.tolist()
        mean = total / number
        if number < 2:
            return ScoreValue(mean)
        return ScoreValue(mean, (max(squares / number - mean**2, 0.0) / (number - 1)) ** 0.5)


@dataclass(frozen=True)
class PairMeasure:
    """A number of each of N pairs of images.

    Attributes:
        name: of the score.
        of: float images (N, C, H, W) in [-1, 1] and what they should be, to (N,) numbers.
        lower_is_better: the direction.
        settings: JSON-able, part of the score's protocol.
        extractor: the protocol of the features, None without.
        ranked: False where the score may not stand on a leaderboard.
    """

    name: str
    of: Callable[[Tensor, Tensor], Tensor]
    lower_is_better: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    extractor: Mapping[str, Any] | None = None
    ranked: bool = True


def absolute_difference(images: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute difference (N,) of images (N, C, H, W), in the units of [-1, 1]: from 0 to 2."""
    return (images.double() - targets.double()).abs().flatten(1).mean(1)


def peak_signal_noise_ratio(images: Tensor, targets: Tensor) -> Tensor:
    """PSNR (N,) in dB of images (N, C, H, W) in [-1, 1], rounded to uint8: ``10 log10(255^2 / MSE)``.

    An exact image counts as one that is off by a level in one channel of one pixel, so that the mean stays finite.
    """
    difference = (to_uint8(images).double() - to_uint8(targets).double()).flatten(1)
    error = difference.square().mean(1).clamp_min(1 / difference.shape[1])
    return 10 * torch.log10(255**2 / error)


def structural_similarity(images: Tensor, targets: Tensor) -> Tensor:
    """SSIM (N,), at most 1, of images (N, C, H, W) in [-1, 1], rounded to uint8.

    Wang et al. 2004, with their Gaussian window of 11 pixels and deviation 1.5, by torchmetrics: borders are reflected
    and channels averaged. In float32, because float64 takes twenty times as long for digits that are not read.
    """
    pixels, wanted = (to_uint8(each).float() / 255 for each in (images, targets))
    values = structural_similarity_index_measure(pixels, wanted, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values


def perceptual_distance(extractor: FeatureExtractor, images: Tensor, targets: Tensor) -> Tensor:
    """LPIPS (N,): the squared distance of the features of images (N, C, H, W) in [-1, 1], rounded to uint8."""
    distances = []
    for pair in zip(images.split(LPIPS_BLOCK), targets.split(LPIPS_BLOCK), strict=True):
        first, second = (extractor(to_uint8(each)).features for each in pair)
        distances.append((first - second).double().square().sum(1))
    return torch.cat(distances)


def pair_measures(image_size: int, lpips: FeatureExtractor | None = None) -> list[PairMeasure]:
    """L1, PSNR, SSIM and, with its extractor, LPIPS."""
    measures = [
        PairMeasure("l1", absolute_difference),
        PairMeasure("psnr", peak_signal_noise_ratio, lower_is_better=False),
    ]
    if image_size >= SMALLEST_SSIM:
        window = {"window": "gaussian_11_1.5"}
        measures.append(PairMeasure("ssim", structural_similarity, lower_is_better=False, settings=window))
    if lpips is not None:

        def distance(images: Tensor, targets: Tensor) -> Tensor:
            return perceptual_distance(lpips, images, targets)

        measures.append(PairMeasure("lpips", distance, extractor=lpips.protocol(), ranked=lpips.ranked))
    return measures


def load_lpips(image_size: int, wanted: bool | None) -> FeatureExtractor | None:
    """The extractor of LPIPS for images of a size.

    Args:
        image_size: height and width; images of less than 32 are enlarged to that.
        wanted: True: it must be there, and is downloaded if it is not; None: if its weights are at hand; False: never.

    Raises:
        UserError: it is wanted and cannot be had, or its weights are damaged.
    """
    if wanted is False or (wanted is None and not lpips_at_hand()):
        return None
    try:
        return create_extractor("lpips", size=max(32, image_size))
    except UserError as error:
        raise UserError(f"{error}, or callbacks.scores.lpips=false") from error
