"""Generative adversarial network: one generator against one discriminator (Goodfellow et al. 2014)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.losses.adversarial import adversarial_losses
from lightning_gen.models.base import GenerativeModel, ImageBatch, frozen
from lightning_gen.models.labels import check_conditional
from lightning_gen.models.latents import Code, LatentPrior
from lightning_gen.models.optimizers import build_optimizer, build_schedule
from lightning_gen.networks.discriminator import Discriminator, DiscriminatorOutput
from lightning_gen.registry import construct, resolve
from lightning_gen.regularizers import Players, Regularizer, Step, build_regularizers


class Labelled(NamedTuple):
    """Real images (N, C, H, W) in [-1, 1]; labels (N,) int64 if the model takes them, else None."""

    images: Tensor
    labels: Tensor | None


class Fakes(NamedTuple):
    """Fake images (N, C, H, W) in [-1, 1], the latents (N, D) they were made of, and their labels or None."""

    latents: Tensor
    labels: Tensor | None
    images: Tensor


class GAN(GenerativeModel):
    """A GAN over any pair of networks, any loss and any regularizers; the papers' models are its configs.

    One iteration takes ``discriminator_steps`` steps of the discriminator, each on its own part of the batch and on new
    fake images, and then one step of the generator. Real and fake images pass the discriminator separately, so that
    batch norm never mixes them. Where sizes allow, the generator's step uses the fake images of the last
    discriminator step, which spares a pass through the generator. A conditional model makes its fake images for the
    labels of the real images beside them, which come from the training set's law.

    Args:
        image_shape: (C, H, W) of the images.
        generator: network spec (see `lightning_gen.registry.construct`): latents (N, D) -> images in [-1, 1].
        discriminator: spec of a `Discriminator`.
        generator_optimizer: optimizer spec (see `build_optimizer`).
        discriminator_optimizer: optimizer spec.
        latent_dim: how many numbers of noise the latents have.
        latent_range: half-width r of their distribution U[-r, r]; None for N(0, 1).
        codes: ``{"categorical": [10], "continuous": 2}`` appended to the noise (Chen et al. 2016); None for no codes.
        truncation: bound of the latents where samples are drawn (Brock et al. 2019); None for no truncation.
        conditional: whether both networks take labels.
        discriminator_takes_labels: false for a conditional model whose discriminator is not told them (ACGAN).
        loss: name of an adversarial loss (`lightning_gen.losses.adversarial`).
        discriminator_steps: k of Goodfellow et al. 2014, algorithm 1; ``data.batch_size`` must be a multiple of it.
        generator_batch_size: fake images in the generator's step; None for as many as in a discriminator step.
        regularizers: options by name (`lightning_gen.regularizers`).
        gradient_clip_norm: total norm to which each network's gradients are clipped; None for no clipping.
        num_classes: K of the data, 0 for a set without classes.
        label_law: probabilities of the data's classes.
        labelled_per_class: how many images of each class keep their label, None for all.

    Raises:
        UserError: unknown names or options, an image shape that the networks cannot make, or a combination that means
            nothing.
    """

    network_names = ("generator", "discriminator")
    averaged_networks: ClassVar[tuple[str, ...]] = ("generator",)

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        generator: Mapping[str, Any],
        discriminator: Mapping[str, Any],
        generator_optimizer: Mapping[str, Any],
        discriminator_optimizer: Mapping[str, Any],
        latent_dim: int = 100,
        latent_range: float | None = None,
        codes: Mapping[str, Any] | None = None,
        truncation: float | None = None,
        conditional: bool = False,
        discriminator_takes_labels: bool = True,
        loss: str = "non_saturating",
        discriminator_steps: int = 1,
        generator_batch_size: int | None = None,
        regularizers: Mapping[str, Any] | None = None,
        gradient_clip_norm: float | None = None,
        num_classes: int = 0,
        label_law: list[float] | None = None,
        labelled_per_class: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.prior = LatentPrior(latent_dim, latent_range, truncation=truncation, **(codes or {}))
        self.conditional = conditional
        self.label_law = label_law if conditional else None
        self.loss = adversarial_losses[loss]
        self.discriminator_steps = discriminator_steps
        self.generator_batch_size = generator_batch_size
        self.gradient_clip_norm = gradient_clip_norm
        self.optimizer_specs = (discriminator_optimizer, generator_optimizer)
        self._check_steps(loss)
        labelled = {"generator": generator, **({"discriminator": discriminator} if discriminator_takes_labels else {})}
        self._check_classes(labelled, num_classes, labelled_per_class)

        self.regularizers = build_regularizers(regularizers)
        classes = num_classes if conditional else None
        known_classes = classes if discriminator_takes_labels else None
        derived = {"image_shape": image_shape, "latent_dim": self.prior.dim}
        self.players = Players(
            generator=construct(generator, nn.Module, num_classes=classes, **derived),
            discriminator=construct(discriminator, Discriminator, num_classes=known_classes, **derived),
            loss=loss,
            num_classes=classes,
            draw_latents=self.prior.sample,
            codes=self.prior.codes,
            chosen=dict(self.regularizers.items()),  # type: ignore[arg-type]
            image_shape=image_shape,
        )
        for regularizer in self._chosen:
            regularizer.build(self.players)
        for regularizer in self._chosen:
            regularizer.finish(self.players)
        for regularizer in self._chosen:
            regularizer.check(self.players)
        self.generator = self.players.generator
        self.discriminator = self.players.discriminator
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

    def check_batch_size(self, batch_size: int) -> None:
        """Refuse batches that the discriminator's steps cannot share, or without the references asked for."""
        if batch_size % self.discriminator_steps:
            steps = self.discriminator_steps
            raise UserError(
                f"data.batch_size={batch_size} is no multiple of model.discriminator_steps={steps}, each of which "
                f"takes its part of the batch: set data.batch_size={steps * max(1, batch_size // steps)}"
            )
        for name, regularizer in self.players.chosen.items():
            if regularizer.reference_images > batch_size:
                raise UserError(
                    f"model.regularizers.{name} wants {regularizer.reference_images} reference images of the first "
                    f"batch: raise data.batch_size={batch_size}"
                )

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Goodfellow et al. 2014, algorithm 1."""
        if not self.images_seen:
            self._hand_out_references(batch.images, batch.labels if self.conditional else None)
        losses: dict[str, Tensor] = {}
        parts = self._split(batch)
        for real in parts[:-1]:
            with torch.no_grad(), frozen(self.generator):
                fake = self._generate(len(real.images), real.labels)
            losses = self.discriminator_step(real, fake)

        real = parts[-1]
        number = self.generator_batch_size or len(real.images)
        if number == len(real.images):
            # The fake images of the last discriminator step serve the generator too.
            fake = self._generate(number, real.labels)
            losses = self.discriminator_step(real, fake)
        else:
            with torch.no_grad(), frozen(self.generator):
                fake = self._generate(len(real.images), real.labels)
            losses = self.discriminator_step(real, fake)
            fake = self._generate(number, None if real.labels is None else _drawn_from(batch.labels, number))
        return {**losses, **self.generator_step(real, fake)}

    def discriminator_step(self, real: Labelled, fake: Fakes) -> dict[str, Tensor]:
        """Step the discriminator; returns its loss and the regularizers' terms."""
        optimizer, _ = self.optimizer_list()
        fake = fake._replace(images=fake.images.detach())
        seen_real, seen_fake = self._augment(real.images), self._augment(fake.images)
        step = self._step(real, fake, seen_real, seen_fake, lambda: self.discriminator(seen_real, real.labels))
        losses = self._discriminator_losses(step)
        first, *others = losses.values()
        self.minimize(sum(others, first), optimizer, self.discriminator, self.gradient_clip_norm)
        for regularizer in self._chosen:
            regularizer.after_discriminator_step(self.players, step)
        return losses

    def generator_step(self, real: Labelled, fake: Fakes) -> dict[str, Tensor]:
        """Step the generator on fake images that carry its gradient; returns its loss and the regularizers' terms."""
        _, optimizer = self.optimizer_list()
        with frozen(self.discriminator):
            seen_real, see_real = real.images, None
            if self._generator_sees_real:
                seen_real = self._augment(real.images)
                see_real = torch.no_grad()(lambda: self.discriminator(seen_real, real.labels))
            step = self._step(real, fake, seen_real, self._augment(fake.images), see_real)
            losses = self._generator_losses(step)
            first, *others = losses.values()
            self.minimize(sum(others, first), optimizer, self.generator, self.gradient_clip_norm)
        for regularizer in self._chosen:
            regularizer.after_generator_step(self.players, step)
        return losses

    def _step(
        self,
        real: Labelled,
        fake: Fakes,
        seen_real: Tensor,
        seen_fake: Tensor,
        see_real: Callable[[], DiscriminatorOutput] | None,
    ) -> Step:
        return Step(
            iteration=self.iteration,
            images_seen=self.images_seen,
            latents=fake.latents,
            labels=fake.labels,
            real_labels=real.labels,
            clean_real_images=real.images,
            clean_fake_images=fake.images,
            real_images=seen_real,
            fake_images=seen_fake,
            see_real=see_real,
            see_fake=lambda: self.discriminator(seen_fake, fake.labels),
            # Compiled code cannot be differentiated twice; `forward` is never compiled.
            discriminate=lambda images: self.discriminator.forward(images, fake.labels),
        )

    def _discriminator_losses(self, step: Step) -> dict[str, Tensor]:
        # Penalties first: their second derivatives take the most memory, best without other graphs beside them.
        terms = self._terms("discriminator", step)
        assert step.real is not None
        loss = self.loss.discriminator(step.real.logits, step.fake.logits)
        return {"discriminator_loss": loss, **terms}

    def _generator_losses(self, step: Step) -> dict[str, Tensor]:
        terms = self._terms("generator", step)
        if any(regularizer.replaces_generator_loss for regularizer in self._chosen):
            return terms
        logits = step.fake.logits
        for regularizer in self._chosen:
            logits = regularizer.select_logits(logits, step.images_seen)
        real_logits = step.real.logits if step.real is not None else None
        return {"generator_loss": self.loss.generator(logits, real_logits), **terms}

    def _terms(self, player: str, step: Step) -> dict[str, Tensor]:
        terms = {}
        for name, regularizer in self.players.chosen.items():
            term = getattr(regularizer, f"{player}_term")(step)
            if term is not None:
                terms[f"{player}_{name}"] = term
        return terms

    def _augment(self, images: Tensor) -> Tensor:
        for regularizer in self._chosen:
            images = regularizer.augment(images)
        return images

    def _generate(self, number: int, labels: Tensor | None) -> Fakes:
        latents = self.prior.sample(number, device=self.device)
        return Fakes(latents, labels, self._make(latents, labels))

    def _make(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        if not self.conditional:
            return self.generator(latents)
        if labels is None:
            raise ValueError("a conditional model decodes latents for given labels")
        return self.generator(latents, labels)

    def _hand_out_references(self, images: Tensor, labels: Tensor | None) -> None:
        """Give regularizers that want fixed training images rank zero's first ones."""
        for regularizer in self._chosen:
            wanted = regularizer.reference_images
            if wanted:
                parts = [part[:wanted].contiguous() for part in (images, labels) if part is not None]
                if self.trainer.world_size > 1:
                    for part in parts:
                        torch.distributed.broadcast(part, src=0)
                regularizer.take_reference(self.players, parts[0], parts[1] if len(parts) > 1 else None)

    def _split(self, batch: ImageBatch) -> list[Labelled]:
        """The parts of the batch for the discriminator's steps, with labels if the model takes them."""
        steps = self.discriminator_steps
        parts = batch.images.chunk(steps)
        if not self.conditional:
            return [Labelled(images, None) for images in parts]
        assert batch.labels is not None
        return [Labelled(*part) for part in zip(parts, batch.labels.chunk(steps), strict=True)]

    @property
    def _chosen(self) -> list[Regularizer]:
        return list(self.regularizers.values())  # type: ignore[arg-type]

    @property
    def _generator_sees_real(self) -> bool:
        return self.loss.generator_sees_real or any(regularizer.generator_sees_real for regularizer in self._chosen)

    @property
    def codes(self) -> tuple[Code, ...]:
        """Where the latents hold codes."""
        return self.prior.codes

    @property
    def truncation(self) -> float | None:
        """Bound of the latents where samples are drawn; setting one raises UserError unless they are Gaussian."""
        return self.prior.truncation

    @truncation.setter
    def truncation(self, bound: float | None) -> None:
        self.prior.truncate(bound)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The outputs of the discriminator's blocks for images (N, C, H, W) in [-1, 1], without their labels.

        Raises:
            UserError: the discriminator takes labels beside the pixels, so its features would hold them.
        """
        labels_beside_pixels = type(self.discriminator).prepare_input is not Discriminator.prepare_input
        if self.discriminator.num_classes is not None and labels_beside_pixels:
            name = type(self.discriminator).__name__
            raise UserError(f"{name} takes labels beside the pixels: its features are not of the images alone")
        return self.discriminator.feature_maps(images)

    def features(self, images: Tensor) -> Tensor:
        """What the discriminator's head sees, (N, D), of images (N, C, H, W) in [-1, 1]; see `feature_maps`."""
        return self.discriminator.pool(self.feature_maps(images)[-1])

    def sampler_settings(self) -> dict[str, Any]:
        """The truncation, where there is one."""
        return {} if self.prior.truncation is None else {"truncation": self.prior.truncation}

    def sample_latents(self, num_samples: int, *, generator: torch.Generator) -> Tensor:
        """Latents (num_samples, D) from the prior, truncated if the model says so."""
        return self.prior.sample(num_samples, generator=generator).to(self.device)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of latents (N, D) and, for a conditional model, labels (N,) int64.

        A generator without a bounded output is cut off there; in training the discriminator sees all of it.
        """
        return self._make(latents, labels).clamp(-1, 1)

    def sample(self, num_samples: int, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """New images (num_samples, C, H, W) in [-1, 1]; a conditional model draws labels that are not given."""
        latents = self.sample_latents(num_samples, generator=generator)
        if self.conditional and labels is None:
            labels = self.draw_labels(num_samples, generator=generator)
        return self.decode(latents, labels)

    def _check_steps(self, loss: str) -> None:
        if self.discriminator_steps < 1:
            raise UserError(f"model.discriminator_steps must be at least 1, not {self.discriminator_steps}")
        if self.loss.generator_sees_real and self.generator_batch_size is not None:
            raise UserError(f"model.loss={loss} compares images in pairs: unset model.generator_batch_size")

    def _check_classes(
        self, specs: Mapping[str, Mapping[str, Any]], num_classes: int, labelled_per_class: int | None
    ) -> None:
        if not self.conditional:
            return
        check_conditional(num_classes, labelled_per_class)
        for name, spec in specs.items():
            if "num_classes" not in inspect.signature(resolve(str(spec.get("_target_")), nn.Module)).parameters:
                raise UserError(f"model.conditional=true, but model.{name}={spec.get('_target_')} takes no labels")


def _drawn_from(labels: Tensor | None, number: int) -> Tensor:
    """Labels (number,) drawn from the batch's own."""
    assert labels is not None
    return labels[torch.randint(len(labels), (number,), device=labels.device)]
