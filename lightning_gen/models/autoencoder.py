"""Autoencoder, and denoising autoencoder (Vincent et al. 2008, 2010)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.losses.reconstruction import add_gaussian_noise, cross_entropy, mask_pixels, squared_error
from lightning_gen.models.autoencoding import AutoencodingModel
from lightning_gen.models.base import ImageBatch
from lightning_gen.models.latent_mixture import LatentMixture
from lightning_gen.registry import construct

LOSSES = {"squared": squared_error, "cross_entropy": cross_entropy}
NOISES = {"gaussian": add_gaussian_noise, "masking": mask_pixels}


class Autoencoder(AutoencodingModel):
    """An encoder to a code of D numbers and a decoder from it, trained to give images back.

    With ``noise`` the encoder sees disturbed images and the decoder has to give the clean ones back. Codes have no
    prior: samples are decoded draws of a Gaussian mixture, which is fitted on the codes of training images and travels
    in the checkpoint (`lightning_gen.callbacks.latent_mixture`); before the first fit they are draws of N(0, I).

    Args:
        image_shape: (C, H, W) of the images.
        encoder: network spec (see `lightning_gen.networks.encoders`): images -> codes.
        decoder: network spec (see `lightning_gen.networks.decoders`): codes -> images before the last nonlinearity.
        optimizer: optimizer spec (see `lightning_gen.models.optimizers.build_optimizer`).
        latent_dim: D.
        loss: ``squared``, of tanh outputs, or ``cross_entropy``; summed over pixels, the mean over images.
        noise: ``gaussian``, ``masking`` or None.
        noise_level: deviation of the Gaussian noise in units of the images' range [-1, 1], or share of black pixels.
        mixture: options of `lightning_gen.models.latent_mixture.LatentMixture`.
        gradient_clip_norm: total norm to which the gradient is clipped; None for no clipping.

    Raises:
        UserError: unknown names or options.
    """

    mixture: LatentMixture

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        encoder: Mapping[str, Any],
        decoder: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        latent_dim: int = 32,
        loss: Literal["squared", "cross_entropy"] = "squared",
        noise: Literal["gaussian", "masking"] | None = None,
        noise_level: float = 0.25,
        mixture: Mapping[str, Any] | None = None,
        gradient_clip_norm: float | None = None,
    ) -> None:
        super().__init__(image_shape, optimizer, gradient_clip_norm)
        self.save_hyperparameters(logger=False)
        if latent_dim < 1:
            raise UserError(f"model.latent_dim must be at least 1, not {latent_dim}")
        if loss not in LOSSES:
            raise UserError(f"model.loss must be squared or cross_entropy, not {loss!r}")
        if noise is not None and noise not in NOISES:
            raise UserError(f"model.noise must be gaussian, masking or null, not {noise!r}")
        if noise_level < 0 or (noise == "masking" and noise_level > 1):
            raise UserError(f"model.noise_level={noise_level}: set a deviation from 0, or a share of pixels up to 1")
        self.loss = LOSSES[loss]
        self.noise = noise
        self.noise_level = noise_level
        # The nonlinearity that the loss means: a brightness of sigmoid(x) is tanh(x / 2) in [-1, 1].
        self.output_scale = 1.0 if loss == "squared" else 0.5
        self.mixture = LatentMixture(latent_dim, **(mixture or {}))
        shape = tuple(image_shape)
        self.encoder = construct(encoder, nn.Module, image_shape=shape, num_outputs=latent_dim)
        self.decoder = construct(
            decoder, nn.Module, image_shape=shape, latent_dim=latent_dim, num_outputs=image_shape[0]
        )
        # The layout in which convolutions are fastest, on the CPU too.
        self.to(memory_format=torch.channels_last)

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """One step on one batch."""
        seen = batch.images if self.noise is None else NOISES[self.noise](batch.images, self.noise_level)
        loss = self.loss(self.decoder(self.encoder(seen)).float(), batch.images).mean()
        self.step(loss)
        return {"loss": loss}

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Codes (N, D) of images (N, C, H, W) without noise; labels are not looked at."""
        del labels
        return self.encoder(images).float()

    def features(self, images: Tensor) -> Tensor:
        """Codes (N, D)."""
        return self.encode(images)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of codes (N, D); labels are not looked at."""
        del labels
        return torch.tanh(self.output_scale * self.decoder(latents).float())

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the decoder makes of the codes of images without noise."""
        return self.decode(self.encode(images), labels)

    def sampler_settings(self) -> dict[str, Any]:
        """The mixture."""
        return {"latents": self.mixture.settings()}

    def sample_latents(self, num_samples: int, *, generator: torch.Generator) -> Tensor:
        """Codes (num_samples, D) from the mixture."""
        return self.mixture.sample(num_samples, generator=generator)

    def sample(self, num_samples: int, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """New images (num_samples, C, H, W) in [-1, 1]; labels are not looked at."""
        return self.decode(self.sample_latents(num_samples, generator=generator), labels)
