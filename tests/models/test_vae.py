"""VAE: bounds against closed forms, what beta and labels change, and what it samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from lightning_gen.data.batches import ImageBatch
from lightning_gen.errors import UserError
from lightning_gen.models.vae import VAE
from tests.models.small_vae import DECODER, STD, LinearDecoder, linear_vae, small_vae


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_images(number: int) -> Tensor:
    return 0.7 * torch.randn(number, 1, 2, 4, generator=rng(1))


def evidence(images: Tensor) -> np.ndarray:
    """log N(x; b, W W' + s^2 I) of the linear model, times the volume of one level of each pixel."""
    decoder = LinearDecoder((1, 2, 4), 3)
    weight, bias = decoder.weight.detach().double().numpy(), decoder.bias.detach().double().numpy()
    law = stats.multivariate_normal(bias, weight @ weight.T + STD**2 * np.eye(8))
    return np.asarray(law.logpdf(images.flatten(1).double().numpy())) + 8 * math.log(2 / 255)


@pytest.mark.parametrize("num_samples", [1, 5])
def test_with_the_exact_posterior_the_bound_of_a_linear_model_is_its_evidence(num_samples: int) -> None:
    model, images = linear_vae(), linear_images(20)
    with model.evaluation():
        bound = model.evidence_bound(images, None, num_samples, rng())
    np.testing.assert_allclose(bound, evidence(images), rtol=0, atol=1e-3)


def test_the_trained_objective_of_a_linear_model_is_its_evidence_on_average() -> None:
    model = linear_vae()
    images = linear_images(4).repeat(20_000, 1, 1, 1)
    with model.evaluation():
        log_likelihood, kl = model.bound_terms(images, None, rng())
    bounds = (log_likelihood - kl).view(20_000, 4).double()
    error = bounds.std(0) / math.sqrt(20_000)
    assert ((bounds.mean(0) - torch.from_numpy(evidence(linear_images(4)))).abs() < 4 * error).all()
    assert (error < 0.05).all()


def test_a_wrong_posterior_lowers_the_bound_by_its_divergence_and_more_samples_raise_it_again() -> None:
    exact, wrong = linear_vae(), linear_vae(shift=0.3)
    images = linear_images(2000)
    truth = evidence(images).mean()
    with wrong.evaluation():
        bounds = [float(wrong.evidence_bound(images, None, number, rng()).mean()) for number in (1, 5, 50)]
    # KL(q || p(z | x)) of normal laws of equal variance: half the squared distance over the variance.
    divergence = float((0.5 * 0.3**2 / exact.encoder.variances).sum())  # type: ignore[operator]
    assert bounds[0] == pytest.approx(truth - divergence, abs=0.15)
    assert truth - divergence + 0.2 < bounds[1] < bounds[2] < truth + 0.05
    assert bounds[2] == pytest.approx(truth, abs=0.3)


def test_the_gradient_of_the_objective_vanishes_at_the_exact_posterior_only() -> None:
    def slope(model: VAE) -> float:
        torch.manual_seed(0)
        log_likelihood, kl = model.bound_terms(linear_images(500).repeat(40, 1, 1, 1), None)
        (kl - log_likelihood).mean().backward()
        return float(model.encoder.shift.grad)  # type: ignore[union-attr, arg-type]

    assert abs(slope(linear_vae())) < 0.1
    assert slope(linear_vae(shift=0.3)) > 1


def test_the_bound_of_a_network_rises_with_the_samples() -> None:
    model = small_vae()
    images = torch.rand(200, 1, 8, 8, generator=rng(2)).round() * 2 - 1
    with model.evaluation():
        bounds = [float(model.evidence_bound(images, None, number, rng()).mean()) for number in (1, 10, 100)]
    assert bounds[0] + 0.01 < bounds[1]
    assert bounds[1] + 0.002 < bounds[2]


def test_bits_per_dim_are_the_bound_of_what_the_law_observes() -> None:
    model = small_vae(importance_samples=3)
    images = torch.rand(6, 1, 8, 8, generator=rng(3)) * 2 - 1
    with model.evaluation():
        found = model.bits_per_dim(images, generator=rng(4))
        again = rng(4)
        bound = model.evidence_bound(model.law.observe(images, generator=again), None, 3, again)
    torch.testing.assert_close(found, -bound / (64 * math.log(2)))
    assert not model.likelihood_is_exact
    assert model.likelihood_settings == {
        "law": {"name": "bernoulli"},
        "importance_samples": 3,
        "conditional": False,
    }


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_beta_weighs_the_divergence_in_the_loss_but_not_in_the_reported_bound(
    beta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_vae(beta=beta)
    monkeypatch.setattr(model, "step", lambda loss: None)
    torch.manual_seed(0)
    found = model.training_iteration(ImageBatch(torch.rand(5, 1, 8, 8) * 2 - 1, None))
    assert found["rate"] > 0.001
    torch.testing.assert_close(found["loss"].detach(), found["distortion"] + beta * found["rate"])
    torch.testing.assert_close(found["negative_elbo"], found["distortion"] + found["rate"])


def test_terms_are_summed_over_pixels_and_latents() -> None:
    model = small_vae()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # logits 0 and q = N(0, 1)
    log_likelihood, kl = model.bound_terms(torch.ones(2, 1, 8, 8), None, rng())
    torch.testing.assert_close(log_likelihood, torch.full((2,), -64 * math.log(2)))
    torch.testing.assert_close(kl, torch.zeros(2))
    with torch.no_grad():
        model.encoder.layers[-1].bias[:3] = 2.0  # type: ignore[index, union-attr]
    torch.testing.assert_close(model.bound_terms(torch.ones(2, 1, 8, 8), None, rng())[1], torch.full((2,), 6.0))


def conditional(**options: Any) -> VAE:
    return small_vae(conditional=True, num_classes=4, label_law=[0.1, 0.2, 0.3, 0.4], **options)


def test_labels_change_what_a_conditional_model_encodes_decodes_and_how_likely_images_are() -> None:
    model = conditional(importance_samples=2)
    images, labels = torch.rand(4, 1, 8, 8, generator=rng(5)) * 2 - 1, torch.arange(4)
    other = labels.flip(0)
    with model.evaluation():
        latents = model.sample_latents(4, generator=rng())
        assert not torch.allclose(model.decode(latents, labels), model.decode(latents, other))
        assert not torch.allclose(model.encode(images, labels), model.encode(images, other))
        first, second = (model.bits_per_dim(images, each, generator=rng()) for each in (labels, other))
        assert (first != second).all()
        with pytest.raises(ValueError, match="for given labels"):
            model.decode(latents)
        with pytest.raises(UserError, match="not of the images alone"):
            model.features(images)


def test_a_conditional_model_draws_labels_from_the_data_sets_law(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = conditional(), []
    monkeypatch.setattr(model, "decode", lambda latents, labels: seen.append(labels))
    model.sample(4000, generator=rng())
    shares = seen[0].bincount(minlength=4) / 4000
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.3, 0.4], atol=0.03)


def test_samples_are_means_or_draws_of_the_law() -> None:
    means, draws = small_vae(), small_vae(pixels="sample")
    with means.evaluation(), draws.evaluation():
        grey, binary = (model.sample(400, generator=rng()) for model in (means, draws))
    assert set(binary.unique().tolist()) == {-1.0, 1.0}
    assert grey.abs().max() < 0.9
    assert float((binary.mean(0) - grey.mean(0)).abs().mean()) < 0.06
    assert (means.sampler_settings(), draws.sampler_settings()) == ({"pixels": "mean"}, {"pixels": "sample"})


def test_reconstructions_are_decoded_means_of_the_images_as_they_are() -> None:
    model = small_vae()
    images = torch.rand(3, 1, 8, 8, generator=rng(6)) * 2 - 1
    with model.evaluation():
        means, _ = model.posterior(images)
        assert torch.equal(model.features(images), means)
        torch.testing.assert_close(model.reconstruct(images), torch.tanh(model.decoder(means) / 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 0}, r"model\.latent_dim must be at least 1"),
        ({"beta": -1.0}, r"model\.beta must not be negative"),
        ({"importance_samples": 0}, r"model\.importance_samples must be at least 1"),
        ({"sampler": "flow"}, r"model\.sampler must be prior or mixture, not 'flow'"),
        ({"pixels": "mode"}, r"model\.pixels must be mean or sample"),
        ({"law": {"name": "poisson"}}, "Unknown pixel law 'poisson'"),
        ({"law": {"name": "bernoulli", "levels": 2}}, r"model\.law: .*levels"),
        ({"conditional": True}, "has no classes"),
        ({"conditional": True, "num_classes": 3, "labelled_per_class": 2}, r"data\.labelled_per_class=2"),
        (
            {
                "conditional": True,
                "num_classes": 3,
                "decoder": {"_target_": "lightning_gen.networks.decoders.MapDecoder"},
            },
            r"model\.decoder=.*MapDecoder takes no labels",
        ),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_vae(**{"decoder": {"_target_": DECODER}, **options})
