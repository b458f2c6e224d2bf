"""First stages and latent diffusion small enough to be computed by hand or fitted in a test."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_gen.models.first_stage import FirstStage
from lightning_gen.models.kl_autoencoder import VQGAN, KLAutoencoder
from lightning_gen.models.latent_diffusion import LatentDiffusion
from lightning_gen.networks.denoising import DenoisingNetwork

ADAM = {"name": "Adam", "lr": 1e-2, "betas": [0.5, 0.9]}
MAPS = {"channels": 4, "residual_channels": 4, "halvings": 1}
NETWORKS = {
    "encoder": {"_target_": "lightning_gen.networks.encoders.MapEncoder", **MAPS},
    "decoder": {"_target_": "lightning_gen.networks.decoders.MapDecoder", **MAPS},
}
DISCRIMINATOR = {
    "_target_": "lightning_gen.networks.patch_discriminator.PatchDiscriminator",
    "base_channels": 4,
    "num_layers": 1,
}


class TinyDenoiser(DenoisingNetwork):
    """Two convolutions, told the noise level and the label by a shift of each channel."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int | None = None) -> None:
        super().__init__(image_shape, num_classes)
        self.first = nn.Conv2d(image_shape[0], 4, 3, padding=1)
        self.level = nn.Linear(1, 4)
        self.label = nn.Embedding(num_classes + 1, 4) if num_classes is not None else None
        self.last = nn.Conv2d(4, image_shape[0], 3, padding=1)

    def forward(self, images: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `DenoisingNetwork.forward`."""
        shift = self.level(noise_level[:, None] / 1000)
        if self.label is not None:
            shift = shift + self.label(labels)
        last: Tensor = self.last(torch.tanh(self.first(images) + shift[:, :, None, None]))
        return last


DIFFUSION = {
    "_target_": "lightning_gen.models.diffusion.Diffusion",
    "network": {"_target_": "tests.models.small_latents.TinyDenoiser"},
    "optimizer": ADAM,
    "schedule": {"name": "linear", "num_steps": 100},
    "target": {"name": "noise"},
    "weight": {"name": "simple"},
    "times": {"name": "uniform"},
    "sampler": {"name": "ddim", "steps": 4},
    "clip": False,
}


def small_first_stage(kind: type[FirstStage] = KLAutoencoder, **options: Any) -> Any:
    """For images of 1x8x8, with latents of 3x4x4, and a discriminator from the first iteration on."""
    torch.manual_seed(0)
    codes = {"num_codes": 6} if kind is VQGAN else {}
    adversary = {"discriminator": DISCRIMINATOR, "discriminator_optimizer": ADAM, "adversarial_start": 0}
    shared = {"optimizer": ADAM, "latent_channels": 3, **NETWORKS, **adversary, **codes}
    return kind(image_shape=(1, 8, 8), **{**shared, **options})


def spec(model: FirstStage) -> dict[str, Any]:
    """What makes a model of the same shape."""
    return {"_target_": f"{type(model).__module__}.{type(model).__name__}", **model.hparams}


def small_latent_diffusion(first: FirstStage, diffusion: dict[str, Any] | None = None, **options: Any) -> Any:
    """Of that first stage's latents."""
    torch.manual_seed(1)
    model = LatentDiffusion((1, 8, 8), spec(first), {**DIFFUSION, **(diffusion or {})}, **options)
    model.first_stage.load_state_dict({k: v for k, v in first.state_dict().items() if "discriminator" not in k})
    return model


def images(number: int, seed: int = 1) -> Tensor:
    """Uniform noise of 1x8x8 in [-1, 1]."""
    return torch.rand(number, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
