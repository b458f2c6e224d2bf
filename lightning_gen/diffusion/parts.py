"""Parts of a diffusion model from their specs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lightning_gen.errors import UserError
from lightning_gen.registry import Registry

T = TypeVar("T")


def build_part(registry: Registry[Callable[..., T]], spec: Mapping[str, Any], key: str) -> T:
    """What the registry has under a spec's name, called with its options.

    Args:
        registry: of classes.
        spec: ``{"name": ..., **options}``.
        key: of the spec in configs, for messages.

    Raises:
        UserError: no such name or option.
    """
    name = str(spec.get("name"))
    part = registry[name]
    options = {option: value for option, value in spec.items() if option != "name"}
    unknown = options.keys() - inspect.signature(part).parameters
    if unknown:
        raise UserError(f"{key}: {name} has no option {', '.join(sorted(unknown))}")
    return part(**options)
