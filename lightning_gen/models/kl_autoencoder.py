"""First stages of latent diffusion: KL-regularized autoencoder and VQGAN (Rombach et al. 2022; Esser et al. 2021)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.losses.variational import gaussian_kl, reparameterize
from lightning_gen.models.first_stage import Coded, FirstStage
from lightning_gen.models.vae import Posterior
from lightning_gen.networks.vector_quantizer import VectorQuantizer

LOG_VARIANCES = (-30.0, 20.0)
"""Bounds of the logarithms of the variances, as in the published code."""


class KLAutoencoder(FirstStage):
    """A `FirstStage` whose latents have a normal law, drawn to N(0, I) by a small weight (Rombach et al. 2022, 3.1).

    The penalty is ``kl_weight`` KL(q(z | x) || N(0, I)), summed over latents. So weak a pull leaves latents far from
    N(0, I): `sample`, which decodes draws of it, is what a second stage has to beat.

    Args:
        image_shape: see `FirstStage`.
        kl_weight: see above.
        options: the others of `FirstStage`.

    Raises:
        UserError: see `FirstStage`.
    """

    def __init__(self, image_shape: tuple[int, int, int], kl_weight: float = 1e-6, **options: Any) -> None:
        super().__init__(image_shape, **options)
        self.save_hyperparameters({"image_shape": image_shape, "kl_weight": kl_weight, **options}, logger=False)
        if kl_weight < 0:
            raise UserError(f"model.kl_weight must not be negative, as {kl_weight} is")
        self.kl_weight = kl_weight

    @staticmethod
    def num_encoder_outputs(latent_channels: int) -> int:
        """Means and logarithms of variances."""
        return 2 * latent_channels

    def code(self, moments: Tensor) -> Coded:
        """Draws of the latents, and the KL divergence."""
        means, log_variances = _split(moments)
        kl = gaussian_kl(means.flatten(1), log_variances.flatten(1)).mean()
        latents = reparameterize(means, log_variances, torch.randn_like(means))
        return Coded(latents, self.kl_weight * kl, {"rate": kl})

    def law(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances of the latents."""
        means, log_variances = _split(moments)
        return means, log_variances.exp()

    def posterior(self, images: Tensor, labels: Tensor | None = None) -> Posterior:
        """The law q(z | x) of the latents (N, c * h * w) of images (N, C, H, W); labels are not looked at."""
        del labels
        return Posterior(*(each.flatten(1) for each in _split(self.moments(images))))

    def sample_latents(self, num_samples: int, *, generator: torch.Generator) -> Tensor:
        """Draws (num_samples, c * h * w) of N(0, I)."""
        size = math.prod(self.latent_shape)
        return torch.randn(num_samples, size, generator=generator, device=generator.device).to(self.device)

    def sample(self, num_samples: int, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """Decoded draws of N(0, I), (num_samples, C, H, W) in [-1, 1]; labels are not looked at."""
        return self.decode(self.sample_latents(num_samples, generator=generator), labels)


class VQGAN(FirstStage):
    """A `FirstStage` whose latents are quantized before they are decoded (Esser et al. 2021; Rombach et al. 2022, 3.1).

    Its latents are those before quantization, so a second stage may be off by as much as quantization takes back. The
    penalty is ``C H W beta`` times the commitment, the codebook's term replaced by moving averages
    (`lightning_gen.networks.vector_quantizer.VectorQuantizer`).

    Args:
        image_shape: see `FirstStage`.
        num_codes: K.
        beta: weight of the commitment.
        decay: of the codebook's moving averages.
        restart_below: see `VectorQuantizer`.
        options: the others of `FirstStage`.

    Raises:
        UserError: see `FirstStage`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_codes: int = 8192,
        beta: float = 0.25,
        decay: float = 0.99,
        restart_below: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(image_shape, **options)
        own = {"num_codes": num_codes, "beta": beta, "decay": decay, "restart_below": restart_below}
        self.save_hyperparameters({"image_shape": image_shape, **own, **options}, logger=False)
        if beta < 0:
            raise UserError(f"model.beta must not be negative, as {beta} is")
        self.beta = beta
        self.quantizer = VectorQuantizer(num_codes, self.latent_shape[0], decay, restart_below)

    def networks(self) -> dict[str, Any]:
        """Those of `FirstStage`, and the quantizer."""
        return {**super().networks(), "quantizer": self.quantizer}

    def code(self, moments: Tensor) -> Coded:
        """The nearest codes, which follow the vectors, and the commitment."""
        quantized = self.quantizer(moments)
        penalty = math.prod(self.image_shape) * self.beta * quantized.commitment
        measures = {"commitment": quantized.commitment, "perplexity": quantized.perplexity}
        return Coded(quantized.vectors, penalty, measures)

    def law(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors before quantization, and no variance."""
        return moments, torch.zeros_like(moments)

    def decode_maps(self, latents: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of the codes nearest to latents (N, c, h, w)."""
        vectors = latents.float().movedim(1, -1)
        indices = self.quantizer.nearest(vectors.flatten(0, -2)).view(vectors.shape[:-1])
        return super().decode_maps(self.quantizer.look_up(indices))


def _split(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Means and logarithms of variances, each (N, c, h, w)."""
    means, log_variances = moments.chunk(2, 1)
    return means, log_variances.clamp(*LOG_VARIANCES)
