"""Every model of configs/model in a size that trains in a moment, for tests that go through all of them."""

from __future__ import annotations

from typing import Any

from lightning_gen.configuration import compose_config, config_dir

WIDTHS = ["model.generator.base_channels=4", "model.discriminator.base_channels=4"]

SEVERAL_STEPS = [*WIDTHS, "model.generator_batch_size=16", "data.batch_size=40"]
TRANSLATION = [*WIDTHS, "model.discriminator.num_layers=2", "data.batch_size=4"]
MLP = ["model.generator.hidden=[24,16]", "model.discriminator.units=8"]

TINY: dict[str, list[str]] = {
    "acgan": WIDTHS,
    "biggan": [*WIDTHS, "data.batch_size=16", "model.latent_dim=8", "model.generator.embedding_dim=4"],
    "biggan_cifar": [*WIDTHS, "data.batch_size=32", "model.latent_dim=8"],
    "cdcgan": WIDTHS,
    "cgan": [*MLP, "model.generator.label_units=8", "model.discriminator.label_units=4"],
    "cyclegan": [*TRANSLATION, "data=inverted", "model.pool_size=8"],
    "dcgan": WIDTHS,
    "dcgan_small": WIDTHS,
    "discogan": [*WIDTHS, "data=inverted"],
    "dragan": WIDTHS,
    "gan": MLP,
    "improved_gan": WIDTHS,
    "infogan": [*WIDTHS, "model.generator.hidden=16", "model.discriminator.hidden=16"],
    "lsgan": [*WIDTHS, "model.latent_dim=8"],
    "pix2pix": [*TRANSLATION, "data=edges"],
    "projection": SEVERAL_STEPS,
    "r3gan": [
        f"model.{player}.{key}" for player in ("generator", "discriminator") for key in ("width=8", "cardinality=2")
    ],
    "sagan": [*WIDTHS, "model.generator.base_channels=8", "model.discriminator.base_channels=8"],
    "sgan": [
        "model.generator.hidden=[12,12]",
        "model.discriminator.hidden=[16,12]",
        "data.labelled_per_class=5",
    ],
    "sgan_conv": [*WIDTHS, "data.labelled_per_class=5"],
    "sngan": SEVERAL_STEPS,
    "wgan": [*WIDTHS, "data.batch_size=40"],
    "wgan_gp": [*WIDTHS, "data.batch_size=40"],
    "wgan_gp_resnet": SEVERAL_STEPS,
}
"""Overrides of each model."""

EVERY_MODEL = sorted(
    path.stem
    for path in (config_dir() / "model").glob("[!_]*.yaml")
    if path.stem == "dcgan_small" or not path.stem.endswith("_small")
)
"""All but the narrow variants, which are the same networks."""

TRANSLATING = ["cyclegan", "discogan", "pix2pix"]
"""Models that translate images."""

SAMPLING = [model for model in EVERY_MODEL if model not in TRANSLATING]
"""Models that make images of nothing."""


def tiny_config(model: str, *overrides: str) -> dict[str, Any]:
    """The config of a tiny run of ``model`` on digits or on sets made of them, without scores or pictures."""
    return compose_config(
        [
            f"model={model}",
            "metrics=none",
            "logger=none",
            "trainer=cpu",
            "trainer.max_steps=3",
            *TINY[model],
            *overrides,
        ]
    )
