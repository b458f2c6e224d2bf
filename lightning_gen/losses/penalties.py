"""Penalties on the discriminator's gradient with respect to images.

Each is a function of the discriminator (images (N, C, H, W) -> logits (N,)), real and fake images in [-1, 1], and gives
the penalty (N,) of each sample, to be weighted and averaged. They need second derivatives and are meant for float32.
A layer that mixes the samples of a batch (batch norm) would make a sample's gradient depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Discriminator = Callable[[Tensor], Tensor]
Penalty = Callable[[Discriminator, Tensor, Tensor], Tensor]


def image_gradients(discriminator: Discriminator, images: Tensor) -> Tensor:
    """The gradient (N, C * H * W) of each sample's logit with respect to its image; can be differentiated again."""
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        (gradients,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradients.flatten(1)


def r1(discriminator: Discriminator, real_images: Tensor, fake_images: Tensor) -> Tensor:
    """|grad D(x)|^2 at real images (Mescheder et al. 2018, eq. 9, for a weight of gamma / 2)."""
    del fake_images
    return image_gradients(discriminator, real_images).square().sum(1)


def r2(discriminator: Discriminator, real_images: Tensor, fake_images: Tensor) -> Tensor:
    """|grad D(G(z))|^2 at fake images (Mescheder et al. 2018, eq. 10, for a weight of gamma / 2)."""
    del real_images
    return image_gradients(discriminator, fake_images).square().sum(1)


def wgan_gp(discriminator: Discriminator, real_images: Tensor, fake_images: Tensor) -> Tensor:
    """(|grad D(y)| - 1)^2 at y between a real and a fake image, drawn for each pair (Gulrajani et al. 2017, eq. 3)."""
    return (_norm(image_gradients(discriminator, _between(real_images, fake_images))) - 1).square()


def zero_centered(discriminator: Discriminator, real_images: Tensor, fake_images: Tensor) -> Tensor:
    """|grad D(y)|^2 at y between a real and a fake image (Thanh-Tung et al. 2019)."""
    return image_gradients(discriminator, _between(real_images, fake_images)).square().sum(1)


def dragan(discriminator: Discriminator, real_images: Tensor, fake_images: Tensor) -> Tensor:
    """(|grad D(y)| - 1)^2 at y around real images (Kodali et al. 2017 and its code).

    y lies between x and x + std(X) u / 2, where u ~ U[0, 1) for every pixel and std(X) is that of the batch's pixels.
    """
    del fake_images
    noise = 0.5 * real_images.std() * torch.rand_like(real_images)
    return (_norm(image_gradients(discriminator, real_images + _one_for_each(real_images) * noise)) - 1).square()


def _between(real_images: Tensor, fake_images: Tensor) -> Tensor:
    return torch.lerp(real_images, fake_images, _one_for_each(real_images))


def _one_for_each(images: Tensor) -> Tensor:
    """A number (N, 1, 1, 1) ~ U[0, 1) for each image."""
    return torch.rand_like(images[:, :1, :1, :1])


def _norm(gradients: Tensor) -> Tensor:
    # The norm's own derivative is infinite at zero.
    return gradients.square().sum(1).add(1e-12).sqrt()
