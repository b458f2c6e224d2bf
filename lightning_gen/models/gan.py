"""Generative adversarial network: one generator against one discriminator (Goodfellow et al. 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_gen.losses.adversarial import adversarial_losses
from lightning_gen.models.base import GenerativeModel, ImageBatch, frozen
from lightning_gen.models.optimizers import build_optimizer, build_schedule
from lightning_gen.registry import construct


class GAN(GenerativeModel):
    """A GAN over any pair of networks; DCGAN (Radford et al. 2016) is its config with the DCGAN networks.

    One iteration draws one batch of fake images, steps the discriminator on real and fake batches (separate, so that
    batch norm never mixes them) and then the generator on the same fakes through the new discriminator.

    Args:
        image_shape: (C, H, W) of the images.
        generator: network spec (see `lightning_gen.registry.construct`): latents (N, latent_dim) -> images in [-1, 1].
        discriminator: network spec: images -> logits (N,).
        generator_optimizer: optimizer spec (see `build_optimizer`).
        discriminator_optimizer: optimizer spec.
        latent_dim: D of the latents, drawn from N(0, I).
        loss: name of an adversarial loss (`lightning_gen.losses.adversarial`).
        gradient_clip_norm: total norm to which each network's gradients are clipped; None for no clipping.

    Raises:
        UserError: unknown names or options, or an image shape that the networks cannot make.
    """

    network_names = ("generator", "discriminator")
    averaged_networks = ("generator",)

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        generator: Mapping[str, Any],
        discriminator: Mapping[str, Any],
        generator_optimizer: Mapping[str, Any],
        discriminator_optimizer: Mapping[str, Any],
        latent_dim: int = 100,
        loss: str = "non_saturating",
        gradient_clip_norm: float | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.latent_dim = latent_dim
        self.loss = adversarial_losses[loss]
        self.gradient_clip_norm = gradient_clip_norm
        self.optimizer_specs = (discriminator_optimizer, generator_optimizer)
        self.generator = construct(generator, nn.Module, image_shape=image_shape, latent_dim=latent_dim)
        self.discriminator = construct(discriminator, nn.Module, image_shape=image_shape)
        # The layout in which convolutions are fastest, on the CPU too; the numbers stay the same network's.
        self.to(memory_format=torch.channels_last)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Discriminator's, then generator's."""
        networks = (self.discriminator, self.generator)
        pairs = list(zip(self.optimizer_specs, networks, strict=True))
        optimizers = [build_optimizer(spec, network.parameters()) for spec, network in pairs]
        schedules = [
            build_schedule(spec, optimizer) for spec, optimizer in zip(self.optimizer_specs, optimizers, strict=True)
        ]
        return optimizers, [schedule for schedule in schedules if schedule is not None]

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Goodfellow et al. 2014, algorithm 1, with one discriminator step."""
        real_images = batch.images
        latents = torch.randn(len(real_images), self.latent_dim, device=self.device)
        fake_images = self.generator(latents)
        discriminator_loss = self.discriminator_step(real_images, fake_images.detach())
        generator_loss = self.generator_step(fake_images)
        return {"discriminator_loss": discriminator_loss, "generator_loss": generator_loss}

    def discriminator_step(self, real_images: Tensor, fake_images: Tensor) -> Tensor:
        """Step the discriminator on images that carry no gradient to the generator; returns its loss."""
        optimizer, _ = self.optimizer_list()
        loss = self.loss.discriminator(self.discriminator(real_images), self.discriminator(fake_images))
        self.minimize(loss, optimizer, self.discriminator, self.gradient_clip_norm)
        return loss

    def generator_step(self, fake_images: Tensor) -> Tensor:
        """Step the generator on images that carry gradient to it; returns its loss."""
        _, optimizer = self.optimizer_list()
        with frozen(self.discriminator):
            loss = self.loss.generator(self.discriminator(fake_images))
            self.minimize(loss, optimizer, self.generator, self.gradient_clip_norm)
        return loss

    def sample_latents(self, num_samples: int, *, generator: torch.Generator) -> Tensor:
        """Latents (num_samples, latent_dim) ~ N(0, I)."""
        latents = torch.randn(num_samples, self.latent_dim, generator=generator, device=generator.device)
        return latents.to(self.device)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of latents (N, latent_dim); labels are not used."""
        del labels
        return self.generator(latents)

    def sample(self, num_samples: int, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """New images (num_samples, C, H, W) in [-1, 1]."""
        return self.decode(self.sample_latents(num_samples, generator=generator), labels)
