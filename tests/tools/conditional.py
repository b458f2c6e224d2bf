"""The smallest networks that take labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_gen.networks.discriminator import Discriminator, ProjectionHead


class Generator(nn.Module):
    """Images whose brightness is that of their label, 0 the darkest, but for a little of the latent."""

    def __init__(
        self, image_shape: tuple[int, int, int], latent_dim: int, num_classes: int, base_channels: int
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.num_classes = num_classes
        self.weight = nn.Parameter(torch.full((latent_dim,), 1e-3))

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        levels = 2 * labels / (self.num_classes - 1) - 1 + 0 * (latents @ self.weight)
        return levels[:, None, None, None].expand(-1, *self.image_shape)


class Projection(Discriminator):
    """Takes labels in its head alone."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, base_channels: int) -> None:
        super().__init__(num_classes)
        self.blocks = nn.Sequential(nn.Sequential(nn.Conv2d(image_shape[0], 2, 4, stride=8), nn.LeakyReLU(0.2)))
        self.set_head(32, ProjectionHead(32, num_classes))


class Concatenation(Projection):
    """Adds the label to the pixels."""

    def prepare_input(self, images: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        return images + labels[:, None, None, None]
