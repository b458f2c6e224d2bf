"""What pictures of diffusion models ask of the models: noise, films, edits, inpainting, walks through noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.callbacks.pictures import interpolation_frames, interpolation_strip, walk_ends
from lightning_gen.images import make_grid, to_uint8
from lightning_gen.models.capabilities import Diffuses
from lightning_gen.models.latent_diffusion import LatentDiffusion
from tests.models.small_diffusion import LABELS, known, small_diffusion
from tests.models.small_latents import images as latent_images
from tests.models.small_latents import small_first_stage, small_latent_diffusion

LABELLED = torch.tensor([0, 1, 2])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latent_diffusion() -> Any:
    """Of standardized latents, with labels."""
    options = {"conditional": True}
    model = small_latent_diffusion(small_first_stage(), options, num_classes=3, label_law=[0.5, 0.3, 0.2])
    model.measure_latents(iter([model.moments(latent_images(50))]))
    return model


OPTIONS: dict[str, Any] = {"network": {"_target_": "tests.models.small_latents.TinyDenoiser"}, **LABELS}
MODELS = {
    "pixels": lambda: small_diffusion(**OPTIONS),
    "chain": lambda: small_diffusion(sampler={"name": "ddpm", "steps": 20}, **OPTIONS),
    "edm": lambda: small_diffusion(schedule={"name": "edm"}, target={"name": "edm"}, **OPTIONS),
    "latents": latent_diffusion,
}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def images_for(model: Any, number: int = 3) -> Tensor:
    return torch.rand(number, *model.image_shape, generator=rng(5)) * 2 - 1


def assert_same(model: Any, found: Tensor, images: Tensor) -> None:
    """The images themselves, or those that the model's latents of them decode to."""
    if isinstance(model, LatentDiffusion):
        torch.testing.assert_close(found, model.reconstruct(images), rtol=0, atol=1e-5)
    else:
        assert torch.equal(found, images)


def test_films_end_with_what_is_sampled(model: Any) -> None:
    assert isinstance(model, Diffuses)
    with model.evaluation():
        for labels in (LABELLED, None):
            film = model.film(3, 3, labels, generator=rng())
            sampled = model.sample(3, labels, generator=rng())
            assert torch.equal(film.noisy[-1], sampled)
            assert torch.equal(film.images[-1], sampled)
            assert film.noisy.shape == (3, 3, *model.image_shape)
    assert film.levels[-1].sigma == 0


def test_noised_images_begin_as_they_are(model: Any) -> None:
    images = images_for(model)
    with model.evaluation():
        film = model.noised(images, [0.0, 0.5, 1.0], generator=rng())
        assert_same(model, film.noisy[0], images)
        # Noise alone is that of a latent, with little of the image left.
        alone = model.noised(-images, [1.0], generator=rng()).noisy[0]
    assert (film.noisy[1] - film.noisy[0]).abs().mean() > 0.05
    assert (film.noisy[2] - alone).abs().mean() < 0.05


def test_edits_go_from_the_images_to_samples(model: Any) -> None:
    images = images_for(model)
    with model.evaluation():
        edited = {
            strength: model.edit(images, strength, LABELLED, generator=rng()) for strength in (0.0, 0.1, 0.6, 1.0)
        }
        assert_same(model, edited[0.0], images)
        assert torch.equal(edited[1.0], model.sample(3, LABELLED, generator=rng()))
        assert not torch.equal(edited[1.0], model.edit(images, 1.0, LABELLED.roll(1), generator=rng()))
    distances = [(edited[strength] - edited[0.0]).square().mean().item() for strength in (0.0, 0.1, 0.6)]
    assert distances[0] < distances[1] < distances[2]


def test_known_pixels_come_out_as_they_were_and_hidden_ones_do_not_matter(model: Any) -> None:
    images = images_for(model)
    pixels = torch.ones(model.image_shape[1:], dtype=torch.bool)
    pixels[:, model.image_shape[2] // 2 :] = False
    with model.evaluation():
        for mask in (pixels, pixels.expand(3, 1, -1, -1)):
            filled = model.inpaint(images, mask, LABELLED, resamples=2, generator=rng())
            assert torch.equal(filled[:, :, pixels], images[:, :, pixels])
            changed = torch.where(pixels, images, -images)
            assert torch.equal(model.inpaint(changed, mask, LABELLED, resamples=2, generator=rng()), filled)
        # But known ones do.
        other = torch.where(pixels, -images, images)
        found = model.inpaint(other, pixels, LABELLED, resamples=2, generator=rng())
        assert not torch.equal(found[:, :, ~pixels], filled[:, :, ~pixels])
        again = model.inpaint(images, pixels, LABELLED, resamples=3, generator=rng())
        assert not torch.equal(again, filled)


def test_all_that_is_random_comes_from_the_generator(model: Any) -> None:
    images, mask = images_for(model), torch.zeros(model.image_shape[1:], dtype=torch.bool)
    calls = {
        "noised": lambda generator: model.noised(images, [0.5], generator=generator).noisy,
        "film": lambda generator: model.film(3, 3, generator=generator).noisy,
        "edit": lambda generator: model.edit(images, 0.5, LABELLED, generator=generator),
        "inpaint": lambda generator: model.inpaint(images, mask, LABELLED, resamples=2, generator=generator),
    }
    with model.evaluation():
        for name, call in calls.items():
            torch.manual_seed(0)
            first = call(rng(1))
            state = torch.get_rng_state()
            assert torch.equal(call(rng(1)), first), name
            assert torch.equal(torch.get_rng_state(), state), name
            assert not torch.equal(call(rng(2)), first), name


def test_edits_without_labels_are_the_unconditional_models() -> None:
    model = small_diffusion(**LABELS)
    images = images_for(model)
    with model.evaluation():
        found = model.edit(images, 0.5, generator=rng())
        assert torch.equal(found, model.edit(images, 0.5, torch.full((3,), 3), generator=rng()))
    given = known(model).calls[0][2]
    assert given is not None
    assert given.tolist() == [3, 3, 3]


def test_latents_are_known_where_all_their_pixels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model = latent_diffusion().eval()
    seen: dict[str, Tensor] = {}

    def inpaint(latents: Tensor, known: Tensor, *args: Any, **options: Any) -> Tensor:
        seen.update(latents=latents, known=known)
        return latents

    monkeypatch.setattr(model.diffusion, "inpaint", inpaint)
    images = latent_images(2)
    mask = torch.ones(8, 8, dtype=torch.bool)
    # Patches of 2x2 pixels: columns 5 to 7 hide those of latents 2 and 3; one more pixel hides its own.
    mask[:, 5:] = False
    mask[0, 0] = False
    with model.evaluation():
        filled = model.inpaint(images, mask, generator=rng())
        expected = torch.tensor([True, True, False, False]).repeat(4, 1)
        expected[0, 0] = False
        assert torch.equal(seen["known"], expected.expand(2, 1, 4, 4))
        encoded = model.encode(torch.where(mask, images, 0.0)).unflatten(1, (3, 4, 4))
        torch.testing.assert_close(model.from_standard(seen["latents"]), encoded)
        decoded = model.first_stage.decode_maps(model.from_standard(seen["latents"]))
    torch.testing.assert_close(filled, torch.where(mask, images, decoded))


@pytest.mark.parametrize("kind", ["pixels", "latents"])
def test_walks_through_noise_stay_on_its_sphere(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A straight walk between two vectors of 400 normal numbers would pass at 0.7 of their length."""
    torch.manual_seed(0)
    wide = {"image_shape": (1, 20, 20)}
    model: Any = small_diffusion(**LABELS, **wide) if kind == "pixels" else latent_diffusion()
    seen: list[Tensor] = []
    original = model.decode
    monkeypatch.setattr(model, "decode", lambda latents, labels: seen.append(latents) or original(latents, labels))
    with model.evaluation():
        latents, labels = walk_ends(model, 2, rng())
        strip = interpolation_strip(model, latents, 5, labels)
        interpolation_frames(model, latents, 8, labels)
        assert labels is not None
        ends = to_uint8(original(latents[[0, 2]], labels))
    assert latents.shape == (4, 400 if kind == "pixels" else 48)
    norms = latents.norm(dim=1)
    for walk in seen:
        assert walk.norm(dim=1).min() > 0.97 * norms.min()
        assert walk.norm(dim=1).max() < 1.03 * norms.max()
    straight = (latents[0::2] + latents[1::2]).norm(dim=1) / 2
    assert straight.max() < 0.9 * norms.min()
    size = model.image_shape[1]
    assert torch.equal(strip[:, :, :size], make_grid(ends, 1)), "each row begins with the image of its own noise"
