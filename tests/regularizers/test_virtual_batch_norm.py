from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from lightning_gen.errors import UserError
from lightning_gen.models.gan import GAN
from lightning_gen.networks.virtual_batch_norm import ReferenceDiscriminator, ReferenceGenerator
from lightning_gen.regularizers.base import mixes_samples
from tests.models.test_gan import PLAIN, equal, fit, small_gan, state

BOTH = {"networks": ["generator", "discriminator"], "reference_size": 5}
DCGAN = "lightning_gen.networks.dcgan.DCGAN"


def players(model: GAN) -> tuple[ReferenceGenerator, ReferenceDiscriminator]:
    generator, discriminator = model.generator, model.discriminator
    assert isinstance(generator, ReferenceGenerator)
    assert isinstance(discriminator, ReferenceDiscriminator)
    return generator, discriminator


class Batches(pl.Callback):
    """Keeps what the first iteration trained on."""

    images: torch.Tensor
    labels: torch.Tensor

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if pl_module.iteration == 0:
            self.images, self.labels = batch.images.clone(), batch.labels.clone()


def test_references_are_latents_of_the_prior_and_the_first_training_images() -> None:
    model = small_gan(regularizers={"virtual_batch_norm": BOTH}, latent_range=2.0)
    generator, discriminator = players(model)
    assert generator.reference_latents.shape == (5, 4)
    assert 1 < generator.reference_latents.abs().max() <= 2
    latents = generator.reference_latents.clone()
    assert not discriminator.reference_images.any()
    seen = Batches()
    fit(model, 3, seen)
    assert torch.equal(discriminator.reference_images, seen.images[:5])
    assert torch.equal(generator.reference_latents, latents)


def test_a_conditional_model_keeps_the_labels_of_its_references() -> None:
    networks = {
        "generator": {"_target_": f"{DCGAN}Generator", "base_channels": 2},
        "discriminator": {"_target_": f"{DCGAN}Discriminator", "base_channels": 2},
    }
    regularizer = {**BOTH, "reference_size": 16}
    model = small_gan(regularizers={"virtual_batch_norm": regularizer}, conditional=True, num_classes=10, **networks)
    generator, discriminator = players(model)
    assert generator.reference_labels is not None
    assert len(generator.reference_labels.unique()) > 2
    assert 0 <= generator.reference_labels.min() <= generator.reference_labels.max() <= 9
    seen = Batches()
    fit(model, 1, seen)
    assert discriminator.reference_labels is not None
    assert torch.equal(discriminator.reference_labels, seen.labels)


def test_a_penalty_is_allowed_since_samples_are_not_mixed() -> None:
    model = small_gan(regularizers={"virtual_batch_norm": BOTH, "r1": 1.0})
    assert not mixes_samples(model.generator)
    assert not mixes_samples(model.discriminator)
    before = state(model.discriminator)
    fit(model, 1)
    assert not equal(before, model.discriminator)


def test_averages_and_reloaded_models_carry_the_references() -> None:
    options = {"regularizers": {"virtual_batch_norm": BOTH}}
    model, again = small_gan(**options), small_gan(**options)
    for each in (model, again):
        each.add_average(half_life_images=50)
    fit(model, 2)
    assert model.average is not None
    assert len(model.average.networks["generator"].reference_latents) == 5
    again.load_state_dict(model.state_dict())
    first, second = (m.sample(3, generator=torch.Generator().manual_seed(0)) for m in (model, again))
    assert torch.equal(first, second)
    with model.evaluation():
        averaged = model.sample(3, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(averaged, first)


@pytest.mark.parametrize("order", [1, -1])
def test_it_combines_with_the_other_changes_of_networks_in_any_order(order: int) -> None:
    options = {
        "virtual_batch_norm": BOTH,
        "spectral_norm": {"networks": ["generator", "discriminator"]},
        "minibatch_discrimination": {"kernels": 3},
    }
    model = small_gan(regularizers=dict(list(options.items())[::order]))
    _, discriminator = players(model)
    assert discriminator.batch_features.reference_size == 5
    assert mixes_samples(discriminator), "minibatch discrimination does"
    fit(model, 2)
    model.discriminator(torch.rand(2, 1, 32, 32)).logits.sum().backward()


@pytest.mark.parametrize(
    ("options", "networks", "message"),
    [
        (
            {},
            {},
            r"without a reference batch means nothing: set model\.regularizers\.virtual_batch_norm\.reference_size",
        ),
        ({"reference_size": 1}, {}, "without a reference batch means nothing"),
        ({"networks": ["head"], "reference_size": 4}, {}, "networks must list some of"),
        (BOTH, {"discriminator": PLAIN}, "DCGANDiscriminator has no batch norm"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], networks: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        small_gan(regularizers={"virtual_batch_norm": options}, **networks)
    assert "\n" not in str(caught.value)


def test_more_reference_images_than_a_batch_has_are_refused() -> None:
    model = small_gan(regularizers={"virtual_batch_norm": {**BOTH, "reference_size": 17}})
    model.check_batch_size(17)
    with pytest.raises(UserError, match=r"wants 17 reference images of the first batch: raise data\.batch_size=16"):
        model.check_batch_size(16)
