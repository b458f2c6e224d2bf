"""DiscoGAN: cross-domain relations discovered from two sets of unrelated images (Kim et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.losses.translation import criteria, mean_feature_loss, unit_square_error
from lightning_gen.models.base import ImageBatch, frozen
from lightning_gen.models.translation import TwoWayTranslation, domains
from lightning_gen.networks.translator import DomainOutput


class DiscoGAN(TwoWayTranslation):
    """Two translators and two discriminators, bound by reconstruction in both domains (Kim et al. 2017, section 2).

    With G_AB (``generator_ab``) and G_BA (``generator_ba``) the translators minimize, as the published code does,

        (1 - r) (w_gan L_GAN + w_features L_FM) + r d(G_BA(G_AB(a)), a)     and the same from B to A;

    L_GAN is the non-saturating loss, L_FM compares mean features of real and fake images in all of the discriminator's
    feature maps but the first, d is the mean square error on the scale [0, 1]. The rate r is low at first. In every
    third iteration both discriminators take a step, whose objectives are halved, in the others both translators.

    Args:
        image_shape: (C, H, W) of domain B.
        generator: spec of a `Translator`, for both directions.
        discriminator: spec of a `DomainDiscriminator`, for both domains.
        generator_optimizer: optimizer spec (see `build_optimizer`), for both translators.
        discriminator_optimizer: optimizer spec, for both discriminators.
        loss: a criterion of `lightning_gen.losses.translation`.
        adversarial_weight: w_gan.
        feature_weight: w_features.
        starting_rate: r in the first ``starting_iterations``.
        final_rate: r from then on.
        starting_iterations: see above.
        discriminator_every: the discriminators step in each iteration whose number, from 0, is a multiple of this.
        gradient_clip_norm: total norm to which the gradients of each optimizer are clipped; None for no clipping.
        input_shape: (C, H, W) of domain A.

    Raises:
        UserError: a set of one domain, unknown names or options, or images that the networks cannot take.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        generator: Mapping[str, Any],
        discriminator: Mapping[str, Any],
        generator_optimizer: Mapping[str, Any],
        discriminator_optimizer: Mapping[str, Any],
        loss: str = "non_saturating",
        adversarial_weight: float = 0.1,
        feature_weight: float = 0.9,
        starting_rate: float = 0.01,
        final_rate: float = 0.5,
        starting_iterations: int = 10000,
        discriminator_every: int = 3,
        gradient_clip_norm: float | None = None,
        input_shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__(image_shape, input_shape, discriminator_optimizer, generator_optimizer, gradient_clip_norm)
        if discriminator_every < 2:
            raise UserError(
                f"model.discriminator_every={discriminator_every} would leave the generators no iteration: set it to 2 "
                "or more"
            )
        for name, rate in (("starting_rate", starting_rate), ("final_rate", final_rate)):
            if not 0 <= rate <= 1:
                raise UserError(f"model.{name} must be in [0, 1], not {rate}")
        self.save_hyperparameters(logger=False)
        self.criterion = criteria[loss]
        self.adversarial_weight = adversarial_weight
        self.feature_weight = feature_weight
        self.starting_rate = starting_rate
        self.final_rate = final_rate
        self.starting_iterations = starting_iterations
        self.discriminator_every = discriminator_every
        self.build_networks(generator, discriminator)
        # The layout in which convolutions and batch norms are fastest, on the CPU too.
        self.to(memory_format=torch.channels_last)

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """A step of the discriminators or one of the translators."""
        a, b = domains(batch)
        if self.iteration % self.discriminator_every == 0:
            with torch.no_grad(), frozen(self.generators()):
                fake_a, fake_b = self.generator_ba(b), self.generator_ab(a)
            return self.discriminator_step(a, b, fake_a, fake_b)
        return self.generator_step(a, b)

    def generator_step(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        """Step both translators (Kim et al. 2017, section 2); returns the terms, weighted."""
        rate = self.starting_rate if self.iteration < self.starting_iterations else self.final_rate
        fake_a, fake_b = self.generator_ba(b), self.generator_ab(a)
        with frozen(self.discriminators()):
            with torch.no_grad():
                real_a, real_b = self.discriminator_a(a), self.discriminator_b(b)
            terms = {
                "generator_ab_loss": (1 - rate) * self._adversarial(real_b, self.discriminator_b(fake_b)),
                "generator_ba_loss": (1 - rate) * self._adversarial(real_a, self.discriminator_a(fake_a)),
                "reconstruction_a": rate * unit_square_error(self.generator_ba(fake_b), a),
                "reconstruction_b": rate * unit_square_error(self.generator_ab(fake_a), b),
            }
            first, *others = terms.values()
            self.step_generators(sum(others, first))
        return terms

    def _adversarial(self, real: DomainOutput, fake: DomainOutput) -> Tensor:
        features = mean_feature_loss(real.feature_maps[1:], fake.feature_maps[1:])
        return self.adversarial_weight * self.criterion(fake.logits, True) + self.feature_weight * features
