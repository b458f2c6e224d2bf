"""Every model of configs/model in a size that trains in a moment, for tests that go through all of them."""

from __future__ import annotations

from typing import Any

from lightning_gen.configuration import compose_config, config_dir

WIDTHS = ["model.generator.base_channels=4", "model.discriminator.base_channels=4"]

SEVERAL_STEPS = [*WIDTHS, "model.generator_batch_size=16", "data.batch_size=40"]
PIXELS = ["data.image_size=8", "+model.law.levels=17", "model.network.channels=6"]
MLP = ["model.generator.hidden=[24,16]", "model.discriminator.units=8"]

TINY: dict[str, list[str]] = {
    "acgan": WIDTHS,
    "biggan": [*WIDTHS, "data.batch_size=16", "model.latent_dim=8", "model.generator.embedding_dim=4"],
    "biggan_cifar": [*WIDTHS, "data.batch_size=32", "model.latent_dim=8"],
    "cdcgan": WIDTHS,
    "cgan": [*MLP, "model.generator.label_units=8", "model.discriminator.label_units=4"],
    "dcgan": WIDTHS,
    "dcgan_small": WIDTHS,
    "dragan": WIDTHS,
    "gan": MLP,
    "gated_pixelcnn": [*PIXELS, "model.network.layers=2", "model.network.head_channels=8"],
    "improved_gan": WIDTHS,
    "infogan": [*WIDTHS, "model.generator.hidden=16", "model.discriminator.hidden=16"],
    "lsgan": [*WIDTHS, "model.latent_dim=8"],
    "pixel_rnn_diagonal": [*PIXELS, "model.network.layers=1", "model.network.head_channels=8"],
    "pixel_rnn_row": [*PIXELS, "model.network.layers=1", "model.network.head_channels=8"],
    "pixelcnn": [*PIXELS, "model.network.blocks=2", "model.network.head_channels=8"],
    "pixelcnn_pp": [*PIXELS, "model.network.layers=1", "model.network.sizes=2"],
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

PIXEL_MODELS = [model for model in EVERY_MODEL if model.startswith("pixel") or model.endswith("pixelcnn")]
"""Models of pixels given those before them."""

ADVERSARIAL = [model for model in EVERY_MODEL if model not in PIXEL_MODELS]
"""Models with a generator and a discriminator."""


def tiny_config(model: str, *overrides: str) -> dict[str, Any]:
    """The config of a tiny run of ``model`` on digits, without scores or pictures."""
    return compose_config(
        [
            f"model={model}",
            "data=digits",
            "metrics=none",
            "logger=none",
            "trainer=cpu",
            "trainer.max_steps=3",
            *TINY[model],
            *overrides,
        ]
    )
