"""What models share whose networks all learn by one optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lightning_gen.models.base import GenerativeModel
from lightning_gen.models.optimizers import build_optimizer, build_schedule


class OneOptimizerModel(GenerativeModel):
    """All networks under one optimizer; a subclass sets them and trains in `training_iteration`.

    Args:
        optimizer: spec (see `lightning_gen.models.optimizers.build_optimizer`).
        gradient_clip_norm: total norm to which the gradient is clipped; None for no clipping.
    """

    def __init__(self, optimizer: Mapping[str, Any], gradient_clip_norm: float | None = None) -> None:
        super().__init__()
        self.optimizer_spec = optimizer
        self.gradient_clip_norm = gradient_clip_norm

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimizer for all networks."""
        parameters = [parameter for network in self.networks().values() for parameter in network.parameters()]
        optimizer = build_optimizer(self.optimizer_spec, parameters)
        schedule = build_schedule(self.optimizer_spec, optimizer)
        return [optimizer], [schedule] if schedule is not None else []

    def step(self, loss: Tensor) -> None:
        """One step of the optimizer."""
        (optimizer,) = self.optimizer_list()
        self.minimize(loss, optimizer, self, self.gradient_clip_norm)
