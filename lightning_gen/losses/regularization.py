"""Terms on a discriminator's outputs and on weights, that regularizers weight and add to a player's loss.

Every function returns a scalar.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def consistency(logits: Tensor, transformed_logits: Tensor) -> Tensor:
    """E[(D(x) - D(T(x)))^2] for logits (N,) of the same images (Zhao et al. 2021, ICR, algorithm 1)."""
    return (logits - transformed_logits).square().mean()


def lecam(
    real_logits: Tensor, fake_logits: Tensor, real_anchor: Tensor, fake_anchor: Tensor, one_sided: bool = True
) -> Tensor:
    """E[(D(x) - a_F)^2] + E[(D(G(z)) - a_R)^2] (Tseng et al. 2021, R_LC).

    Args:
        real_logits: D(x) (N,).
        fake_logits: D(G(z)) (M,).
        real_anchor: a_R, the average prediction for real images.
        fake_anchor: a_F, the average prediction for fake images.
        one_sided: count real logits only above a_F and fake logits only below a_R, as the paper's code does.
    """
    real, fake = real_logits - fake_anchor, real_anchor - fake_logits
    if one_sided:
        real, fake = real.relu(), fake.relu()
    return real.square().mean() + fake.square().mean()


def non_orthogonality(filters: Tensor) -> Tensor:
    """|W^T W * (1 - I)|^2 for filters as the columns of W (Brock et al. 2019, eq. 3), given as rows (N, D)."""
    gram = filters @ filters.T
    return (gram - gram.diag().diag()).square().sum()


def feature_distance(real_features: Tensor, fake_features: Tensor, norm: Literal["l2", "l1"] = "l2") -> Tensor:
    """The distance of the mean features, averaged over the D of them (Salimans et al. 2016, section 3.1).

    The paper's norm is the sum of squares; its code averages, squares for MNIST and magnitudes (``l1``) for CIFAR-10.

    Args:
        real_features: (N, D).
        fake_features: (M, D).
        norm: ``l2`` for squares, ``l1`` for magnitudes.
    """
    difference = real_features.mean(0) - fake_features.mean(0)
    return difference.square().mean() if norm == "l2" else difference.abs().mean()


def label_smoothing(real_logits: Tensor, amount: float) -> Tensor:
    """What the cross entropy gains where the target of real images is 1 - amount (Salimans et al. 2016, section 3.4).

    -(1 - s) log sigmoid(x) - s log(1 - sigmoid(x)) = softplus(-x) + s x.
    """
    return amount * real_logits.mean()


def categorical_code_loss(outputs: Tensor, code: Tensor) -> Tensor:
    """-E[log Q(c | G(z, c))] of a one-hot code (N, K), the outputs (N, K) being logits (Chen et al. 2016, eq. 5)."""
    return F.cross_entropy(outputs, code.argmax(1))


def continuous_code_loss(outputs: Tensor, code: Tensor) -> Tensor:
    """-E[log Q(c | G(z, c))] of a code (N, K), Q being a Gaussian of mean ``outputs`` (N, K) and variance 1.

    Chen et al. 2016, eq. 5, with the fixed variance of its code.
    """
    return 0.5 * ((outputs - code).square() + math.log(2 * math.pi)).sum(1).mean()


def squared_distance(parameters: Tensor, average: Tensor) -> Tensor:
    """|theta - average|^2 (Salimans et al. 2016, section 3.3)."""
    return torch.sum((parameters - average).square())
