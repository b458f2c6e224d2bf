from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_gen.configuration import compose_config
from lightning_gen.models.gan import GAN
from tests.models.test_gan import Spy, fit

MLP = ["model.generator.hidden=[12,12]", "model.discriminator.units=6"]
R3GAN = [f"model.{player}.{key}" for player in ("generator", "discriminator") for key in ("width=4", "cardinality=2")]
SMALL = {
    "gan": MLP,
    "cgan": [*MLP, "model.generator.label_units=6", "model.discriminator.label_units=3"],
    "cdcgan": ["model.generator.base_channels=2", "model.discriminator.base_channels=2"],
    "infogan": [
        *(f"model.{p}.{key}" for p in ("generator", "discriminator") for key in ("base_channels=2", "hidden=8")),
        "model.regularizers.mutual_information=null",
    ],
    "r3gan": R3GAN,
}
"""Overrides that make the papers' networks tiny."""


@pytest.mark.parametrize("name", SMALL)
def test_a_papers_config_trains_both_networks(name: str) -> None:
    spec: dict[str, Any] = compose_config([f"model={name}", "data=digits", *SMALL[name]])["model"]
    assert spec.pop("_target_") == "lightning_gen.models.gan.GAN"
    torch.manual_seed(0)
    classes = {"num_classes": 10, "label_law": [0.1] * 10}
    model = GAN(image_shape=(1, 32, 32), **spec, **classes)
    spy = Spy(model)
    trainer = fit(model, 3)
    assert spy.changed == {"discriminator_step": [True] * 3, "generator_step": [True] * 3}
    if name == "gan":
        groups = [optimizer.param_groups[0] for optimizer in trainer.optimizers]
        assert [group["momentum"] for group in groups] == pytest.approx([0.5 + 0.2 * 3 / 125_000] * 2)
        assert [group["lr"] for group in groups] == pytest.approx([0.1 / 1.000004**3] * 2)
    with model.evaluation():
        images = model.sample(4, generator=torch.Generator().manual_seed(0))
    assert images.shape == (4, 1, 32, 32)
    assert images.isfinite().all()
