"""Random changes of training batches, made on the device for the whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from lightning_gen.errors import UserError


class Augmentation:
    """Horizontal flips and random crops, each image's own.

    A batch of pairs is augmented with its channels stacked, so both images of a pair are changed alike. The random
    numbers are drawn on the CPU, so the same images come out on every device.

    Args:
        horizontal_flip: mirror every other image or so (probability 0.5).
        pad_crop: enlarge by so many pixels a side, by reflection, and cut the old size at a random place.
        resize_crop: enlarge to this height and width by bicubic filtering and cut the old size at a random place
            (286 for 256 in pix2pix, Isola et al. 2017, section 6.2); None for none.

    Raises:
        UserError: a negative size.
    """

    def __init__(self, horizontal_flip: bool = False, pad_crop: int = 0, resize_crop: int | None = None) -> None:
        if pad_crop < 0 or (resize_crop is not None and resize_crop < 1):
            raise UserError(f"data.augmentation sizes must be positive, not pad_crop={pad_crop}, {resize_crop=}")
        self.horizontal_flip = horizontal_flip
        self.pad_crop = pad_crop
        self.resize_crop = resize_crop

    @property
    def changes_images(self) -> bool:
        """Whether there is anything to do."""
        return self.horizontal_flip or self.pad_crop > 0 or self.resize_crop is not None

    def check(self, image_size: int) -> None:
        """Raise UserError if images of this height and width cannot be augmented."""
        if self.resize_crop is not None and self.resize_crop < image_size:
            raise UserError(
                f"data.augmentation.resize_crop={self.resize_crop} is less than the image size {image_size}"
            )
        if self.pad_crop >= image_size:
            raise UserError(f"data.augmentation.pad_crop={self.pad_crop} must be less than the image size {image_size}")

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Augmented images (N, C, H, W), float in [-1, 1], from such images; ``rng`` lives on the CPU."""
        height, width = images.shape[2:]
        if self.resize_crop is not None:
            larger = interpolate(images, size=[self.resize_crop] * 2, mode="bicubic", antialias=True)
            images = _random_crop(larger.clamp_(-1, 1), height, width, rng)
        if self.pad_crop:
            images = _random_crop(pad(images, [self.pad_crop] * 4, mode="reflect"), height, width, rng)
        if self.horizontal_flip:
            flip = torch.rand(len(images), generator=rng) < 0.5
            images = torch.where(flip.to(images.device, non_blocking=True)[:, None, None, None], images.flip(3), images)
        return images


def _random_crop(images: Tensor, height: int, width: int, rng: torch.Generator) -> Tensor:
    """Each image's own window of that height and width, all places equally likely."""
    number, _, whole_height, whole_width = images.shape
    device = images.device
    top = torch.randint(whole_height - height + 1, (number, 1), generator=rng).to(device, non_blocking=True)
    left = torch.randint(whole_width - width + 1, (number, 1), generator=rng).to(device, non_blocking=True)
    rows = (top + torch.arange(height, device=device))[:, None, :, None]
    columns = (left + torch.arange(width, device=device))[:, None, None, :]
    image = torch.arange(number, device=device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=device)[None, :, None, None]
    return images[image, channel, rows, columns]
