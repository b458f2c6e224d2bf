"""Weight clipping (Arjovsky et al. 2017)."""

from __future__ import annotations

import torch
from torch.nn.utils import parametrize

from lightning_gen.errors import UserError
from lightning_gen.regularizers.base import Players, Regularizer, Step, regularizers


@regularizers.register("weight_clip")
class WeightClip(Regularizer):
    """After each of its steps the discriminator's weights are clipped to [-limit, limit] (algorithm 1, line 7).

    Args:
        limit: c of the paper.

    Raises:
        UserError: a discriminator whose weights are parametrized, so that clipping them does not bound what they are.
    """

    def __init__(self, limit: float) -> None:
        super().__init__()
        if limit <= 0:
            raise UserError(f"model.regularizers.weight_clip.limit must be above 0, not {limit}")
        self.limit = limit

    def check(self, players: Players) -> None:
        """Refuse spectral and weight norm."""
        if any(parametrize.is_parametrized(module) for module in players.discriminator.modules()):
            raise UserError(
                "model.regularizers.weight_clip: spectral or weight norm divides the weights by their norm, "
                "so clipping them bounds nothing: keep one of the two"
            )

    @torch.no_grad()
    def after_discriminator_step(self, players: Players, step: Step) -> None:
        """Clip."""
        for parameter in players.discriminator.parameters():
            parameter.clamp_(-self.limit, self.limit)
