"""Vector-quantized autoencoder, VQ-VAE (van den Oord et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.losses.pixel_laws import build_law
from lightning_gen.models.autoencoding import AutoencodingModel
from lightning_gen.models.base import ImageBatch
from lightning_gen.networks.vector_quantizer import VectorQuantizer
from lightning_gen.registry import construct


class VQVAE(AutoencodingModel):
    """The first stage of a VQ-VAE: images to maps of indices into a codebook, and back.

    It minimizes (equation 3 of the paper, the codebook's term replaced by the moving averages of its appendix A.1)

        -log p(x | z_q) / (C H W) + beta mean (z_e - sg[z_q])^2,

    both terms means, so that beta means the same at any batch size and any map. It has no prior of its own and so
    samples nothing: a second stage learns the law of `encode_indices` and hands its samples to `decode_indices`.

    Args:
        image_shape: (C, H, W) of the images.
        encoder: network spec: images -> maps of vectors (`lightning_gen.networks.encoders.MapEncoder`).
        decoder: network spec: maps of vectors -> parameters of the law (`lightning_gen.networks.decoders.MapDecoder`).
        optimizer: optimizer spec (see `lightning_gen.models.optimizers.build_optimizer`).
        num_codes: K.
        code_dim: D of the vectors.
        beta: weight of the commitment.
        decay: of the codebook's moving averages.
        restart_below: see `lightning_gen.networks.vector_quantizer.VectorQuantizer`.
        law: of the pixels, ``{"name": NAME, **options}`` (`lightning_gen.losses.pixel_laws`).
        gradient_clip_norm: total norm to which the gradient is clipped; None for no clipping.

    Raises:
        UserError: unknown names or options.
    """

    network_names: ClassVar[tuple[str, ...]] = ("encoder", "quantizer", "decoder")

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        encoder: Mapping[str, Any],
        decoder: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        num_codes: int = 512,
        code_dim: int = 64,
        beta: float = 0.25,
        decay: float = 0.99,
        restart_below: float = 0.5,
        law: Mapping[str, Any] | None = None,
        gradient_clip_norm: float | None = None,
    ) -> None:
        super().__init__(image_shape, optimizer, gradient_clip_norm)
        self.save_hyperparameters(logger=False)
        if beta < 0:
            raise UserError(f"model.beta must not be negative, as {beta} is")
        self.law_spec = dict(law or {"name": "gaussian", "std": 0.36})
        self.law = build_law(self.law_spec)
        self.beta = beta
        shape = tuple(image_shape)
        num_parameters = self.law.num_parameters(image_shape[0])
        self.encoder = construct(encoder, nn.Module, image_shape=shape, num_outputs=code_dim)
        self.quantizer = VectorQuantizer(num_codes, code_dim, decay, restart_below)
        self.decoder = construct(decoder, nn.Module, image_shape=shape, latent_dim=code_dim, num_outputs=num_parameters)
        # The layout in which convolutions are fastest, on the CPU too.
        self.to(memory_format=torch.channels_last)

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """One step on one batch, after which the codebook has followed the batch's vectors."""
        observed = self.law.observe(batch.images)
        quantized = self.quantizer(self.encoder(observed))
        log_likelihood = self.law.log_prob(self.decoder(quantized.vectors).float(), observed).sum((1, 2))
        distortion = -log_likelihood.mean() / math.prod(self.image_shape)
        loss = distortion + self.beta * quantized.commitment
        self.step(loss)
        return {
            "loss": loss,
            "distortion": distortion,
            "commitment": quantized.commitment,
            "perplexity": quantized.perplexity,
        }

    @property
    def num_codes(self) -> int:
        """K, how many values an index can take."""
        return self.quantizer.num_codes

    def encode_indices(self, images: Tensor) -> Tensor:
        """Indices (N, h, w) int64 in [0, K) of images (N, C, H, W) in [-1, 1]."""
        vectors = self.encoder(images).float().movedim(1, -1)
        return self.quantizer.nearest(vectors.flatten(0, -2)).view(vectors.shape[:-1])

    def decode_indices(self, indices: Tensor) -> Tensor:
        """Means of p(x | z_q), (N, C, H, W) in [-1, 1], of indices (N, h, w)."""
        return self.law.mean(self.decoder(self.quantizer.look_up(indices)).float())

    def log_likelihood(self, observed: Tensor, indices: Tensor) -> Tensor:
        """Log p(x | z_q) (N,) in nats, summed over pixels.

        Args:
            observed: (N, C, H, W), as the law's `observe` returns them.
            indices: (N, h, w).
        """
        return self.law.log_prob(self.decoder(self.quantizer.look_up(indices)).float(), observed).sum((1, 2))

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the decoder makes of the images' codes; labels are not looked at."""
        del labels
        return self.decode_indices(self.encode_indices(images))

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The codes of all positions, (N, D * h * w); labels are not looked at."""
        del labels
        return self.quantizer.look_up(self.encode_indices(images)).flatten(1)

    def features(self, images: Tensor) -> Tensor:
        """The codes of all positions, (N, D * h * w)."""
        return self.encode(images)
