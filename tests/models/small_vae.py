"""VAEs small enough to be computed by hand or fitted in a test."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gen.models.vae import VAE

MLP = {"hidden": [16], "activation": "tanh"}
ADAM = {"name": "Adam", "lr": 1e-3}
ENCODER = "lightning_gen.networks.encoders.MLPEncoder"
DECODER = "lightning_gen.networks.decoders.MLPDecoder"


def small_vae(seed: int = 0, **options: Any) -> VAE:
    torch.manual_seed(seed)
    networks = {"encoder": {"_target_": ENCODER, **MLP}, "decoder": {"_target_": DECODER, **MLP}}
    return VAE(**{"image_shape": (1, 8, 8), "latent_dim": 3, "optimizer": ADAM, **networks, **options})


STD = 0.4


class LinearDecoder(nn.Module):
    """Means W z + b of images, W with orthogonal columns, so that the posterior's covariance is diagonal."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__()
        self.shape = image_shape
        rng = torch.Generator().manual_seed(7)
        pixels = math.prod(image_shape)
        orthogonal, _ = torch.linalg.qr(torch.randn(pixels, latent_dim, generator=rng))
        self.weight = nn.Parameter(orthogonal * torch.linspace(0.5, 1.5, latent_dim))
        self.bias = nn.Parameter(0.1 * torch.randn(pixels, generator=rng))

    def forward(self, latents: Tensor) -> Tensor:
        return (latents @ self.weight.T + self.bias).unflatten(1, self.shape)


class ExactEncoder(nn.Module):
    """The posterior of `LinearDecoder` with pixels' deviation `STD`: N(C W' (x - b) / s^2, C), 1 / C = 1 + W'W / s^2.

    Args:
        image_shape: (C, H, W).
        latent_dim: D.
        shift: added to the means, which makes the posterior wrong.
    """

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, shift: float = 0.0) -> None:
        super().__init__()
        decoder = LinearDecoder(image_shape, latent_dim)
        weight, self.bias = decoder.weight.detach(), decoder.bias.detach()
        self.variances = 1 / (1 + weight.square().sum(0) / STD**2)
        self.matrix = weight * self.variances / STD**2
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, images: Tensor) -> Tensor:
        means = (images.flatten(1) - self.bias) @ self.matrix + self.shift
        return torch.cat([means, self.variances.log().expand_as(means)], 1)


def linear_vae(shift: float = 0.0, **options: Any) -> VAE:
    return VAE(
        image_shape=(1, 2, 4),
        encoder={"_target_": f"{__name__}.ExactEncoder", "shift": shift},
        decoder={"_target_": f"{__name__}.LinearDecoder"},
        optimizer=ADAM,
        latent_dim=3,
        law={"name": "gaussian", "std": STD},
        **options,
    )
