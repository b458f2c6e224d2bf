from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.losses import regularization
from lightning_gen.networks.discriminator import DiscriminatorOutput
from lightning_gen.regularizers import regularizers
from tests.regularizers.steps import output, step


def test_the_mean_squared_difference() -> None:
    assert regularization.consistency(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 1.0])).item() == 5


class Watched:
    """A discriminator, the first pixel of an image being its logit, that notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Tensor] = []

    def __call__(self, images: Tensor) -> DiscriminatorOutput:
        self.asked.append(images)
        return output(images[:, 0, 0, 0])


def halves(left: float, right: float, number: int = 2) -> Tensor:
    images = torch.full((number, 1, 4, 4), right)
    images[:, :, :, :2] = left
    return images


def swap(images: Tensor) -> Tensor:
    return images.flip(3)


def test_each_kind_of_image_has_its_weight() -> None:
    real, fake = halves(1.0, 3.0), halves(0.0, 5.0)
    discriminator = Watched()
    made: Any = regularizers["consistency"](real_weight=10.0, fake_weight=100.0)
    made.transform = swap
    taken = step(
        discriminator(real),
        discriminator(fake),
        clean_real_images=real,
        clean_fake_images=fake,
        real_images=real,
        fake_images=fake,
        discriminate=discriminator,
    )
    assert made.discriminator_term(taken).item() == pytest.approx(10 * (1 - 3) ** 2 + 100 * (0 - 5) ** 2)
    assert len(discriminator.asked) == 4, "outputs on images that were not augmented are used again"
    made.fake_weight = 0
    assert made.discriminator_term(taken).item() == pytest.approx(40)
    assert len(discriminator.asked) == 5


def test_augmented_images_are_not_compared_with_clean_ones() -> None:
    real, fake = halves(1.0, 3.0), halves(0.0, 5.0)
    discriminator = Watched()
    made: Any = regularizers["consistency"](real_weight=10.0, fake_weight=100.0)
    made.transform = swap
    augmented = torch.full_like(real, 77.0)
    taken = step(
        discriminator(augmented),
        discriminator(augmented),
        clean_real_images=real,
        clean_fake_images=fake,
        real_images=augmented,
        fake_images=augmented,
        discriminate=discriminator,
    )
    assert made.discriminator_term(taken).item() == pytest.approx(10 * (1 - 3) ** 2 + 100 * (0 - 5) ** 2)


def test_the_transformation_flips_and_shifts_by_whole_pixels() -> None:
    torch.manual_seed(0)
    made: Any = regularizers["consistency"](shift=2)
    images = torch.zeros(2000, 1, 12, 12)
    images[:, :, 5, 3] = 1
    rows, columns = (made.transform(images) == 1).nonzero()[:, 2:].unbind(1)
    assert rows.unique().tolist() == [3, 4, 5, 6, 7]
    assert columns.unique().tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    ones = torch.ones(50, 1, 12, 12)
    assert torch.equal(made.transform(ones), ones), "what moves in is a reflection"
    flips: Any = regularizers["consistency"](shift=0)
    assert flips.transform(images).nonzero()[:, 3].unique().tolist() == [3, 8]


def test_transformations_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match="compares an image with itself"):
        regularizers["consistency"](shift=0, flip=False)
    made: Any = regularizers["consistency"](shift=8)
    with pytest.raises(UserError, match=r"consistency\.shift=8 must be less"):
        made.transform(torch.zeros(1, 1, 8, 8))
