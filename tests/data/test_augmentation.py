from typing import Any

import pytest
import torch
from torch.nn.functional import interpolate, pad

from lightning_gen.data.augmentation import Augmentation
from lightning_gen.errors import UserError
from lightning_gen.images import dequantize, to_float, to_uint8


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(number: int = 64, channels: int = 3, size: int = 12) -> torch.Tensor:
    return torch.rand(number, channels, size, size, generator=rng(9)) * 2 - 1


def windows(image: torch.Tensor, size: int) -> list[torch.Tensor]:
    steps = range(image.shape[1] - size + 1)
    return [image[:, top : top + size, left : left + size] for top in steps for left in steps]


def place(image: torch.Tensor, candidates: list[torch.Tensor]) -> int:
    """Which candidate the image is; it must be one."""
    (found,) = [index for index, candidate in enumerate(candidates) if torch.equal(image, candidate)]
    return found


def test_flips_are_mirror_images_of_about_half() -> None:
    images = pictures(400, 1, 4)
    flipped = Augmentation(horizontal_flip=True)(images, rng())
    choices = [place(new, [old, old.flip(2)]) for new, old in zip(flipped, images, strict=True)]
    assert 160 < sum(choices) < 240


def test_pad_crop_cuts_windows_of_the_reflected_image() -> None:
    images = pictures(400, 1, 6)
    cut = Augmentation(pad_crop=2)(images, rng())
    larger = pad(images, [2] * 4, mode="reflect")
    places = [place(new, windows(whole, 6)) for new, whole in zip(cut, larger, strict=True)]
    counts = torch.bincount(torch.tensor(places), minlength=25)
    assert counts.min() > 0
    assert counts.max() < 45


def test_resize_crop_cuts_windows_of_the_enlarged_image() -> None:
    images = pictures(50)
    cut = Augmentation(resize_crop=15)(images, rng())
    larger = interpolate(images, size=[15, 15], mode="bicubic", antialias=True).clamp(-1, 1)
    places = {place(new, windows(whole, 12)) for new, whole in zip(cut, larger, strict=True)}
    assert cut.shape == images.shape
    assert len(places) > 8
    assert cut.abs().max() <= 1


@pytest.mark.parametrize("options", [{"horizontal_flip": True}, {"pad_crop": 3}, {"resize_crop": 16}])
def test_a_pair_with_stacked_channels_is_changed_alike(options: dict[str, Any]) -> None:
    images = pictures()
    changed = Augmentation(**options)(torch.cat([images, images], dim=1), rng())
    assert torch.equal(changed[:, :3], changed[:, 3:])
    assert not torch.equal(changed[:, :3], images)


def test_the_same_seed_gives_the_same_images_and_another_gives_others() -> None:
    change = Augmentation(horizontal_flip=True, pad_crop=3)
    assert torch.equal(change(pictures(), rng(1)), change(pictures(), rng(1)))
    assert not torch.equal(change(pictures(), rng(1)), change(pictures(), rng(2)))


def test_nothing_asked_nothing_done() -> None:
    images = pictures()
    assert torch.equal(Augmentation()(images, rng()), images)


@pytest.mark.parametrize("options", [{"pad_crop": -1}, {"pad_crop": 12}, {"resize_crop": 0}, {"resize_crop": 11}])
def test_sizes_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"data\.augmentation"):
        Augmentation(**options).check(12)


def test_dequantized_levels_are_uniform_within_their_step() -> None:
    levels = torch.arange(256, dtype=torch.uint8).repeat(1000, 1)
    noisy = dequantize(levels, rng())
    # SNGAN and WGAN-GP: x / 128 - 1 + U(0, 1/128).
    noise = noisy.double() - (levels.double() / 128 - 1)
    assert noise.min() >= -1e-7
    assert noise.max() <= 1 / 128 + 1e-7
    assert noise.mean().item() == pytest.approx(1 / 256, rel=0.01)
    assert noise.var().item() == pytest.approx(1 / 128**2 / 12, rel=0.02)
    assert noisy.min() >= -1
    assert noisy.max() <= 1


def test_the_middle_of_a_dequantized_level_comes_back_as_the_level() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    middle = (levels.double() + 0.5) / 128 - 1
    assert (to_uint8(middle).int() - levels.int()).abs().max() <= 1
    assert torch.equal(to_uint8(to_float(levels)), levels)
