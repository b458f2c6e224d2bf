"""Distances between images and what an autoencoder makes of its codes, and the noise that it has to undo."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def squared_error(outputs: Tensor, images: Tensor) -> Tensor:
    """Squared error (N,) of tanh(outputs), summed over pixels and channels.

    Args:
        outputs: (N, C, H, W), unbounded.
        images: (N, C, H, W) in [-1, 1].
    """
    return (torch.tanh(outputs) - images).square().flatten(1).sum(1)


def cross_entropy(outputs: Tensor, images: Tensor) -> Tensor:
    """Cross-entropy (N,) in nats, summed over pixels and channels, of brightnesses as probabilities of white.

    Vincent et al. 2010, "Stacked denoising autoencoders", section 2.2; its minimum is the images' own entropy, not 0.

    Args:
        outputs: (N, C, H, W), logits.
        images: (N, C, H, W) in [-1, 1].
    """
    return F.binary_cross_entropy_with_logits(outputs, (images + 1) / 2, reduction="none").flatten(1).sum(1)


def add_gaussian_noise(images: Tensor, deviation: float) -> Tensor:
    """Images with noise ~ N(0, deviation^2), which may leave [-1, 1] (Vincent et al. 2010, section 3.3)."""
    return images + deviation * torch.randn_like(images)


def mask_pixels(images: Tensor, share: float) -> Tensor:
    """Images of which each pixel, in all its channels, is black with probability ``share`` (Vincent et al. 2008)."""
    dropped = torch.rand_like(images[:, :1]) < share
    return images.masked_fill(dropped, -1.0)
