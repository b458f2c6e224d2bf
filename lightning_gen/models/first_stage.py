"""The first stage of latent diffusion (Rombach et al. 2022): images to maps of latents and back."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.losses.adversarial import adversarial_losses
from lightning_gen.losses.pixel_laws import build_law
from lightning_gen.models.base import GenerativeModel, ImageBatch, frozen
from lightning_gen.models.optimizers import build_optimizer, build_schedule
from lightning_gen.models.perceptual import PerceptualDistance
from lightning_gen.networks.translator import DomainDiscriminator
from lightning_gen.registry import construct

LARGEST_WEIGHT = 1e4
"""Bound of the ratio in `adaptive_weight`."""


class Coded(NamedTuple):
    """What a first stage makes of a batch in training.

    Attributes:
        latents: (N, c, h, w), what the decoder gets.
        penalty: scalar, the weighted term that regularizes the latents, a sum over an image's latents.
        measures: name -> scalar, for the logs.
    """

    latents: Tensor
    penalty: Tensor
    measures: dict[str, Tensor]


class FirstStage(GenerativeModel):
    """An autoencoder with maps of latents, trained on distances of pixels and of features and against a discriminator.

    It minimizes the mean over images of (Rombach et al. 2022, equation 25 in appendix G, and the published code)

        sum of |x - x'| + C H W perceptual_weight LPIPS(x, x') + penalty of the latents + lambda L_adversarial(x'),

    x' the reconstruction and lambda the `adaptive_weight` times ``adversarial_weight``; the discriminator of patches
    minimizes half its loss. Before iteration ``adversarial_start`` there is no adversarial term and the discriminator
    takes no step. With a discriminator one iteration is a step of it, on images and reconstructions, and then one of
    encoder and decoder.

    A subclass says what the encoder's outputs are (`num_encoder_outputs`, `code`, `law`) and may quantize.

    Args:
        image_shape: (C, H, W) of the images.
        encoder: network spec, images -> maps (`lightning_gen.networks.residual_maps`, or `MapEncoder` in `.encoders`).
        decoder: network spec, maps -> images or parameters of the law, whose last weight of four dimensions is that of
            its last convolution.
        optimizer: spec of the optimizer of encoder and decoder (see `build_optimizer`).
        discriminator: spec of a `DomainDiscriminator`; None for no adversarial term.
        discriminator_optimizer: spec of the discriminator's optimizer.
        latent_channels: c.
        law: of the pixels, ``{"name": NAME, **options}`` (`lightning_gen.losses.pixel_laws`), whose negative
            log-likelihood takes the place of the first term; None for that term.
        perceptual_weight: of LPIPS; above 0 its published weights are needed in training.
        adversarial_weight: see above.
        adversarial_start: first iteration, counted from 0, with the discriminator.
        loss: of the adversary (`lightning_gen.losses.adversarial`).
        gradient_clip_norm: total norm to which each optimizer's gradients are clipped; None for no clipping.

    Attributes:
        latent_shape: (c, h, w).

    Raises:
        UserError: unknown names or options, or negative weights.
    """

    averaged_networks: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    discriminator: nn.Module | None

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        encoder: Mapping[str, Any],
        decoder: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        discriminator: Mapping[str, Any] | None = None,
        discriminator_optimizer: Mapping[str, Any] | None = None,
        latent_channels: int = 4,
        law: Mapping[str, Any] | None = None,
        perceptual_weight: float = 0.0,
        adversarial_weight: float = 0.5,
        adversarial_start: int = 50_000,
        loss: str = "hinge",
        gradient_clip_norm: float | None = None,
    ) -> None:
        super().__init__()
        if latent_channels < 1:
            raise UserError(f"model.latent_channels must be at least 1, not {latent_channels}")
        weights = {"perceptual_weight": perceptual_weight, "adversarial_weight": adversarial_weight}
        for name, weight in {**weights, "adversarial_start": adversarial_start}.items():
            if weight < 0:
                raise UserError(f"model.{name} must not be negative, as {weight} is")
        self.loss = adversarial_losses[loss]
        if self.loss.generator_sees_real:
            raise UserError(f"model.loss={loss} compares real and fake images in pairs: set model.loss=hinge")
        self.image_shape = tuple(image_shape)
        self.law_of_pixels = None if law is None else build_law(law)
        self.perceptual_weight = perceptual_weight
        self.adversarial_weight = adversarial_weight
        self.adversarial_start = adversarial_start
        self.gradient_clip_norm = gradient_clip_norm
        self.optimizer_specs = [optimizer]
        self._perceptual: PerceptualDistance | None = None

        channels, shape = image_shape[0], tuple(image_shape)
        num_parameters = channels if self.law_of_pixels is None else self.law_of_pixels.num_parameters(channels)
        outputs = self.num_encoder_outputs(latent_channels)
        self.encoder = construct(encoder, nn.Module, image_shape=shape, num_outputs=outputs)
        self.decoder = construct(
            decoder, nn.Module, image_shape=shape, latent_dim=latent_channels, num_outputs=num_parameters
        )
        self.discriminator = None
        if discriminator is not None:
            if discriminator_optimizer is None:
                raise UserError("model.discriminator needs model.discriminator_optimizer")
            self.discriminator = construct(
                discriminator, DomainDiscriminator, input_channels=channels, image_shape=shape
            )
            self.optimizer_specs = [discriminator_optimizer, optimizer]
        with torch.no_grad():
            height, width = self.encoder(torch.zeros(1, *shape)).shape[2:]
        self.latent_shape = (latent_channels, int(height), int(width))
        # The layout in which convolutions are fastest, on the CPU too.
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def num_encoder_outputs(latent_channels: int) -> int:
        """Channels of the encoder's maps."""
        return latent_channels

    @abstractmethod
    def code(self, moments: Tensor) -> Coded:
        """What training makes of the encoder's outputs (N, M, h, w)."""

    @abstractmethod
    def law(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances, each (N, c, h, w), of the latents of images with these `moments`."""

    def networks(self) -> dict[str, nn.Module]:
        """Encoder, decoder and, where there is one, discriminator."""
        networks = {"encoder": self.encoder, "decoder": self.decoder}
        return networks if self.discriminator is None else {**networks, "discriminator": self.discriminator}

    def prepare_training(self) -> None:
        """Load LPIPS if the loss has it."""
        if self.perceptual_weight and self._perceptual is None:
            self._perceptual = PerceptualDistance()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The discriminator's, if there is one, then that of encoder and decoder."""
        players = [nn.ModuleList([self.encoder, self.decoder])]
        if self.discriminator is not None:
            players.insert(0, nn.ModuleList([self.discriminator]))
        pairs = list(zip(self.optimizer_specs, players, strict=True))
        optimizers = [build_optimizer(spec, player.parameters()) for spec, player in pairs]
        schedules = [
            build_schedule(spec, optimizer) for spec, optimizer in zip(self.optimizer_specs, optimizers, strict=True)
        ]
        return optimizers, [schedule for schedule in schedules if schedule is not None]

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """A step of the discriminator, once it plays, and a step of encoder and decoder."""
        images = batch.images
        coded = self.code(self.encoder(images).float())
        outputs = self.decoder(coded.latents).float()
        if self.discriminator is None or self.iteration < self.adversarial_start:
            return self.autoencoder_step(images, coded, outputs)
        losses = self.discriminator_step(self.discriminator, images, self._seen(outputs).detach())
        with frozen(self.discriminator):
            return {**losses, **self.autoencoder_step(images, coded, outputs, self.discriminator)}

    def discriminator_step(self, discriminator: nn.Module, images: Tensor, fakes: Tensor) -> dict[str, Tensor]:
        """Step the discriminator on images and reconstructions; returns its loss."""
        optimizer, _ = self.optimizer_list()
        loss = 0.5 * self.loss.discriminator(discriminator(images).logits, discriminator(fakes).logits)
        self.minimize(loss, optimizer, discriminator, self.gradient_clip_norm)
        return {"discriminator_loss": loss}

    def autoencoder_step(
        self, images: Tensor, coded: Coded, outputs: Tensor, discriminator: nn.Module | None = None
    ) -> dict[str, Tensor]:
        """Step encoder and decoder; returns the loss and its terms.

        Args:
            images: (N, C, H, W).
            coded: what the images became.
            outputs: the decoder's, of the coded latents.
            discriminator: None before it plays.
        """
        distortion = self.distortion(outputs, images).mean()
        losses = {"distortion": distortion, **coded.measures}
        if self.perceptual_weight:
            self.prepare_training()
            assert self._perceptual is not None
            distance = self._perceptual(self._seen(outputs), images).mean()
            losses["perceptual"] = distance
            distortion = distortion + math.prod(self.image_shape) * self.perceptual_weight * distance
        loss = distortion + coded.penalty
        if discriminator is not None:
            adversarial = self.loss.generator(discriminator(self._seen(outputs)).logits, None)
            weight = self.adversarial_weight * adaptive_weight(distortion, adversarial, last_weight(self.decoder))
            loss = loss + weight * adversarial
            losses |= {"generator_loss": adversarial, "adaptive_weight": weight}
        self.minimize(loss, self.optimizer_list()[-1], self._autoencoder, self.gradient_clip_norm)
        return {"loss": loss, **losses}

    def distortion(self, outputs: Tensor, images: Tensor) -> Tensor:
        """Distances (N,) between the decoder's outputs and images, summed over pixels: L1, or that of the law."""
        if self.law_of_pixels is None:
            return (outputs - images).abs().flatten(1).sum(1)
        return -self.law_of_pixels.log_prob(outputs, self.law_of_pixels.observe(images)).sum((1, 2))

    def moments(self, images: Tensor) -> Tensor:
        """The encoder's outputs (N, M, h, w) float32 for images (N, C, H, W) in [-1, 1], which `law` reads."""
        with torch.autocast(images.device.type, enabled=False):
            # Noise is drawn in the order of the memory: in one layout it is the same wherever these come from.
            return self.encoder(images).float().contiguous()

    def decode_maps(self, latents: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of latents (N, c, h, w)."""
        return self._seen(self.decoder(latents).float()).clamp(-1, 1)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of latents (N, c * h * w); labels are not looked at."""
        del labels
        return self.decode_maps(latents.unflatten(1, self.latent_shape))

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Means (N, c * h * w) of the latents of images; labels are not looked at."""
        del labels
        return self.law(self.moments(images))[0].flatten(1)

    def features(self, images: Tensor) -> Tensor:
        """Means (N, c * h * w) of the latents of images."""
        return self.encode(images)

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the decoder makes of the means; labels are not looked at."""
        return self.decode(self.encode(images), labels)

    @property
    def _autoencoder(self) -> nn.Module:
        return nn.ModuleList([self.encoder, self.decoder])

    def _seen(self, outputs: Tensor) -> Tensor:
        """The reconstructions, which without a law may leave [-1, 1], where a bound would have no gradient."""
        return outputs if self.law_of_pixels is None else self.law_of_pixels.mean(outputs)


def adaptive_weight(distortion: Tensor, adversarial: Tensor, weight: nn.Parameter) -> Tensor:
    """``|grad distortion| / (|grad adversarial| + 1e-4)``, at most 1e4, of the gradients of one weight.

    Esser et al. 2021, "Taming transformers", equation 7, with the published code's constants.

    Args:
        distortion: scalar loss of the reconstructions.
        adversarial: scalar loss of the adversary.
        weight: the last of the decoder.

    Returns:
        A scalar without gradient.
    """
    (first,) = torch.autograd.grad(distortion, weight, retain_graph=True)
    (second,) = torch.autograd.grad(adversarial, weight, retain_graph=True)
    return (first.float().norm() / (second.float().norm() + 1e-4)).clamp(0, LARGEST_WEIGHT).detach()


def last_weight(decoder: nn.Module) -> nn.Parameter:
    """The weight of the decoder's last convolution."""
    return [parameter for parameter in decoder.parameters() if parameter.dim() == 4][-1]
