"""Adversarial losses on logits, as pairs of pure functions: one for the discriminator, one for the generator.

Every function takes scores before any sigmoid, of shape (N,) or any other shape, and returns a scalar mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from lightning_gen.registry import Registry


class AdversarialLoss(NamedTuple):
    """The two players' objectives, both to be minimised.

    Attributes:
        discriminator: (real_logits, fake_logits) -> scalar.
        generator: (fake_logits) -> scalar.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


adversarial_losses: Registry[AdversarialLoss] = Registry("adversarial loss", __package__)


def cross_entropy_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E[log D(x)] - E[log(1 - D(G(z)))], D = sigmoid(logits) (Goodfellow et al. 2014, eq. 1)."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def non_saturating_generator_loss(fake_logits: Tensor) -> Tensor:
    """-E[log D(G(z))] (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake_logits).mean()


def minimax_generator_loss(fake_logits: Tensor) -> Tensor:
    """E[log(1 - D(G(z)))] (Goodfellow et al. 2014, eq. 1)."""
    return -F.softplus(fake_logits).mean()


adversarial_losses.register("non_saturating")(
    AdversarialLoss(cross_entropy_discriminator_loss, non_saturating_generator_loss)
)
adversarial_losses.register("minimax")(AdversarialLoss(cross_entropy_discriminator_loss, minimax_generator_loss))
