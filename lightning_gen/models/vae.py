"""Variational autoencoder (Kingma and Welling 2013), beta-VAE and conditional VAE."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.losses.pixel_laws import build_law
from lightning_gen.losses.variational import (
    gaussian_kl,
    gaussian_log_density,
    importance_weighted_bound,
    reparameterize,
    standard_normal_log_density,
)
from lightning_gen.models.autoencoding import AutoencodingModel, check_classes, normal_noise
from lightning_gen.models.base import ImageBatch
from lightning_gen.models.latent_mixture import LatentMixture
from lightning_gen.registry import construct


class Posterior(NamedTuple):
    """A diagonal normal law of the latents of every image.

    Attributes:
        means: (N, D).
        log_variances: (N, D).
    """

    means: Tensor
    log_variances: Tensor


class VAE(AutoencodingModel):
    """A VAE over any encoder, decoder and law of pixels.

    It minimizes the mean over images of -E[log p(x | z)] + beta KL(q(z | x) || N(0, I)), each summed over pixels or
    latents, with one draw of z (Kingma and Welling 2013, equation 10). The encoder sees what the law observes of the
    images, binarized images for a Bernoulli law; `encode` and `reconstruct` show it the images as they are. What is
    logged as ``negative_elbo``, and the likelihood, is always with beta = 1.

    Args:
        image_shape: (C, H, W) of the images.
        encoder: network spec (see `lightning_gen.networks.encoders`): images -> means and logarithms of variances.
        decoder: network spec (see `lightning_gen.networks.decoders`): latents -> parameters of the law.
        optimizer: optimizer spec (see `lightning_gen.models.optimizers.build_optimizer`).
        latent_dim: D.
        law: of the pixels, ``{"name": NAME, **options}`` (`lightning_gen.losses.pixel_laws`).
        beta: weight of the KL divergence (Higgins et al. 2017, equation 4).
        conditional: whether encoder and decoder take labels (Sohn et al. 2015).
        importance_samples: k of the bound that the likelihood is (Burda et al. 2016); 1 for the evidence lower bound.
        sampler: where samples take latents from: ``prior``, or ``mixture``, one fitted on codes of training images.
        mixture: options of `lightning_gen.models.latent_mixture.LatentMixture`.
        pixels: what samples are: ``mean`` of the law, or ``sample`` for draws from it.
        gradient_clip_norm: total norm to which the gradient is clipped; None for no clipping.
        num_classes: K of the data, 0 for a set without classes.
        label_law: probabilities of the data's classes.
        labelled_per_class: how many images of each class keep their label, None for all.

    Raises:
        UserError: unknown names or options, or a combination that means nothing.
    """

    likelihood_is_exact = False

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        encoder: Mapping[str, Any],
        decoder: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        latent_dim: int = 20,
        law: Mapping[str, Any] | None = None,
        beta: float = 1.0,
        conditional: bool = False,
        importance_samples: int = 64,
        sampler: Literal["prior", "mixture"] = "prior",
        mixture: Mapping[str, Any] | None = None,
        pixels: Literal["mean", "sample"] = "mean",
        gradient_clip_norm: float | None = None,
        num_classes: int = 0,
        label_law: list[float] | None = None,
        labelled_per_class: int | None = None,
    ) -> None:
        super().__init__(image_shape, optimizer, gradient_clip_norm)
        self.save_hyperparameters(logger=False)
        _check_choices(latent_dim, beta, importance_samples, sampler, pixels)
        if conditional:
            check_classes({"encoder": encoder, "decoder": decoder}, num_classes, labelled_per_class)
        self.latent_dim = latent_dim
        self.law_spec = dict(law or {"name": "bernoulli"})
        self.law = build_law(self.law_spec)
        self.beta = beta
        self.conditional = conditional
        self.label_law = label_law if conditional else None
        self.importance_samples = importance_samples
        self.pixels = pixels
        self.mixture = LatentMixture(latent_dim, **(mixture or {})) if sampler == "mixture" else None

        derived = {
            "image_shape": tuple(image_shape),
            "latent_dim": latent_dim,
            "num_classes": num_classes if conditional else None,
        }
        num_parameters = self.law.num_parameters(image_shape[0])
        self.encoder = construct(encoder, nn.Module, num_outputs=2 * latent_dim, **derived)
        self.decoder = construct(decoder, nn.Module, num_outputs=num_parameters, **derived)
        # The layout in which convolutions are fastest, on the CPU too.
        self.to(memory_format=torch.channels_last)

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """One step on the bound of one batch."""
        labels = batch.labels if self.conditional else None
        log_likelihood, kl = self.bound_terms(self.law.observe(batch.images), labels)
        loss = (self.beta * kl - log_likelihood).mean()
        self.step(loss)
        distortion, rate = -log_likelihood.detach().mean(), kl.detach().mean()
        return {"loss": loss, "negative_elbo": distortion + rate, "distortion": distortion, "rate": rate}

    def bound_terms(
        self, observed: Tensor, labels: Tensor | None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """What log p(x | z) is for one z ~ q(z | x), and KL(q || p), of every image.

        Args:
            observed: (N, C, H, W), as the law's `observe` returns them.
            labels: (N,) int64 of a conditional model, else None.
            generator: of z; None for the global one.

        Returns:
            Two times (N,) nats.
        """
        posterior = self.posterior(observed, labels)
        noise = normal_noise(tuple(posterior.means.shape), posterior.means, generator)
        return self.log_likelihood(observed, reparameterize(*posterior, noise), labels), gaussian_kl(*posterior)

    def posterior(self, images: Tensor, labels: Tensor | None = None) -> Posterior:
        """The law q(z | x) of the latents of images (N, C, H, W)."""
        return Posterior(*self.encoder(images, *self._given(labels)).float().chunk(2, 1))

    def log_likelihood(self, observed: Tensor, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """The log-likelihood log p(x | z) (N,), summed over pixels."""
        return self.law.log_prob(self._law_parameters(latents, labels), observed).sum((1, 2))

    def evidence_bound(
        self, observed: Tensor, labels: Tensor | None, num_samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """The importance-weighted bound (N,) of log p(x), in nats, with so many draws of z.

        Args:
            observed: (N, C, H, W), as the law's `observe` returns them.
            labels: (N,) int64 of a conditional model, else None.
            num_samples: k.
            generator: of z; None for the global one.
        """
        posterior = self.posterior(observed, labels)
        weights = []
        for _ in range(num_samples):
            noise = normal_noise(tuple(posterior.means.shape), posterior.means, generator)
            latents = reparameterize(*posterior, noise)
            joint = self.log_likelihood(observed, latents, labels) + standard_normal_log_density(latents)
            weights.append(joint - gaussian_log_density(latents, *posterior))
        return importance_weighted_bound(torch.stack(weights))

    @property
    def likelihood_settings(self) -> dict[str, Any]:
        """The law, the number of importance samples, and whether labels are given."""
        return {"law": self.law_spec, "importance_samples": self.importance_samples, "conditional": self.conditional}

    def bits_per_dim(self, images: Tensor, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """An upper bound of -log2 p(x) / (C H W), or of p(x | y) for a conditional model, of every image (N,)."""
        observed = self.law.observe(images, generator=generator)
        bound = self.evidence_bound(observed, labels if self.conditional else None, self.importance_samples, generator)
        return -bound / (math.prod(self.image_shape) * math.log(2))

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Means (N, D) of q(z | x)."""
        return self.posterior(images, labels).means

    def features(self, images: Tensor) -> Tensor:
        """Means (N, D) of q(z | x).

        Raises:
            UserError: the model is conditional, so that its features would hold the labels.
        """
        if self.conditional:
            raise UserError("The encoder of a conditional VAE takes labels: its features are not of the images alone")
        return self.encode(images)

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Means of p(x | z) at the means of q(z | x), (N, C, H, W) in [-1, 1]."""
        return self.decode(self.encode(images, labels), labels)

    def sampler_settings(self) -> dict[str, Any]:
        """Where latents come from, and what images are of them."""
        settings: dict[str, Any] = {"pixels": self.pixels}
        return settings if self.mixture is None else {**settings, "latents": self.mixture.settings()}

    def sample_latents(self, num_samples: int, *, generator: torch.Generator) -> Tensor:
        """Latents (num_samples, D) from N(0, I), or from the mixture if the model says so."""
        if self.mixture is not None:
            return self.mixture.sample(num_samples, generator=generator)
        return torch.randn(num_samples, self.latent_dim, generator=generator, device=generator.device).to(self.device)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Means of p(x | z), (N, C, H, W) in [-1, 1], of latents (N, D) and, for a conditional model, labels (N,)."""
        return self.law.mean(self._law_parameters(latents, labels))

    def sample(self, num_samples: int, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """New images (num_samples, C, H, W) in [-1, 1]; a conditional model draws labels that are not given."""
        latents = self.sample_latents(num_samples, generator=generator)
        if self.conditional and labels is None:
            labels = self.draw_labels(num_samples, generator=generator)
        if self.pixels == "sample":
            return self.law.sample(self._law_parameters(latents, labels), generator=generator)
        return self.decode(latents, labels)

    def _law_parameters(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        return self.decoder(latents, *self._given(labels)).float()

    def _given(self, labels: Tensor | None) -> tuple[Tensor, ...]:
        """What the networks are given beside their input."""
        if not self.conditional:
            return ()
        if labels is None:
            raise ValueError("a conditional model encodes and decodes for given labels")
        return (labels,)


def _check_choices(latent_dim: int, beta: float, importance_samples: int, sampler: str, pixels: str) -> None:
    if latent_dim < 1:
        raise UserError(f"model.latent_dim must be at least 1, not {latent_dim}")
    if beta < 0:
        raise UserError(f"model.beta must not be negative, as {beta} is")
    if importance_samples < 1:
        raise UserError(f"model.importance_samples must be at least 1, not {importance_samples}")
    if sampler not in ("prior", "mixture"):
        raise UserError(f"model.sampler must be prior or mixture, not {sampler!r}")
    if pixels not in ("mean", "sample"):
        raise UserError(f"model.pixels must be mean or sample, not {pixels!r}")
