"""Every model of configs/model in a size that trains in a moment, for tests that go through all of them."""

from __future__ import annotations

from typing import Any

from lightning_gen.configuration import compose_config, config_dir

WIDTHS = ["model.generator.base_channels=4", "model.discriminator.base_channels=4"]

TINY: dict[str, list[str]] = {
    "dcgan": WIDTHS,
    "dcgan_small": WIDTHS,
}
"""Overrides of each model."""

EVERY_MODEL = sorted(path.stem for path in (config_dir() / "model").glob("*.yaml"))


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
