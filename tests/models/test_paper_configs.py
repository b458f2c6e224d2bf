"""The papers' models, from their configs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_gen.configuration import compose_config
from lightning_gen.models.cyclegan import CycleGAN
from lightning_gen.models.discogan import DiscoGAN
from lightning_gen.models.gan import GAN
from lightning_gen.models.pix2pix import Pix2Pix
from lightning_gen.models.translation import TranslationModel
from lightning_gen.networks.unet_translator import TranslatorBatchNorm, UNetTranslator
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


def translation(name: str, size: int, *overrides: str) -> TranslationModel:
    """A model for colour images of that size, without memory for its weights."""
    spec: dict[str, Any] = dict(compose_config([f"model={name}", "trainer.max_steps=200", *overrides])["model"])
    shape = (3, size, size)
    with torch.device("meta"):
        return construct(spec, TranslationModel, image_shape=shape, input_shape=shape)


def test_translation_configs_have_their_papers_networks() -> None:
    assert translation("pix2pix", 256).parameter_counts() == {"generator": 54_413_955, "discriminator": 2_768_705}
    nine, six, patches = 11_378_179, 7_837_699, 2_764_737
    for size, blocks in ((256, nine), (128, six)):
        counts = translation("cyclegan", size).parameter_counts()
        assert list(counts.values()) == [blocks, blocks, patches, patches]
    assert translation("discogan", 64).generator_ab.size_multiple == 16  # type: ignore[union-attr]


@pytest.mark.parametrize(("name", "decay"), [("pix2pix", 0), ("cyclegan", 0), ("discogan", 1e-5)])
def test_translation_configs_have_their_papers_optimizers(name: str, decay: float) -> None:
    optimizers, schedules = translation(name, 64).configure_optimizers()  # type: ignore[misc]
    for optimizer in optimizers:
        assert isinstance(optimizer, torch.optim.Adam)
        group = optimizer.param_groups[0]
        assert (group["lr"], tuple(group["betas"]), group["weight_decay"]) == (2e-4, (0.5, 0.999), decay)
    if name == "discogan":
        assert not schedules
        return
    assert len(schedules) == 2
    rates = []
    for _ in range(201):
        rates.append(optimizers[0].param_groups[0]["lr"])
        for each in (*optimizers, *schedules):
            each.step()
    assert [rates[number] for number in (0, 100, 150, 200)] == pytest.approx([2e-4, 2e-4, 1e-4, 0])


def test_translation_configs_have_their_papers_weights() -> None:
    pix2pix = translation("pix2pix", 64)
    assert isinstance(pix2pix, Pix2Pix)
    assert (pix2pix.l1_weight, pix2pix.conditional) == (100, True)
    unet = pix2pix.generator
    assert isinstance(unet, UNetTranslator)
    assert (unet.dropout_blocks, unet.test_dropout) == (3, True)
    assert {module.test_statistics for module in unet.modules() if isinstance(module, TranslatorBatchNorm)} == {"image"}
    cyclegan = translation("cyclegan", 64)
    assert isinstance(cyclegan, CycleGAN)
    assert (cyclegan.cycle_weight, cyclegan.identity_weight, cyclegan.pools["A"].size) == (10, 0.5, 50)
    discogan = translation("discogan", 64)
    assert isinstance(discogan, DiscoGAN)
    assert (discogan.adversarial_weight, discogan.feature_weight, discogan.discriminator_every) == (0.1, 0.9, 3)
    rates = (discogan.starting_rate, discogan.final_rate, discogan.starting_iterations)
    assert rates == (0.01, 0.5, 10_000)
