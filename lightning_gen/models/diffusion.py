"""Diffusion and flow matching: images from noise, step by step, by a network that tells the two apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lightning_gen.diffusion import editing
from lightning_gen.diffusion.coupling import build_coupling
from lightning_gen.diffusion.film import Film, Recorder, add_noise, film_levels
from lightning_gen.diffusion.likelihood import build_likelihood
from lightning_gen.diffusion.samplers.base import Denoise, Sampler, build_sampler
from lightning_gen.diffusion.schedules import Level, build_schedule
from lightning_gen.diffusion.targets import build_target
from lightning_gen.diffusion.times import build_time_law
from lightning_gen.diffusion.weights import build_weight
from lightning_gen.errors import UserError
from lightning_gen.models import optimizers
from lightning_gen.models.base import GenerativeModel, ImageBatch
from lightning_gen.models.labels import check_conditional
from lightning_gen.networks.denoising import DenoisingNetwork
from lightning_gen.registry import construct


class Diffusion(GenerativeModel):
    """Any `DenoisingNetwork` with any noise schedule, target, loss weights, training times, coupling and sampler.

    The papers' models are its configs: DDPM, improved DDPM, EDM, flow matching, OT-CFM. A training iteration adds noise
    of random levels to images and minimizes the weighted squared error of the target. Nothing here but the likelihood
    takes the images for pictures: with ``clip=false`` any maps of one shape will do.

    A conditional model is given "no label" for some images in training and so learns to do without. Samples are then
    guided (Ho and Salimans 2022): the estimate is ``unconditional + guidance_scale * (conditional - unconditional)``.

    Args:
        image_shape: (C, H, W) of the images.
        network: spec of a `DenoisingNetwork`.
        optimizer: optimizer spec (see `build_optimizer`).
        schedule: ``{"name": ..., **options}`` of `lightning_gen.diffusion.schedules`.
        target: that of what the network predicts, `lightning_gen.diffusion.targets`.
        weight: that of the weights of the error, `lightning_gen.diffusion.weights`.
        times: that of the law of training times, `lightning_gen.diffusion.times`.
        sampler: that of the sampler, `lightning_gen.diffusion.samplers`.
        coupling: that of the pairs of images and noise, `lightning_gen.diffusion.coupling`; None for independent ones.
        likelihood: that of `bits_per_dim`, `lightning_gen.diffusion.likelihood`; None for the variational bound.
        conditional: whether the network takes labels.
        label_drop: probability, for each image, that training hides its label.
        guidance_scale: 1 for the conditional model, 0 for the unconditional one, above 1 for samples that fit their
            label better and differ less.
        clip: whether estimates of images are clipped to [-1, 1].
        gradient_clip_norm: total norm to which gradients are clipped; None for no clipping.
        num_classes: K of the data, 0 for a set without classes.
        class_names: of the data's classes, for networks that are told of them by captions.
        label_law: probabilities of the data's classes.
        labelled_per_class: how many images of each class keep their label, None for all.

    Attributes:
        sampler: the sampler in use; `use_sampler` takes another.
        guidance_scale: may be set.

    Raises:
        UserError: unknown names or options, parts that do not fit together, or labels asked of data that lacks them.
    """

    network_names = ("network",)
    averaged_networks: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        network: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        schedule: Mapping[str, Any],
        target: Mapping[str, Any],
        weight: Mapping[str, Any],
        times: Mapping[str, Any],
        sampler: Mapping[str, Any],
        coupling: Mapping[str, Any] | None = None,
        likelihood: Mapping[str, Any] | None = None,
        conditional: bool = False,
        label_drop: float = 0.1,
        guidance_scale: float = 1.0,
        clip: bool = True,
        gradient_clip_norm: float | None = 1.0,
        num_classes: int = 0,
        class_names: list[str] | None = None,
        label_law: list[float] | None = None,
        labelled_per_class: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        if conditional:
            check_conditional(num_classes, labelled_per_class)
        if not 0 <= label_drop <= 1:
            raise UserError(f"model.label_drop must be from 0 to 1, not {label_drop}")
        self.image_shape = tuple(image_shape)
        self.conditional = conditional
        self.num_classes = num_classes if conditional else None
        self.label_law = label_law if conditional else None
        self.label_drop = label_drop
        self._guidance_scale = 1.0
        self.guidance_scale = guidance_scale
        self.clip = clip
        self.gradient_clip_norm = gradient_clip_norm
        self.optimizer_spec = optimizer
        self.schedule = build_schedule(schedule)
        self.target = build_target(target)
        self.weight = build_weight(weight)
        self.times = build_time_law(times)
        self.coupling = build_coupling(coupling or {"name": "independent"})
        self.likelihood = build_likelihood(likelihood or {"name": "variational_bound"})
        self.sampler = build_sampler(sampler)
        self.sampler.check(self.schedule)
        if self.target.needs_signal and math.isinf(self.schedule.largest_ratio):
            raise UserError(
                f"model.target.name={target['name']} tells nothing of the image where samples begin with noise alone: "
                "set it to velocity or v"
            )
        self.network = construct(
            network,
            DenoisingNetwork,  # type: ignore[type-abstract]
            image_shape=image_shape,
            num_classes=self.num_classes,
            class_names=class_names,
        )

    @property
    def guidance_scale(self) -> float:
        """How much samples are drawn towards their labels; see the class."""
        return self._guidance_scale

    @guidance_scale.setter
    def guidance_scale(self, scale: float) -> None:
        if scale != 1 and not self.conditional:
            raise UserError(f"a guidance scale of {scale:g} needs a model with labels: set model.conditional=true")
        if scale != 1 and not self.label_drop:
            raise UserError(f"a guidance scale of {scale:g} needs a model trained with model.label_drop above 0")
        self._guidance_scale = scale

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The network's."""
        optimizer = optimizers.build_optimizer(self.optimizer_spec, self.network.parameters())
        schedule = optimizers.build_schedule(self.optimizer_spec, optimizer)
        return [optimizer], [schedule] if schedule is not None else []

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """One step on the weighted mean squared error of the target."""
        (optimizer,) = self.optimizer_list()
        loss = self.loss(batch.images, batch.labels)
        self.minimize(loss, optimizer, self.network, self.gradient_clip_norm)
        return {"loss": loss}

    def loss(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The weighted mean squared error of the target on images (N, ...) and labels (N,), at random noise levels."""
        labels = labels if self.conditional else None
        noise = self.coupling.pair(images, torch.randn_like(images), labels)
        levels = self.schedule.at(self.times.draw(len(images), self.schedule))
        weights = self.weight.of_target(self.target, levels.alpha, levels.sigma)
        # One copy to the device, of what float64 was needed for.
        *on_device, weights = torch.stack([*levels, weights]).float().to(images.device, non_blocking=True)
        level = Level(*(part.view(-1, 1, 1, 1) for part in on_device))
        noisy = level.alpha * images + level.sigma * noise
        predicted = self._predict(noisy, level, self._drop(labels))
        errors = (predicted - self.target.of(images, noise, level)).square().flatten(1).mean(1)
        return (weights * errors).mean()

    def denoise(
        self, noisy: Tensor, times: float | Tensor, labels: Tensor | None = None, guidance_scale: float | None = None
    ) -> Tensor:
        """Estimates (N, C, H, W) of the images in noisy ones.

        Args:
            noisy: (N, C, H, W).
            times: of all or, (N,), of each, in [0, 1].
            labels: (N,) int64; None for no label.
            guidance_scale: in the place of the model's.
        """
        each = torch.as_tensor(times, dtype=torch.float64, device="cpu").expand(len(noisy))
        level = self.schedule.at(each)
        columns = Level(*(part.to(noisy).view(-1, 1, 1, 1) for part in level))
        return self._estimate(noisy, columns, labels, guidance_scale, self.clip)

    def use_sampler(self, name: str | None = None, steps: int | None = None) -> None:
        """Sample otherwise from now on.

        Args:
            name: of another sampler, with its own defaults; None for the same.
            steps: None for as many as now.

        Raises:
            UserError: no such sampler, or steps that it or the schedule does not have.
        """
        now = self.sampler
        options = now.options if name in (None, now.name) else {}
        chosen = Sampler(name or now.name, now.steps if steps is None else steps, now.float64, **options)
        if steps is not None and chosen.evaluations is None:
            raise UserError(f"the sampler {chosen.name} chooses its own steps: leave --steps out or name another")
        chosen.check(self.schedule)
        self.sampler = chosen

    def sampler_settings(self) -> dict[str, Any]:
        """The sampler with its steps, options and number of estimates, the guidance, and whether estimates are clipped.

        ``evaluations`` are calls of the network; with guidance each is on twice the images.
        """
        guidance = {"guidance_scale": self.guidance_scale} if self.conditional else {}
        return {**self.sampler.settings, **guidance, "clip": self.clip}

    def sample(self, num_samples: int, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """New images (num_samples, C, H, W); a conditional model draws labels that are not given."""
        if self.conditional and labels is None:
            labels = self.draw_labels(num_samples, generator=generator)
        return self._generate(self.sampler, self._noise(num_samples, generator), labels, generator)

    def sample_latents(self, num_samples: int, *, generator: torch.Generator) -> Tensor:
        """Noise (num_samples, C * H * W) that `decode` begins with."""
        return self._noise(num_samples, generator).flatten(1)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) of latents (N, C * H * W), without further noise.

        In the place of a sampler that draws noise on the way it is DDIM with as many steps.
        """
        sampler = Sampler("ddim", self.sampler.steps, self.sampler.float64) if self.sampler.stochastic else self.sampler
        return self._generate(sampler, latents.to(self.device).unflatten(1, self.image_shape), labels, None)

    def noised(self, images: Tensor, times: Sequence[float], *, generator: torch.Generator) -> Film:
        """See `lightning_gen.diffusion.film.add_noise`."""
        return add_noise(images, times, self.schedule, generator)

    def film(self, num_samples: int, frames: int, labels: Tensor | None = None, *, generator: torch.Generator) -> Film:
        """States and estimates of `sample` at evenly spaced steps; the last frame is what `sample` returns."""
        if self.conditional and labels is None:
            labels = self.draw_labels(num_samples, generator=generator)
        recorder = Recorder(self._denoiser(labels), film_levels(self.schedule, self.sampler, frames))
        noise = self._noise(num_samples, generator)
        return recorder.film(self._clipped(self.sampler(recorder, noise, self.schedule, generator)))

    def edit(
        self, images: Tensor, strength: float, labels: Tensor | None = None, *, generator: torch.Generator
    ) -> Tensor:
        """See `lightning_gen.diffusion.editing.edit`; without labels it is the unconditional model's."""
        denoise = self._denoiser(labels)
        return self._clipped(editing.edit(denoise, images, strength, self.schedule, self.sampler, generator))

    def inpaint(
        self,
        images: Tensor,
        known: Tensor,
        labels: Tensor | None = None,
        *,
        resamples: int = 1,
        generator: torch.Generator,
    ) -> Tensor:
        """See `lightning_gen.diffusion.editing.inpaint`; without labels it is the unconditional model's."""
        denoise, parts = self._denoiser(labels), (self.schedule, self.sampler, generator)
        filled = editing.inpaint(denoise, images, known, *parts, resamples)
        return torch.where(known, images, self._clipped(filled))

    @property
    def likelihood_is_exact(self) -> bool:
        """False: of images with 256 levels both likelihoods are bounds."""
        return False

    @property
    def likelihood_settings(self) -> Mapping[str, Any]:
        """Which bound, its options, and whether labels are given."""
        return {**self.likelihood.settings, "conditional": self.conditional}

    def bits_per_dim(self, images: Tensor, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """Upper bounds (N,) of -log2 p(x) / (C H W) of images of 256 levels.

        A conditional model that is given no labels takes the mean of the probabilities over the law of the labels.
        """
        if not self.conditional or labels is not None:
            return self._to_bits(self._nats(images, labels, generator))
        assert self.label_law is not None
        weights = images.new_tensor(self.label_law).log()
        every = torch.arange(len(weights), device=images.device)[:, None].expand(-1, len(images))
        nats = torch.stack([self._nats(images, same, generator) for same in every], 1)
        return self._to_bits(-(weights - nats).logsumexp(1))

    def _nats(self, images: Tensor, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        def denoise(noisy: Tensor, level: Level[float], clip: bool) -> Tensor:
            return self._estimate(noisy, level, labels, 1.0, clip and self.clip)

        return self.likelihood.nats(denoise, images, self.schedule, generator)

    def _to_bits(self, nats: Tensor) -> Tensor:
        return nats / (math.log(2) * math.prod(self.image_shape))

    def _noise(self, number: int, generator: torch.Generator) -> Tensor:
        return torch.randn(number, *self.image_shape, generator=generator, device=generator.device).to(self.device)

    def _generate(
        self, sampler: Sampler, noise: Tensor, labels: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        return self._clipped(sampler(self._denoiser(labels), noise, self.schedule, generator))

    def _denoiser(self, labels: Tensor | None) -> Denoise:
        """What samplers ask, for these labels."""
        given = None if labels is None else labels.to(self.device)
        return lambda noisy, level: self._estimate(noisy, level, given, None, self.clip)

    def _clipped(self, images: Tensor) -> Tensor:
        """What a sampler returned, within the images' range: solvers add up to the last estimate but for rounding."""
        return images.clamp(-1, 1) if self.clip else images

    def _estimate(
        self, noisy: Tensor, level: Level[Any], labels: Tensor | None, guidance_scale: float | None, clip: bool
    ) -> Tensor:
        """Images of noisy ones, guided where the scale is neither 0 nor 1."""
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        if self.num_classes is None:
            images = self._images(noisy, level, None)
        else:
            nothing = noisy.new_full((len(noisy),), self.num_classes, dtype=torch.long)
            if labels is None or scale == 0:
                images = self._images(noisy, level, nothing)
            elif scale == 1:
                images = self._images(noisy, level, labels)
            else:
                both = self._images(noisy.repeat(2, 1, 1, 1), _twice(level), torch.cat([labels, nothing]))
                conditional, unconditional = both.chunk(2)
                images = unconditional + scale * (conditional - unconditional)
        return images.clamp(-1, 1) if clip else images

    def _images(self, noisy: Tensor, level: Level[Any], labels: Tensor | None) -> Tensor:
        return self.target.image_of(self._predict(noisy, level, labels).to(noisy), noisy, level)

    def _predict(self, noisy: Tensor, level: Level[Any], labels: Tensor | None) -> Tensor:
        """What the network gives, as float32 whatever the precision it computes in."""
        told = level.noise_level
        told = told.flatten() if isinstance(told, Tensor) else noisy.new_full((len(noisy),), told)
        inputs = self.target.input_scale(level.alpha, level.sigma) * noisy
        output: Tensor = self.network(inputs.float(), told.float(), labels)
        return output.float()

    def _drop(self, labels: Tensor | None) -> Tensor | None:
        """Labels with each one hidden with probability ``label_drop``."""
        if labels is None:
            return None
        assert self.num_classes is not None
        dropped = torch.rand(len(labels), device=labels.device) < self.label_drop
        return labels.masked_fill(dropped, self.num_classes)


def _twice(level: Level[Any]) -> Level[Any]:
    """The level of images that are there twice."""
    return Level(*(part.repeat(2, 1, 1, 1) if isinstance(part, Tensor) else part for part in level))
