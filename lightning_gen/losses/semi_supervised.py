"""The objectives of semi-supervised learning with a GAN (Salimans et al. 2016, sections 3.1 and 5).

The classifier's K logits l (N, K) stand for K + 1 classes: the last one, "generated", has the logit 0, because a
softmax does not change when the same number is added to all logits. With Z = sum_k exp(l_k) the probability that an
image is real is D(x) = Z / (Z + 1), so log Z is the logit of the discriminator.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gen.errors import UserError

FeatureDistance = Literal["squared", "absolute"]


def real_probability(class_logits: Tensor) -> Tensor:
    """D(x) = Z / (Z + 1), (N,), for class logits (N, K)."""
    return torch.sigmoid(torch.logsumexp(class_logits, 1))


def labelled_loss(class_logits: Tensor, labels: Tensor) -> Tensor:
    """-E[log p(y | x, y <= K)] = E[log Z - l_y], for class logits (N, K) and labels (N,) int64."""
    own = class_logits.gather(1, labels[:, None]).squeeze(1)
    return (torch.logsumexp(class_logits, 1) - own).mean()


def unlabelled_loss(class_logits: Tensor) -> Tensor:
    """-E[log D(x)] = E[softplus(log Z) - log Z], for class logits (N, K) of real images."""
    return F.softplus(-torch.logsumexp(class_logits, 1)).mean()


def fake_loss(class_logits: Tensor) -> Tensor:
    """-E[log(1 - D(G(z)))] = E[softplus(log Z)], for class logits (N, K) of fake images."""
    return F.softplus(torch.logsumexp(class_logits, 1)).mean()


def feature_matching_loss(
    real_features: Tensor, fake_features: Tensor, distance: FeatureDistance = "squared"
) -> Tensor:
    """Distance between the mean features of real and of fake images (Salimans et al. 2016, section 3.1).

    Args:
        real_features: (N, D).
        fake_features: (M, D).
        distance: ``squared`` or ``absolute``, either averaged over the D features; the published code takes the first
            for MNIST and the second for CIFAR-10 and SVHN.

    Raises:
        UserError: another distance.
    """
    difference = real_features.mean(0) - fake_features.mean(0)
    if distance == "squared":
        return difference.square().mean()
    if distance == "absolute":
        return difference.abs().mean()
    raise UserError(f"model.feature_distance must be squared or absolute, not {distance!r}")
