"""Losses of image-to-image translation, as pure functions that return scalars.

`lightning_gen.losses.adversarial` has each loss on the scale of its own paper. Here the players of a translation share
one criterion with a target, and the discriminator's two terms are averaged (Isola et al. 2017, section 3.3: its
objective is divided by 2), so the weights of the other terms mean what they mean in the papers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gen.registry import Registry

Criterion = Callable[[Tensor, bool], Tensor]
"""(logits, whether they should say that images are real) -> scalar."""

criteria: Registry[Criterion] = Registry("loss of a translation", __package__)


@criteria.register("non_saturating")
def cross_entropy(logits: Tensor, real: bool) -> Tensor:
    """Mean -log sigmoid(logits) of what should look real, -log(1 - sigmoid(logits)) of what should look fake."""
    return F.softplus(-logits if real else logits).mean()


@criteria.register("least_squares")
def least_squares(logits: Tensor, real: bool) -> Tensor:
    """Mean square distance to 1 of what should look real, to 0 of what should look fake (Zhu et al. 2017, 4)."""
    return (logits - float(real)).square().mean()


def discriminator_loss(criterion: Criterion, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The criterion's mean over real and fake images, half their sum."""
    return (criterion(real_logits, True) + criterion(fake_logits, False)) / 2


def mean_feature_loss(real_maps: Sequence[Tensor], fake_maps: Sequence[Tensor]) -> Tensor:
    """Distance of the batch's mean feature maps: sum over layers of mean((mean_n real - mean_n fake)^2).

    Source: the published code of Kim et al. 2017; the squares are of single positions and channels of the mean map.

    Args:
        real_maps: (N, C, H, W) of each layer.
        fake_maps: (M, C, H, W) of each layer.
    """
    distances = [(real.mean(0) - fake.mean(0)).square().mean() for real, fake in zip(real_maps, fake_maps, strict=True)]
    return torch.stack(distances).sum()


def unit_square_error(images: Tensor, targets: Tensor) -> Tensor:
    """Mean square error of images in [-1, 1] on the scale [0, 1], in which the weights of Kim et al. 2017 are given."""
    return F.mse_loss(images, targets) / 4
