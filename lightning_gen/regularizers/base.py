"""What a regularizer of a GAN may look at, change and add.

Configs name them under ``model.regularizers``: ``{r1: {weight: 10}, lecam: {weight: 0.3}}``; a bare number stands for
the weight, and null switches one off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor, distributed, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.discriminator import Discriminator, DiscriminatorOutput
from lightning_gen.registry import Registry


@dataclass
class Players:
    """The two networks before training; a regularizer may change them in `build` and replace them in `finish`.

    Attributes:
        generator: latents (N, D), labels or None -> images.
        discriminator: images, labels or None -> `DiscriminatorOutput`.
        loss: name of the adversarial loss.
        num_classes: K of a conditional model, or None.
        draw_latents: number -> latents from the model's prior.
        codes: where the structured codes of the latents are (`lightning_gen.models.latents`), empty without codes.
        chosen: the regularizers by name.
        image_shape: (C, H, W).
    """

    generator: nn.Module
    discriminator: Discriminator
    loss: str
    num_classes: int | None
    draw_latents: Callable[[int], Tensor]
    codes: tuple[Any, ...]
    chosen: Mapping[str, Regularizer]
    image_shape: tuple[int, int, int]


@dataclass(frozen=True)
class Step:
    """One step of one player.

    In the generator's step the discriminator is frozen, and ``real`` is None unless a part of the model needs it.

    Attributes:
        iteration: of the model, from 0.
        images_seen: real images that training consumed before this iteration.
        latents: (N, D) of the fake images.
        labels: (N,) int64 of the fake images, or None for a model without classes; the same as ``real_labels`` in the
            discriminator's step.
        real_labels: the same of the real images.
        clean_real_images: (N, C, H, W) in [-1, 1] before augmentation.
        clean_fake_images: the same of the fake images; they carry gradient in the generator's step alone.
        real_images: what the discriminator saw, augmented.
        fake_images: what the discriminator saw, augmented.
        see_real: computes ``real``, or None.
        see_fake: computes ``fake``.
        discriminate: images (N, C, H, W) -> the discriminator's output with ``labels``; can be differentiated twice.
    """

    iteration: int
    images_seen: int
    latents: Tensor
    labels: Tensor | None
    real_labels: Tensor | None
    clean_real_images: Tensor
    clean_fake_images: Tensor
    real_images: Tensor
    fake_images: Tensor
    see_real: Callable[[], DiscriminatorOutput] | None
    see_fake: Callable[[], DiscriminatorOutput]
    discriminate: Callable[[Tensor], DiscriminatorOutput]

    @cached_property
    def real(self) -> DiscriminatorOutput | None:
        """The discriminator's output on ``real_images``, computed when it is first asked for."""
        return None if self.see_real is None else self.see_real()

    @cached_property
    def fake(self) -> DiscriminatorOutput:
        """The discriminator's output on ``fake_images``, computed when it is first asked for."""
        return self.see_fake()


class Regularizer(nn.Module):
    """One part that combines with any GAN; override what it does. What it keeps in buffers is in every checkpoint.

    Terms are scalars, already weighted, that are added to a player's loss and logged under the regularizer's name.
    Random draws come from torch's global generators, which are seeded for every iteration and rank.

    Attributes:
        generator_sees_real: whether `generator_term` needs the discriminator's output on real images.
        replaces_generator_loss: whether `generator_term` stands in the place of the adversarial loss.
        reference_images: how many fixed training images `take_reference` wants.
    """

    generator_sees_real: ClassVar[bool] = False
    replaces_generator_loss: bool = False
    reference_images: int = 0

    def build(self, players: Players) -> None:
        """Change the networks or make buffers of their size, before optimizers exist.

        Raises:
            UserError: the networks cannot take this regularizer.
        """

    def finish(self, players: Players) -> None:
        """Change or replace the networks when all regularizers are built, so that all heads and layers are there.

        Raises:
            UserError: the networks cannot take this regularizer.
        """

    def check(self, players: Players) -> None:
        """Refuse a combination that means nothing, when all regularizers are built and finished.

        Raises:
            UserError: with the reason and the remedy.
        """

    def take_reference(self, players: Players, images: Tensor, labels: Tensor | None) -> None:
        """Take ``reference_images`` training images (M, C, H, W) in [-1, 1], equal on all ranks, as a run begins.

        ``labels`` (M,) int64 are theirs, or None for a model without classes.
        """

    def augment(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) as the discriminator shall see them, real and fake alike; differentiable."""
        return images

    def discriminator_term(self, step: Step) -> Tensor | None:
        """What is added to the discriminator's loss."""
        return None

    def generator_term(self, step: Step) -> Tensor | None:
        """What is added to the generator's loss."""
        return None

    def select_logits(self, fake_logits: Tensor, images_seen: int) -> Tensor:
        """Those of the fake logits (N,) that the generator's loss shall average."""
        return fake_logits

    def after_discriminator_step(self, players: Players, step: Step) -> None:
        """Change weights or follow statistics, without gradients; outputs in ``step`` are from before the update."""

    def after_generator_step(self, players: Players, step: Step) -> None:
        """The same after the generator's step."""


regularizers: Registry[Callable[..., Regularizer]] = Registry("regularizer", __package__)


def build_regularizers(specs: Mapping[str, Any] | None) -> nn.ModuleDict:
    """Regularizers by name, in the order of the config.

    Raises:
        UserError: unknown names or options.
    """
    built = nn.ModuleDict()
    for name, spec in (specs or {}).items():
        if spec is None:
            continue
        options = dict(spec) if isinstance(spec, Mapping) else {"weight": spec}
        try:
            built[name] = regularizers[name](**options)
        except TypeError as error:
            raise UserError(f"model.regularizers.{name}: {error}") from error
    return built


def world_size() -> int:
    """The number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a statistic over all processes, so that what follows from it is the same on each."""
    if world_size() > 1:
        value = value.clone()
        distributed.all_reduce(value)
        value /= world_size()
    return value


def mixes_samples(network: nn.Module) -> bool:
    """Whether a sample's output depends on the others of its batch in training."""
    # Virtual batch norm is none of these: it takes its statistics from a fixed reference batch.
    kinds = (nn.modules.batchnorm._BatchNorm,)
    batch_features = getattr(network, "batch_features", None) is not None
    return batch_features or any(isinstance(module, kinds) for module in network.modules())
