"""ADDA: an encoder of the target that imitates the features of the source (Tzeng et al. 2017)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.losses.adversarial import adversarial_losses
from lightning_gen.models.base import ImageBatch, frozen
from lightning_gen.models.domain_classifier import DomainClassifier
from lightning_gen.models.optimizers import build_optimizer, build_schedule
from lightning_gen.models.translation import domains
from lightning_gen.networks.encoders import perceptron


class ADDA(DomainClassifier):
    """Two stages: a source classifier, and then a target encoder whose features a discriminator takes for the source's.

    Tzeng et al. 2017, "Adversarial discriminative domain adaptation", equation 9. In the first ``source_iterations``
    the body and the classifier learn the source's labels. In the second stage both stay as they are; a target body,
    which begins as a copy of the source's, and a discriminator of features D play

        min_D -E[log D(M_s(x_s))] - E[log(1 - D(M_t(x_t)))],    min_Mt -E[log D(M_t(x_t))],

    a step of each in every iteration, or another adversarial loss. Images of the target are classified by the target
    body and the source's classifier. The target body follows the source's through the first stage, so that it, and its
    moving average, can be asked at any time.

    Args:
        image_shape: (C, H, W) of the images of both domains.
        source_iterations: of the first stage.
        target_optimizer: optimizer spec (see `build_optimizer`), of the target body.
        discriminator_optimizer: optimizer spec.
        discriminator_hidden: widths of the hidden layers between features and the discriminator's logit.
        loss: of `lightning_gen.losses.adversarial`.
        input_shape: see `DomainClassifier`.
        num_classes: see `DomainClassifier`.
        labelled_per_class: 0; the paper has no use for labels of the target.
        options: those of `DomainClassifier` but for ``train_on``; ``optimizer`` is that of the first stage.

    Raises:
        UserError: numbers out of range, a loss of pairs of images, or what `DomainClassifier` raises.
    """

    network_names: ClassVar[tuple[str, ...]] = ("body", "classifier", "target_body", "discriminator")
    averaged_networks: ClassVar[tuple[str, ...]] = ("classifier", "target_body")

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        source_iterations: int,
        target_optimizer: Mapping[str, Any],
        discriminator_optimizer: Mapping[str, Any],
        discriminator_hidden: Sequence[int] = (500, 500),
        loss: str = "non_saturating",
        input_shape: tuple[int, int, int] | None = None,
        num_classes: int = 0,
        labelled_per_class: int | None = None,
        **options: Any,
    ) -> None:
        if source_iterations < 1:
            raise UserError(f"model.source_iterations must be at least 1, not {source_iterations}")
        adversary = adversarial_losses[loss]
        if adversary.generator_sees_real:
            raise UserError(f"model.loss={loss} compares features in pairs: set model.loss=non_saturating")
        super().__init__(
            image_shape=image_shape,
            train_on="source",
            input_shape=input_shape,
            num_classes=num_classes,
            labelled_per_class=labelled_per_class,
            **options,
        )
        # What this class fixes is none of the settings that a checkpoint keeps.
        del self.hparams["train_on"]
        self.source_iterations = source_iterations
        self.loss = adversary
        self.optimizer_specs = (self.optimizer_spec, discriminator_optimizer, target_optimizer)
        self.target_body = copy.deepcopy(self.body)
        self.discriminator = perceptron([self.num_features, *discriminator_hidden, 1], "relu")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """That of body and classifier, the discriminator's and the target body's."""
        players = (nn.ModuleList([self.body, self.classifier]), self.discriminator, self.target_body)
        optimizers = [
            build_optimizer(spec, player.parameters())
            for spec, player in zip(self.optimizer_specs, players, strict=True)
        ]
        schedules = [
            build_schedule(spec, optimizer) for spec, optimizer in zip(self.optimizer_specs, optimizers, strict=True)
        ]
        return optimizers, [schedule for schedule in schedules if schedule is not None]

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """A step on the source's labels; in the second stage one of the discriminator and one of the target body."""
        if self.iteration < self.source_iterations:
            return self.source_step(batch)
        source, target = domains(batch)
        with torch.no_grad(), frozen(self.body):
            source_features = self.body(source).float()
        target_features = self.target_body(target).float()
        return {
            **self.discriminator_step(source_features, target_features.detach()),
            **self.target_step(target_features),
        }

    def source_step(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Step body and classifier on labelled source images; the target body becomes a copy of the body."""
        images, labels = self.labelled_images(batch)
        loss = nn.functional.cross_entropy(self.classifier(self.body(images)).float(), labels)
        networks = nn.ModuleList([self.body, self.classifier])
        self.minimize(loss, self.optimizer_list()[0], networks, self.gradient_clip_norm)
        self.target_body.load_state_dict(self.body.state_dict())
        return {"label_loss": loss}

    def discriminator_step(self, source_features: Tensor, target_features: Tensor) -> dict[str, Tensor]:
        """Step the discriminator, to which the source's features are the real ones; returns its loss."""
        loss = self.loss.discriminator(self.discriminator(source_features), self.discriminator(target_features))
        self.minimize(loss, self.optimizer_list()[1], self.discriminator, self.gradient_clip_norm)
        return {"discriminator_loss": loss}

    def target_step(self, target_features: Tensor) -> dict[str, Tensor]:
        """Step the target body on features that carry their gradient, with the domains' labels inverted."""
        with frozen(self.discriminator):
            loss = self.loss.generator(self.discriminator(target_features), None)
            self.minimize(loss, self.optimizer_list()[2], self.target_body, self.gradient_clip_norm)
        return {"target_loss": loss}

    def features(self, images: Tensor) -> Tensor:
        """What the target body makes (N, D) of images (N, C, H, W) of the target."""
        return self.target_body(images).float()
