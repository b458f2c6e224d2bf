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
        generator: (fake_logits, real_logits) -> scalar; ``real_logits`` is None unless the generator sees real images.
        generator_sees_real: whether the generator's loss depends on the logits of real images.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor | None], Tensor]
    generator_sees_real: bool = False


adversarial_losses: Registry[AdversarialLoss] = Registry("adversarial loss", __package__)


def cross_entropy_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E[log D(x)] - E[log(1 - D(G(z)))], D = sigmoid(logits) (Goodfellow et al. 2014, eq. 1)."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def non_saturating_generator_loss(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """-E[log D(G(z))] (Goodfellow et al. 2014, section 3)."""
    del real_logits
    return F.softplus(-fake_logits).mean()


def minimax_generator_loss(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """E[log(1 - D(G(z)))] (Goodfellow et al. 2014, eq. 1)."""
    del real_logits
    return -F.softplus(fake_logits).mean()


def least_squares_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E[(D(x) - 1)^2] / 2 + E[D(G(z))^2] / 2 (Mao et al. 2017, eq. 9)."""
    return ((real_logits - 1).square().mean() + fake_logits.square().mean()) / 2


def least_squares_generator_loss(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """E[(D(G(z)) - 1)^2] / 2 (Mao et al. 2017, eq. 9)."""
    del real_logits
    return (fake_logits - 1).square().mean() / 2


def wasserstein_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E[f(G(z))] - E[f(x)] (Arjovsky et al. 2017, eq. 3), the critic f being the discriminator."""
    return fake_logits.mean() - real_logits.mean()


def wasserstein_generator_loss(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """-E[f(G(z))] (Arjovsky et al. 2017, algorithm 1)."""
    del real_logits
    return -fake_logits.mean()


def hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] (Miyato et al. 2018, eq. 16)."""
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def relativistic_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E[log sigmoid(D(x) - D(G(z)))], pair by pair (Huang et al. 2024, eq. 2, with the logistic f)."""
    return F.softplus(fake_logits - real_logits).mean()


def relativistic_generator_loss(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """-E[log sigmoid(D(G(z)) - D(x))], pair by pair (Huang et al. 2024, eq. 2)."""
    assert real_logits is not None
    return F.softplus(real_logits - fake_logits).mean()


for _name, _loss in {
    "non_saturating": AdversarialLoss(cross_entropy_discriminator_loss, non_saturating_generator_loss),
    "minimax": AdversarialLoss(cross_entropy_discriminator_loss, minimax_generator_loss),
    "least_squares": AdversarialLoss(least_squares_discriminator_loss, least_squares_generator_loss),
    "wasserstein": AdversarialLoss(wasserstein_discriminator_loss, wasserstein_generator_loss),
    # Miyato et al. 2018, eq. 17: the generator's hinge loss is the Wasserstein one.
    "hinge": AdversarialLoss(hinge_discriminator_loss, wasserstein_generator_loss),
    "relativistic": AdversarialLoss(relativistic_discriminator_loss, relativistic_generator_loss, True),
}.items():
    adversarial_losses.register(_name)(_loss)
