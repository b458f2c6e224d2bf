"""pix2pix: translation learned from pairs (Isola et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.losses.translation import criteria, discriminator_loss
from lightning_gen.models.base import ImageBatch, frozen
from lightning_gen.models.translation import TranslationModel, domains


class Pix2Pix(TranslationModel):
    """A conditional GAN with an L1 term: G* = arg min_G max_D L_cGAN(G, D) + lambda L_L1(G) (Isola et al. 2017, eq. 4).

    The generator's only noise is its dropout. One iteration is a step of the discriminator, whose objective is halved,
    and a step of the generator, on the same fake images (section 3.3).

    Args:
        image_shape: (C, H, W) of domain B.
        generator: spec of a `Translator`.
        discriminator: spec of a `DomainDiscriminator`.
        generator_optimizer: optimizer spec (see `build_optimizer`).
        discriminator_optimizer: optimizer spec.
        loss: a criterion of `lightning_gen.losses.translation`.
        l1_weight: lambda.
        conditional: whether the discriminator sees the input beside the output.
        gradient_clip_norm: total norm to which each network's gradients are clipped; None for no clipping.
        input_shape: (C, H, W) of domain A.
        paired: whether the data set's images of A and B belong together.

    Raises:
        UserError: a set without pairs, unknown names or options, or images that the networks cannot take.
    """

    network_names = ("generator", "discriminator")
    averaged_networks = ("generator",)
    translators: ClassVar[Mapping[str, str]] = {"AtoB": "generator"}
    discriminator_names = ("discriminator",)

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        generator: Mapping[str, Any],
        discriminator: Mapping[str, Any],
        generator_optimizer: Mapping[str, Any],
        discriminator_optimizer: Mapping[str, Any],
        loss: str = "non_saturating",
        l1_weight: float = 100.0,
        conditional: bool = True,
        gradient_clip_norm: float | None = None,
        input_shape: tuple[int, int, int] | None = None,
        paired: bool | None = None,
    ) -> None:
        super().__init__(image_shape, input_shape, discriminator_optimizer, generator_optimizer, gradient_clip_norm)
        if paired is False:
            raise UserError(
                "model=pix2pix learns from pairs, and this data set's images are not paired: set model=cyclegan or "
                "model=discogan, or data=paired, data=edges or data=colorize"
            )
        self.save_hyperparameters(logger=False)
        self.criterion = criteria[loss]
        self.l1_weight = l1_weight
        self.conditional = conditional
        self.generator = self.build_translator(generator, "A", "B")
        self.discriminator = self.build_discriminator(discriminator, "B", condition="A" if conditional else None)
        # The layout in which convolutions and batch norms are fastest, on the CPU too.
        self.to(memory_format=torch.channels_last)

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """A step of each network (Isola et al. 2017, section 3.3)."""
        a, b = domains(batch)
        fake_b = self.generator(a)
        return {**self.discriminator_step(a, b, fake_b.detach()), **self.generator_step(a, b, fake_b)}

    def discriminator_step(self, a: Tensor, b: Tensor, fake_b: Tensor) -> dict[str, Tensor]:
        """Step the discriminator on real and fake pairs; returns its loss."""
        loss = discriminator_loss(self.criterion, self._logits(a, b), self._logits(a, fake_b))
        self.step_discriminators(loss)
        return {"discriminator_loss": loss}

    def generator_step(self, a: Tensor, b: Tensor, fake_b: Tensor) -> dict[str, Tensor]:
        """Step the generator on fake images that carry its gradient; returns its two terms, weighted."""
        with frozen(self.discriminator):
            adversarial = self.criterion(self._logits(a, fake_b), True)
            l1 = self.l1_weight * F.l1_loss(fake_b, b)
            self.step_generators(adversarial + l1)
        return {"generator_loss": adversarial, "generator_l1": l1}

    def _logits(self, a: Tensor, b: Tensor) -> Tensor:
        return self.discriminator(b, a if self.conditional else None).logits
