"""What models with an encoder and a decoder share: how both are built, optimized and told the class."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.models.labels import check_conditional
from lightning_gen.models.one_optimizer import OneOptimizerModel
from lightning_gen.registry import resolve


class AutoencodingModel(OneOptimizerModel):
    """Networks ``encoder`` and ``decoder`` under one optimizer, both followed by the moving average.

    A subclass sets both networks and trains in `training_iteration`.

    Args:
        image_shape: (C, H, W) of the images.
        optimizer: spec (see `lightning_gen.models.optimizers.build_optimizer`).
        gradient_clip_norm: total norm to which the gradient is clipped; None for no clipping.
    """

    network_names: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    averaged_networks: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    encoder: nn.Module
    decoder: nn.Module

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        optimizer: Mapping[str, Any],
        gradient_clip_norm: float | None = None,
    ) -> None:
        super().__init__(optimizer, gradient_clip_norm)
        self.image_shape = tuple(image_shape)


def check_classes(
    specs: Mapping[str, Mapping[str, Any]], num_classes: int, labelled_per_class: int | None = None
) -> None:
    """Refuse a conditional model on data without (all) labels, or of networks that take none.

    Args:
        specs: of the networks that are given labels, by name.
        num_classes: K of the data, 0 for a set without classes.
        labelled_per_class: how many images of each class keep their label, None for all.

    Raises:
        UserError: naming the remedy.
    """
    check_conditional(num_classes, labelled_per_class)
    for name, spec in specs.items():
        if "num_classes" not in inspect.signature(resolve(str(spec.get("_target_")), nn.Module)).parameters:
            raise UserError(f"model.{name}={spec.get('_target_')} takes no labels: choose another network")


def normal_noise(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Noise ~ N(0, I) on the device of ``like``, drawn from a generator of any device or, for None, the global one."""
    if generator is None:
        return torch.randn(shape, dtype=like.dtype, device=like.device)
    return torch.randn(shape, generator=generator, device=generator.device).to(like)
