"""The networks that the papers' configs name, at the size of CIFAR-10."""

from __future__ import annotations

import pytest
from torch import nn

from lightning_gen.configuration import compose_config
from lightning_gen.networks.discriminator import Discriminator
from lightning_gen.registry import construct
from tests.networks.counting import attention, conv3, count, down, level, up

SNGAN_GENERATOR = 4_276_739  # tests/networks/test_resnet.py
SNGAN_DISCRIMINATOR = 1_053_825
PROJECTION_GENERATOR = 4_304_387


@pytest.mark.parametrize(
    ("name", "generator_size", "discriminator_size", "steps", "rates", "betas"),
    [
        ("sngan", SNGAN_GENERATOR, SNGAN_DISCRIMINATOR, 5, (2e-4, 2e-4), (0.0, 0.9)),
        ("projection", PROJECTION_GENERATOR, SNGAN_DISCRIMINATOR + 1280, 5, (2e-4, 2e-4), (0.0, 0.9)),
        ("wgan_gp_resnet", 1_204_483, SNGAN_DISCRIMINATOR, 5, (2e-4, 2e-4), (0.0, 0.9)),
        (
            "sagan",
            PROJECTION_GENERATOR + attention(256),
            SNGAN_DISCRIMINATOR + 1280 + attention(128),
            1,
            (1e-4, 4e-4),
            (0.0, 0.9),
        ),
        (
            "biggan",
            1280 + 33 * 16 * 384 + 3 * up(384, 384, 320) + attention(384) + 2 * 384 + conv3(384, 3),
            down(3, 384, 384) + down(384, 384, 384) + 2 * level(384) + attention(384) + 385 + 3840,
            2,
            (5e-5, 2e-4),
            (0.0, 0.999),
        ),
        ("biggan_cifar", 4_304_387, 4_207_361, 4, (2e-4, 2e-4), (0.0, 0.999)),
    ],
)
def test_configs_name_the_papers_networks_and_rates(
    name: str,
    generator_size: int,
    discriminator_size: int,
    steps: int,
    rates: tuple[float, float],
    betas: tuple[float, float],
) -> None:
    config = compose_config([f"model={name}", "data=cifar10", "trainer.max_steps=777"])["model"]
    derived = {
        "image_shape": (3, 32, 32),
        "latent_dim": config["latent_dim"],
        "num_classes": 10 if config.get("conditional") else None,
    }
    for network in ("generator", "discriminator"):
        # Orthogonal matrices of this size take seconds to draw.
        if name == "biggan":
            config[network]["initialization"] = "normal"
    assert count(construct(config["generator"], nn.Module, **derived)) == generator_size
    assert count(construct(config["discriminator"], Discriminator, **derived)) == discriminator_size
    assert config["discriminator_steps"] == steps
    optimizers = [config["generator_optimizer"], config["discriminator_optimizer"]]
    assert tuple(optimizer["lr"] for optimizer in optimizers) == rates
    assert all(tuple(optimizer["betas"]) == betas for optimizer in optimizers)
    for optimizer in optimizers:
        if name in ("sngan", "projection", "wgan_gp_resnet"):
            assert optimizer["schedule"]["end_factor"] == 0
            assert optimizer["schedule"]["total_iters"] == 777
        else:
            assert optimizer["schedule"] is None
