"""The gradient penalties of `lightning_gen.losses.penalties`, as regularizers of any GAN."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.losses import penalties
from lightning_gen.regularizers.base import Players, Regularizer, Step, mixes_samples, regularizers


class GradientPenalty(Regularizer):
    """``weight`` times the mean penalty, in float32, on the images that the discriminator saw.

    Args:
        penalty: function of the discriminator, real and fake images.
        weight: factor of the penalty; for R1 and R2 that is gamma / 2 of Mescheder et al. 2018.
        every: iterations from one with the penalty to the next, in which it counts as many times as much (lazy
            regularization, Karras et al. 2020, appendix B).

    Raises:
        UserError: a discriminator in which a sample's gradient depends on the other samples.
    """

    def __init__(self, penalty: penalties.Penalty, weight: float, every: int = 1) -> None:
        super().__init__()
        if every < 1:
            raise UserError(f"model.regularizers: a penalty's every must be at least 1, not {every}")
        self.penalty = penalty
        self.every = every
        self.weight = weight

    def check(self, players: Players) -> None:
        """Refuse discriminators that mix the samples of a batch."""
        if mixes_samples(players.discriminator):
            raise UserError(
                "model.regularizers: batch norm or minibatch discrimination in the discriminator makes the gradient at "
                "one image depend on the others, so a gradient penalty on it means nothing: "
                "set model.discriminator.norm=none"
            )

    def discriminator_term(self, step: Step) -> Tensor | None:
        """The weighted penalty, or None in the iterations between."""
        if step.iteration % self.every:
            return None
        real_images, fake_images = step.real_images.float(), step.fake_images.float()
        with torch.autocast(real_images.device.type, enabled=False):
            values = self.penalty(lambda images: step.discriminate(images).logits, real_images, fake_images)
        return self.weight * self.every * values.mean()


for _name, _penalty in {
    "r1": penalties.r1,
    "r2": penalties.r2,
    "wgan_gp": penalties.wgan_gp,
    "zero_centered": penalties.zero_centered,
    "dragan": penalties.dragan,
}.items():
    regularizers.register(_name)(partial(GradientPenalty, _penalty))
