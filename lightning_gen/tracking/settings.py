"""Which part of a config makes a run what it is, and which part of that is its setting without the seed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lightning_gen.tracking.record import config_digest

DEFINING_KEYS = ("model", "data", "metrics", "ema", "seed", "compile")
"""Config sections that make a run what it is: they name it, and a resume may not change them."""

LOCATION_KEYS = ("data_dir", "cache_dir", "residency", "num_workers")
"""Options within those sections, at any depth, that say where and not what."""


def defining(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that makes the run what it is (`DEFINING_KEYS` and the length), without locations."""
    sections = {key: _without(config[key], LOCATION_KEYS) for key in DEFINING_KEYS}
    trainer = {key: config["trainer"][key] for key in ("max_steps", "max_epochs", "precision")}
    return {**sections, "trainer": trainer}


def settings_digest(config: Mapping[str, Any]) -> str:
    """Digest of what defines a run apart from its seed: runs of one setting with other seeds share it.

    The order of the batches (``seed`` within ``data``) follows the run's seed and is left out too; the seed of the
    samples that are scored (``metrics.seed``) is part of the protocol and stays.
    """
    settings = defining(config)
    del settings["seed"]
    return config_digest({**settings, "data": _without(settings["data"], ("seed",))})


def _without(value: Any, keys: Collection[str]) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: _without(item, keys) for name, item in value.items() if name not in keys}
