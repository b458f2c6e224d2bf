"""Adaptive discriminator augmentation, ADA (Karras et al. 2020, Training GANs with limited data)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.regularizers.augmentations import augment_adaptively
from lightning_gen.regularizers.base import Players, Regularizer, Step, mean_over_ranks, regularizers, world_size

DECISIONS = {"non_saturating": 0.0, "minimax": 0.0, "hinge": 0.0, "least_squares": 0.5}
"""The logit at which a discriminator takes an image for real as much as for fake, for losses that have one."""


@regularizers.register("ada")
class AdaptiveAugmentation(Regularizer):
    """The discriminator sees images under transformations whose probability p follows how much it overfits.

    The sign of overfitting is r_t = E[sign(D(x))] over the real images of ``interval`` discriminator steps (eq. 1),
    where sign is about the logit at which the discriminator is undecided; p goes up by a fixed step if r_t is above
    ``target``, else down. The transformations are those of `augment_adaptively`.

    Args:
        target: where r_t is held; None for a fixed p.
        transformations: any of ``b`` (flips, quarter turns, whole pixels), ``g`` (geometry), ``c`` (color).
        initial_probability: p of the beginning.
        max_probability: the highest p.
        adjust_images: how many real images p would take from 0 to 1.
        interval: discriminator steps from one change of p to the next.

    Raises:
        UserError: values out of range, or a loss with no such logit where p is to adapt.
    """

    probability: Tensor
    signs: Tensor
    steps: Tensor

    def __init__(
        self,
        target: float | None = 0.6,
        transformations: str = "bgc",
        initial_probability: float = 0.0,
        max_probability: float = 1.0,
        adjust_images: int = 500_000,
        interval: int = 4,
    ) -> None:
        super().__init__()
        if not 0 <= initial_probability <= max_probability <= 1:
            raise UserError(
                "model.regularizers.ada: probabilities must be from 0 to 1, initial_probability at most max_probability"
            )
        if not transformations or set(transformations) - set("bgc"):
            raise UserError(f"model.regularizers.ada.transformations must be of b, g and c, not {transformations!r}")
        if target is None and initial_probability == 0:
            raise UserError("model.regularizers.ada with target=null keeps p where it is: set initial_probability")
        if adjust_images < 1 or interval < 1:
            raise UserError("model.regularizers.ada: adjust_images and interval must be at least 1")
        self.target = target
        self.transformations = transformations
        self.max_probability = max_probability
        self.adjust_images = adjust_images
        self.interval = interval
        self.undecided = 0.0
        self.register_buffer("probability", torch.tensor(float(initial_probability)))
        self.register_buffer("signs", torch.tensor(0.0))
        self.register_buffer("steps", torch.tensor(0))

    def check(self, players: Players) -> None:
        """Refuse to adapt to logits whose sign means nothing."""
        if self.target is None:
            return
        if players.loss not in DECISIONS:
            raise UserError(
                f"model.regularizers.ada: under model.loss={players.loss} the sign of a logit says nothing about "
                "overfitting: set target=null and initial_probability"
            )
        self.undecided = DECISIONS[players.loss]

    def augment(self, images: Tensor) -> Tensor:
        """The transformations, each image's own."""
        if images.shape[1] not in (1, 3) and "c" in self.transformations:
            raise UserError("model.regularizers.ada knows colors of 1 or 3 channels: set transformations=bg")
        with torch.autocast(images.device.type, enabled=False):
            return augment_adaptively(images, self.probability, self.transformations)

    @torch.no_grad()
    def after_discriminator_step(self, players: Players, step: Step) -> None:
        """Follow r_t and move p, without asking the device for a value."""
        if self.target is None:
            return
        assert step.real is not None
        signs = (step.real.logits.float() - self.undecided).sign().mean()
        self.signs += mean_over_ranks(signs) / self.interval
        self.steps += 1
        due = self.steps % self.interval == 0
        images = self.interval * len(step.real_images) * world_size()
        move = (self.signs - self.target).sign() * (images / self.adjust_images)
        self.probability += torch.where(due, move, 0.0)
        self.probability.clamp_(0, self.max_probability)
        self.signs.masked_fill_(due, 0)
