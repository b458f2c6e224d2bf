"""The papers' models, from their configs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_gen.configuration import compose_config
from lightning_gen.models.gan import GAN
from lightning_gen.registry import construct
from tests.models.small import fit


def built(name: str, *overrides: str) -> GAN:
    spec: dict[str, Any] = dict(compose_config([f"model={name}", *overrides])["model"])
    return construct(spec, GAN, image_shape=(1, 32, 32), num_classes=10, label_law=[0.1] * 10)


@pytest.mark.parametrize(
    ("name", "latent_dim", "spread", "rates", "betas"),
    [
        ("dcgan", 100, 1.0, [2e-4, 2e-4], (0.5, 0.999)),
        ("dcgan_small", 8, None, [2e-4, 1e-3], (0.5, 0.99)),
        ("acgan", 110, None, [2e-4, 2e-4], (0.5, 0.999)),
        ("improved_gan", 100, 1.0, [3e-4, 3e-4], (0.5, 0.999)),
        ("lsgan", 1024, 1.0, [1e-3, 1e-3], (0.5, 0.999)),
        ("wgan", 100, None, [5e-5, 5e-5], None),
        ("wgan_gp", 128, None, [1e-4, 1e-4], (0.5, 0.9)),
        ("dragan", 100, 1.0, [1e-4, 1e-4], (0.5, 0.9)),
    ],
)
def test_a_config_has_its_papers_values_and_trains(
    name: str, latent_dim: int, spread: float | None, rates: list[float], betas: tuple[float, float] | None
) -> None:
    narrow = [f"model.{player}.base_channels=2" for player in ("generator", "discriminator")]
    model = built(name, *narrow)
    if model.discriminator_steps == 5:
        model.discriminator_steps = 4  # of the 16 images in a test's batch
    trainer = fit(model, 1)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert [optimizer.defaults["lr"] for optimizer in trainer.optimizers] == rates
    for optimizer in trainer.optimizers:
        assert isinstance(optimizer, torch.optim.Adam if betas else torch.optim.RMSprop)
        assert tuple(optimizer.param_groups[0].get("betas", ())) == (betas or ())
    latents = model.sample_latents(2000, generator=torch.Generator().manual_seed(0))
    assert latents.shape == (2000, latent_dim)
    assert latents.abs().max().item() == pytest.approx(spread, abs=0.01) if spread else latents.abs().max() > 3


@pytest.mark.parametrize(
    ("name", "loss", "steps", "chosen"),
    [
        ("acgan", "non_saturating", 1, ["auxiliary_classifier"]),
        ("improved_gan", "non_saturating", 1, ["minibatch_discrimination", "label_smoothing", "historical_averaging"]),
        ("lsgan", "least_squares", 1, []),
        ("wgan", "wasserstein", 5, ["weight_clip"]),
        ("wgan_gp", "wasserstein", 5, ["wgan_gp"]),
        ("dragan", "non_saturating", 1, ["dragan"]),
    ],
)
def test_a_config_has_its_papers_loss_and_terms(name: str, loss: str, steps: int, chosen: list[str]) -> None:
    model = built(name)
    assert model.players.loss == loss
    assert model.discriminator_steps == steps
    assert list(model.players.chosen) == chosen


def test_improved_gan_trains_without_the_batch_layer_and_can_match_features() -> None:
    model = built(
        "improved_gan",
        "model.regularizers.minibatch_discrimination=null",
        "model.regularizers.feature_matching={norm:l1}",
        "model.generator.base_channels=2",
        "model.discriminator.base_channels=2",
    )
    fit(model, 1)
    assert list(model.players.chosen) == ["label_smoothing", "historical_averaging", "feature_matching"]


def test_rate_and_momentum_of_2014() -> None:
    model = built("gan", "model.generator.hidden=[12,12]", "model.discriminator.units=6")
    groups = [optimizer.param_groups[0] for optimizer in fit(model, 3).optimizers]
    assert [group["momentum"] for group in groups] == pytest.approx([0.5 + 0.2 * 3 / 125_000] * 2)
    assert [group["lr"] for group in groups] == pytest.approx([0.1 / 1.000004**3] * 2)
