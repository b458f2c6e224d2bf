import pytest
import torch

from lightning_gen.errors import UserError
from lightning_gen.models.latents import LatentPrior
from lightning_gen.tools.latents import (
    around,
    decode,
    latents_by_class,
    reach,
    traverse_code,
    traverse_unit,
)


class Linear:
    """Decodes a latent (N, 4) into a 1x2x2 image: the latent itself, a tenth of it."""

    def __init__(self, prior: LatentPrior | None = None) -> None:
        self.prior = prior or LatentPrior(4)
        self.decoded = 0

    def sample_latents(self, num_samples: int, *, generator: torch.Generator) -> torch.Tensor:
        return self.prior.sample(num_samples, generator=generator)

    def decode(self, latents: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        self.decoded += len(latents)
        shift = 0 if labels is None else labels[:, None, None, None] / 10
        return latents.reshape(-1, 1, 2, 2) / 10 + shift


def quadrant(images: torch.Tensor) -> torch.Tensor:
    """Which of the four pixels is the brightest."""
    return images.flatten(1).argmax(1)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_traversal_changes_one_unit_and_no_other() -> None:
    latents = torch.randn(3, 4, generator=rng())
    values = torch.tensor([-2.0, 0.0, 5.0])
    walks = traverse_unit(latents, 2, values)
    assert walks.shape == (3, 3, 4)
    assert walks[:, :, 2].tolist() == [[-2.0, 0.0, 5.0]] * 3
    for other in (0, 1, 3):
        assert torch.equal(walks[:, :, other], latents[:, other, None].expand(3, 3))


def test_a_categorical_code_takes_every_category_and_the_rest_of_the_latent_stays() -> None:
    prior = LatentPrior(2, categorical=[3], continuous=1)
    latents = prior.sample(2, generator=rng())
    walks = traverse_code(latents, prior.codes[0], steps=99)
    assert walks[:, :, 2:5].tolist() == [[[1, 0, 0], [0, 1, 0], [0, 0, 1]]] * 2
    assert torch.equal(walks[:, :, [0, 1, 5]], latents[:, None, [0, 1, 5]].expand(2, 3, 3))


def test_a_continuous_code_goes_from_minus_2_to_2() -> None:
    prior = LatentPrior(2, categorical=[3], continuous=1)
    latents = prior.sample(2, generator=rng())
    walks = traverse_code(latents, prior.codes[1], steps=5)
    assert walks[:, :, 5].tolist() == [[-2, -1, 0, 1, 2]] * 2
    assert torch.equal(walks[:, :, :5], latents[:, None, :5].expand(2, 5, 5))


def test_a_traversal_goes_as_far_as_the_prior_and_at_most_to_3() -> None:
    assert reach(Linear(LatentPrior(20)), rng()) == 3
    assert 0.99 < reach(Linear(LatentPrior(20, noise_range=1.0)), rng()) <= 1
    assert 0.49 < reach(Linear(LatentPrior(20, truncation=0.5)), rng()) <= 0.5


def test_latents_by_class_are_the_first_ones_of_each_class_and_decode_to_it() -> None:
    model = Linear()
    found = latents_by_class(model, quadrant, [3, 1], number=5, rng=rng(7))
    everything = LatentPrior(4).sample(64, generator=rng(7))
    for label in (3, 1):
        expected = everything[everything.argmax(1) == label][:5]
        assert torch.equal(found[label].latents, expected)
        assert torch.equal(found[label].mean, expected.sum(0) / 5)
        levels = ((expected / 10 + 1) * 127.5).round().clamp(0, 255)
        assert torch.equal(found[label].images.flatten(1).float(), levels)
    assert model.decoded == 64


def test_a_class_that_a_model_does_not_make_is_named() -> None:
    model = Linear()
    with pytest.raises(UserError, match=r"Only 0 of 640 samples are of class 9"):
        latents_by_class(model, quadrant, [0, 9], number=2, rng=rng(), most=640)
    assert model.decoded == 640


def test_nine_latents_around_one_stay_within_the_noise_and_keep_the_middle() -> None:
    center = torch.tensor([1.0, -2.0, 0.5])
    latents = around(center, 0.25, rng())
    assert latents.shape == (9, 3)
    assert torch.equal(latents[4], center)
    offsets = (latents - center)[[0, 1, 2, 3, 5, 6, 7, 8]].abs()
    assert offsets.max() <= 0.25
    assert offsets.max() > 0.2
    assert offsets.flatten().unique().numel() == 24


def test_decoding_in_blocks_keeps_each_latent_with_its_label() -> None:
    latents = torch.zeros(150, 4)
    labels = torch.arange(150) % 4
    images = decode(Linear(), latents, labels)
    assert images.shape == (150, 1, 2, 2)
    # (1 + label / 10) * 127.5 = 127.5, 140.25, 153, 165.75
    assert images[:, 0, 1, 1].tolist() == ([128, 140, 153, 166] * 38)[:150]
    assert decode(Linear(), latents).shape == (150, 1, 2, 2)
