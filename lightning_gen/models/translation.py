"""What models that translate images share: two domains, directions, two optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_gen.data.batches import DomainBatch, PairBatch
from lightning_gen.errors import UserError
from lightning_gen.losses.translation import Criterion, discriminator_loss
from lightning_gen.models.base import GenerativeModel, ImageBatch
from lightning_gen.models.optimizers import build_optimizer, build_schedule
from lightning_gen.networks.translator import DomainDiscriminator, Translator
from lightning_gen.registry import construct

Shape = tuple[int, int, int]


class TranslationModel(GenerativeModel):
    """Domains A and B, a translator for each direction, discriminators, and an optimizer for each kind of network.

    A subclass names its networks and maps its directions to translators; it builds them by `build_translator` and
    `build_discriminator`, and trains them by `step_discriminators` and `step_generators`.

    Args:
        image_shape: (C, H, W) of domain B, what images are translated to.
        input_shape: (C, H, W) of domain A; None for a set of one domain, which is refused.
        discriminator_optimizer: spec of the optimizer of all discriminators (see `build_optimizer`).
        generator_optimizer: spec of the optimizer of all translators.
        gradient_clip_norm: total norm to which the gradients of each optimizer are clipped; None for no clipping.

    Attributes:
        translators: direction -> name of the network; ``AtoB`` first.
        discriminator_names: attributes that hold discriminators.
        directions: those that `translate` knows.
        domain_shapes: (C, H, W) of ``A`` and ``B``.

    Raises:
        UserError: the data set has one domain, or no such optimizer.
    """

    translators: ClassVar[Mapping[str, str]]
    discriminator_names: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        image_shape: Shape,
        input_shape: Shape | None,
        discriminator_optimizer: Mapping[str, Any],
        generator_optimizer: Mapping[str, Any],
        gradient_clip_norm: float | None,
    ) -> None:
        super().__init__()
        if input_shape is None:
            raise UserError(
                f"{type(self).__name__} translates from one domain to another, and the data set has one: set "
                "data=paired, data=unpaired, data=edges, data=colorize, data=inverted or data=adaptation"
            )
        self.directions: Sequence[str] = tuple(self.translators)
        self.domain_shapes: Mapping[str, Shape] = {"A": input_shape, "B": image_shape}
        self.optimizer_specs = (discriminator_optimizer, generator_optimizer)
        for spec in self.optimizer_specs:
            # What is wrong with one is found here and not when training begins.
            build_schedule(spec, build_optimizer(spec, [nn.Parameter(torch.zeros(1))]))
        self.gradient_clip_norm = gradient_clip_norm

    @property
    def size_multiple(self) -> int:
        """Height and width of what `translate` takes may be any multiples of this."""
        return max(self._translator(direction).size_multiple for direction in self.directions)

    def translate(self, images: Tensor, direction: str = "AtoB", *, generator: torch.Generator) -> Tensor:
        """Translations (N, C', H, W) in [-1, 1] of images (N, C, H, W) in [-1, 1].

        Args:
            images: of the domain that the direction begins with; H and W multiples of ``size_multiple``.
            direction: ``AtoB`` or ``BtoA``.
            generator: of the noise, if the translator has some.

        Raises:
            UserError: the model does not know the direction.
        """
        if direction not in self.translators:
            known = " or ".join(self.directions)
            raise UserError(f"{type(self).__name__} translates in the direction {known}, not {direction!r}")
        translator = self._translator(direction)
        return translator(images, translator.draw_noise(images, generator=generator))

    def build_translator(self, spec: Mapping[str, Any], source: str, target: str) -> Translator:
        """The network of a spec (see `lightning_gen.registry.construct`) from one domain to the other."""
        shapes = self.domain_shapes
        return construct(spec, Translator, input_shape=shapes[source], image_shape=shapes[target])

    def build_discriminator(self, spec: Mapping[str, Any], domain: str, condition: str | None = None) -> nn.Module:
        """The discriminator of a domain, which may see images of another one beside."""
        channels = self.domain_shapes[domain][0] + (self.domain_shapes[condition][0] if condition else 0)
        shape = self.domain_shapes[domain]
        return construct(spec, DomainDiscriminator, input_channels=channels, image_shape=shape)

    def discriminators(self) -> nn.ModuleList:
        """All discriminators."""
        return nn.ModuleList([getattr(self, name) for name in self.discriminator_names])

    def generators(self) -> nn.ModuleList:
        """All translators."""
        return nn.ModuleList([self._translator(direction) for direction in self.directions])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The discriminators', then the translators'."""
        networks = (self.discriminators(), self.generators())
        optimizers = [
            build_optimizer(spec, each.parameters()) for spec, each in zip(self.optimizer_specs, networks, strict=True)
        ]
        schedules = [
            build_schedule(spec, optimizer) for spec, optimizer in zip(self.optimizer_specs, optimizers, strict=True)
        ]
        return optimizers, [schedule for schedule in schedules if schedule is not None]

    def check_batch_size(self, batch_size: int) -> None:
        """Refuse batches that a translator cannot be trained on."""
        smallest = max(self._translator(direction).smallest_batch for direction in self.directions)
        if batch_size < smallest:
            raise UserError(
                f"data.batch_size={batch_size} is too small for the generator's batch norm, which sees maps of one "
                f"pixel: set data.batch_size={smallest} or more"
            )

    def step_discriminators(self, loss: Tensor) -> None:
        """One step of all discriminators."""
        optimizer, _ = self.optimizer_list()
        self.minimize(loss, optimizer, self.discriminators(), self.gradient_clip_norm)

    def step_generators(self, loss: Tensor) -> None:
        """One step of all translators."""
        _, optimizer = self.optimizer_list()
        self.minimize(loss, optimizer, self.generators(), self.gradient_clip_norm)

    def _translator(self, direction: str) -> Translator:
        network: Translator = getattr(self, self.translators[direction])
        return network


class TwoWayTranslation(TranslationModel):
    """A translator for each direction and a discriminator for each domain.

    Attributes:
        criterion: what the discriminators minimize, set by the subclass.
    """

    network_names = ("generator_ab", "generator_ba", "discriminator_a", "discriminator_b")
    averaged_networks = ("generator_ab", "generator_ba")
    translators: ClassVar[Mapping[str, str]] = {"AtoB": "generator_ab", "BtoA": "generator_ba"}
    discriminator_names = ("discriminator_a", "discriminator_b")
    criterion: Criterion

    def build_networks(self, generator: Mapping[str, Any], discriminator: Mapping[str, Any]) -> None:
        """All four networks, from the spec of a `Translator` and that of a `DomainDiscriminator`."""
        self.generator_ab = self.build_translator(generator, "A", "B")
        self.generator_ba = self.build_translator(generator, "B", "A")
        self.discriminator_a = self.build_discriminator(discriminator, "A")
        self.discriminator_b = self.build_discriminator(discriminator, "B")

    def discriminator_step(self, a: Tensor, b: Tensor, fake_a: Tensor, fake_b: Tensor) -> dict[str, Tensor]:
        """Step both discriminators on real images and on fake ones without a gradient; returns their losses."""
        losses = {
            f"{name}_loss": discriminator_loss(self.criterion, network(real).logits, network(fake).logits)
            for name, network, real, fake in (
                ("discriminator_a", self.discriminator_a, a, fake_a),
                ("discriminator_b", self.discriminator_b, b, fake_b),
            )
        }
        first, second = losses.values()
        self.step_discriminators(first + second)
        return losses


def domains(batch: ImageBatch) -> tuple[Tensor, Tensor]:
    """Images of A and of B, each (N, C, H, W) in [-1, 1]."""
    assert isinstance(batch, PairBatch | DomainBatch)
    return batch.images_a, batch.images_b
