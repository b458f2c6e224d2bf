"""CycleGAN: translation learned from two sets of unrelated images (Zhu et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.losses.translation import criteria
from lightning_gen.models.base import ImageBatch, frozen
from lightning_gen.models.replay_pool import ReplayPool, gather_pools, own_pool
from lightning_gen.models.translation import TwoWayTranslation, domains


class CycleGAN(TwoWayTranslation):
    """Two translators and two discriminators, bound by cycle consistency (Zhu et al. 2017, eq. 3).

    With G: A -> B (``generator_ab``) and F: B -> A (``generator_ba``) the translators minimize

        L_GAN(G, D_B) + L_GAN(F, D_A) + lambda (|F(G(a)) - a| + |G(F(b)) - b|) + mu lambda (|G(b) - b| + |F(a) - a|),

    the last being the identity term of section 5.2. One iteration is a step of both translators and then one of both
    discriminators, whose objectives are halved and whose fake images come through replay pools (section 4).

    Each process has its own pools. A checkpoint holds those of all of them: a run that goes on with as many processes
    goes on exactly; with another number, process r begins with the pool of process r modulo the former number.

    Args:
        image_shape: (C, H, W) of domain B.
        generator: spec of a `Translator`, for both directions.
        discriminator: spec of a `DomainDiscriminator`, for both domains.
        generator_optimizer: optimizer spec (see `build_optimizer`), for both translators.
        discriminator_optimizer: optimizer spec, for both discriminators.
        loss: a criterion of `lightning_gen.losses.translation`.
        cycle_weight: lambda.
        identity_weight: mu, as a part of ``cycle_weight``; 0 for no identity term.
        pool_size: images in each replay pool; 0 for none.
        gradient_clip_norm: total norm to which the gradients of each optimizer are clipped; None for no clipping.
        input_shape: (C, H, W) of domain A.

    Raises:
        UserError: a set of one domain, an identity term between images of other channels, unknown names or options, or
            images that the networks cannot take.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        generator: Mapping[str, Any],
        discriminator: Mapping[str, Any],
        generator_optimizer: Mapping[str, Any],
        discriminator_optimizer: Mapping[str, Any],
        loss: str = "least_squares",
        cycle_weight: float = 10.0,
        identity_weight: float = 0.5,
        pool_size: int = 50,
        gradient_clip_norm: float | None = None,
        input_shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__(image_shape, input_shape, discriminator_optimizer, generator_optimizer, gradient_clip_norm)
        self.save_hyperparameters(logger=False)
        self.criterion = criteria[loss]
        self.cycle_weight = cycle_weight
        self.identity_weight = identity_weight
        channels = [shape[0] for shape in self.domain_shapes.values()]
        if identity_weight and channels[0] != channels[1]:
            raise UserError(
                f"model.identity_weight={identity_weight} compares images of {channels[0]} channels with such of "
                f"{channels[1]}: set it to 0"
            )
        self.build_networks(generator, discriminator)
        self.pools = {domain: ReplayPool(pool_size) for domain in ("A", "B")}

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """A step of the translators, then one of the discriminators (Zhu et al. 2017, section 4)."""
        a, b = domains(batch)
        fake_a, fake_b = self.generator_ba(b), self.generator_ab(a)
        losses = self.generator_step(a, b, fake_a, fake_b)
        pooled = [self.pools["A"].exchange(fake_a.detach()), self.pools["B"].exchange(fake_b.detach())]
        return {**losses, **self.discriminator_step(a, b, *pooled)}

    def generator_step(self, a: Tensor, b: Tensor, fake_a: Tensor, fake_b: Tensor) -> dict[str, Tensor]:
        """Step both translators on fake images that carry their gradients; returns the terms, weighted."""
        with frozen(self.discriminators()):
            terms = {
                "generator_ab_loss": self.criterion(self.discriminator_b(fake_b).logits, True),
                "generator_ba_loss": self.criterion(self.discriminator_a(fake_a).logits, True),
                "cycle_a": self.cycle_weight * F.l1_loss(self.generator_ba(fake_b), a),
                "cycle_b": self.cycle_weight * F.l1_loss(self.generator_ab(fake_a), b),
            }
            if self.identity_weight:
                weight = self.identity_weight * self.cycle_weight
                terms["identity_a"] = weight * F.l1_loss(self.generator_ba(a), a)
                terms["identity_b"] = weight * F.l1_loss(self.generator_ab(b), b)
            first, *others = terms.values()
            self.step_generators(sum(others, first))
        return terms

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the pools of all processes; every process calls this."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["replay_pools"] = {
            domain: gather_pools(pool.images, self.device) for domain, pool in self.pools.items()
        }

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the counters and this process's pools."""
        super().on_load_checkpoint(checkpoint)
        for domain, pools in checkpoint["replay_pools"].items():
            self.pools[domain].restore(own_pool(pools))
