"""Autoencoder: its losses, its noise, and the mixture that it and a VAE draw latents from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_gen.callbacks.latent_mixture import fit_mixture
from lightning_gen.data.batches import ImageBatch
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.losses.reconstruction import add_gaussian_noise, cross_entropy, mask_pixels, squared_error
from lightning_gen.models.autoencoder import Autoencoder
from lightning_gen.models.latent_mixture import LatentMixture
from tests.models.small_vae import ADAM, DECODER, ENCODER, MLP, small_vae


def small_autoencoder(**options: Any) -> Autoencoder:
    torch.manual_seed(0)
    networks = {"encoder": {"_target_": ENCODER, **MLP}, "decoder": {"_target_": DECODER, **MLP}}
    return Autoencoder(**{"image_shape": (1, 8, 8), "latent_dim": 3, "optimizer": ADAM, **networks, **options})


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_losses_are_sums_over_pixels_of_hand_computed_values() -> None:
    images = torch.tensor([1.0, -1.0, 0.0, 0.5]).view(1, 1, 2, 2)
    outputs = torch.zeros(1, 1, 2, 2)
    assert float(squared_error(outputs, images)) == pytest.approx(1 + 1 + 0.25)
    assert float(squared_error(images.clamp(-0.99, 0.99).atanh(), images)) == pytest.approx(2e-4, rel=1e-3)
    assert float(cross_entropy(outputs, images)) == pytest.approx(4 * math.log(2))
    # brightness 0.75 told as 0.6: -0.75 log 0.6 - 0.25 log 0.4
    told = torch.full((1, 1, 1, 1), math.log(0.6 / 0.4))
    expected = -0.75 * math.log(0.6) - 0.25 * math.log(0.4)
    assert float(cross_entropy(told, images[:, :, 1:, 1:])) == pytest.approx(expected)


def test_noise_has_the_level_asked_for() -> None:
    torch.manual_seed(0)
    images = torch.full((50, 3, 16, 16), 0.5)
    assert float(add_gaussian_noise(images, 0.3).std()) == pytest.approx(0.3, rel=0.02)
    masked = mask_pixels(images, 0.25)
    assert set(masked.unique().tolist()) == {-1.0, 0.5}
    assert float((masked == -1).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert torch.equal(masked[:, 0], masked[:, 1]), "all channels of a pixel together"


@pytest.mark.parametrize("noise", [None, "gaussian", "masking"])
def test_only_the_encoder_in_training_sees_noise(noise: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = small_autoencoder(noise=noise, noise_level=0.5), []
    model.encoder.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0]))
    monkeypatch.setattr(model, "step", lambda loss: None)
    images = torch.rand(4, 1, 8, 8, generator=rng()) * 2 - 1
    loss = model.training_iteration(ImageBatch(images, None))["loss"]
    model.reconstruct(images)
    assert torch.equal(seen[0], images) == (noise is None)
    assert torch.equal(seen[1], images)
    clean = squared_error(model.decoder(model.encoder(seen[0])), images).mean()
    torch.testing.assert_close(loss, clean)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_the_best_output_of_either_loss_decodes_to_the_image(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_autoencoder(loss=loss)
    image = torch.rand(1, 1, 8, 8, generator=rng()) * 1.6 - 0.8
    outputs = torch.zeros(1, 1, 8, 8, requires_grad=True)
    optimizer = torch.optim.LBFGS([outputs], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = model.loss(outputs, image).sum()
        value.backward()
        return value

    optimizer.step(closure)
    monkeypatch.setattr(model.decoder, "forward", lambda latents: outputs)
    torch.testing.assert_close(model.decode(torch.zeros(1, 3)), image, atol=2e-3, rtol=0)


def test_a_fitted_mixture_draws_as_the_codes_lie() -> None:
    # Two ellipses of known means, shares and covariances.
    first = np.array([[2.0, 1.2], [1.2, 1.0]])
    second = np.array([[0.2, -0.1], [-0.1, 0.3]])
    draws = np.random.default_rng(0)
    codes = np.concatenate(
        [draws.multivariate_normal([8, 0], first, 3000), draws.multivariate_normal([-8, 2], second, 1000)]
    )
    mixture = LatentMixture(2, components=2, num_images=4000)
    mixture.fit(torch.from_numpy(codes))
    samples = mixture.sample(20_000, generator=rng()).numpy()
    right = samples[samples[:, 0] > 0]
    left = samples[samples[:, 0] < 0]
    assert len(right) / 20_000 == pytest.approx(0.75, abs=0.01)
    np.testing.assert_allclose(right.mean(0), [8, 0], atol=0.1)
    np.testing.assert_allclose(left.mean(0), [-8, 2], atol=0.1)
    np.testing.assert_allclose(np.cov(right.T), first, atol=0.12)
    np.testing.assert_allclose(np.cov(left.T), second, atol=0.04)


def test_before_it_is_fitted_a_mixture_is_standard_normal_and_says_so() -> None:
    mixture = LatentMixture(2, components=3, num_images=10)
    samples = mixture.sample(5000, generator=rng()).numpy().ravel()
    assert stats.kstest(samples, "norm").pvalue > 0.01
    assert mixture.settings() == {"name": "mixture", "components": 3, "num_images": 10, "fitted": False}
    mixture.fit(torch.randn(50, 2, generator=rng()))
    assert mixture.settings()["fitted"] is True


def test_fitting_draws_from_no_global_generator_and_is_the_same_each_time() -> None:
    codes = torch.randn(300, 4, generator=rng())
    mixtures = [LatentMixture(4, components=3, num_images=300) for _ in range(2)]
    torch.manual_seed(5)
    np.random.seed(5)
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    for mixture in mixtures:
        mixture.fit(codes)
    assert torch.equal(before, torch.random.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()
    for one, other in zip(mixtures[0].buffers(), mixtures[1].buffers(), strict=True):
        assert torch.equal(one, other)


def test_codes_on_a_line_still_make_a_mixture() -> None:
    mixture = LatentMixture(3, components=2, num_images=100)
    mixture.fit(torch.linspace(-1, 1, 100)[:, None].expand(-1, 3))
    assert mixture.sample(50, generator=rng()).isfinite().all()


@pytest.mark.parametrize("kind", ["autoencoder", "vae"])
def test_a_model_samples_near_the_codes_of_the_first_training_images(kind: str) -> None:
    options = {"image_shape": (1, 16, 16), "mixture": {"components": 2, "num_images": 200}}
    model = small_autoencoder(**options) if kind == "autoencoder" else small_vae(sampler="mixture", **options)
    data = DigitsDataModule("unused", image_size=16)
    images = to_float(data.reference_set("train", 200).images)
    fit_mixture(model, data, block_size=64)
    with model.evaluation():
        codes = model.encode(images)
        latents = model.sample_latents(4000, generator=rng())
        samples = model.sample(10, generator=rng())
    torch.testing.assert_close(latents.mean(0), codes.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(latents.std(0), codes.std(0), atol=0.05, rtol=0.1)
    assert samples.shape == (10, 1, 16, 16)
    assert model.sampler_settings()["latents"] == {
        "name": "mixture",
        "components": 2,
        "num_images": 200,
        "fitted": True,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 0}, r"model\.latent_dim must be at least 1"),
        ({"loss": "absolute"}, r"model\.loss must be squared or cross_entropy, not 'absolute'"),
        ({"noise": "salt"}, r"model\.noise must be gaussian, masking or null, not 'salt'"),
        ({"noise": "masking", "noise_level": 1.5}, r"model\.noise_level=1\.5"),
        ({"mixture": {"components": 0}}, r"model\.mixture: components=0"),
        ({"mixture": {"components": 5, "num_images": 4}}, "num_images=4"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_autoencoder(**options)


def test_more_components_than_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.mixture\.components=5 is more than the 4 training images"):
        LatentMixture(2, components=5).fit(torch.randn(4, 2))
