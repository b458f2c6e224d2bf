"""Semi-supervised GAN: a classifier that is also the discriminator (Salimans et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_gen.data.batches import SemiSupervisedBatch
from lightning_gen.errors import UserError
from lightning_gen.losses.semi_supervised import (
    FeatureDistance,
    fake_loss,
    feature_matching_loss,
    labelled_loss,
    unlabelled_loss,
)
from lightning_gen.models.base import ImageBatch
from lightning_gen.models.gan import GAN, Labelled
from lightning_gen.models.labels import check_has_classes
from lightning_gen.networks.semi_supervised import CLASSES, ClassifyingDiscriminator
from lightning_gen.regularizers import Step


class SGAN(GAN):
    """A GAN whose discriminator classifies (Salimans et al. 2016, section 5).

    The discriminator's K class logits l make D(x) = Z / (Z + 1), Z = sum_k exp(l_k). It minimizes

        -E[log p(y | x, y <= K)]                          over labelled images,
        -w / 2 E[log D(x)] - w / 2 E[log(1 - D(G(z)))]    over all images and over fake ones,

    and the generator matches the mean features of its images to those of real ones (section 3.1). Both networks are
    averaged, and classes are predicted by the average. One batch of real images serves all steps of an iteration.

    Args:
        image_shape: (C, H, W) of the images.
        discriminator: spec of a network of `lightning_gen.networks.semi_supervised`, which is given ``num_logits``.
        unlabelled_weight: w.
        generator_loss: ``feature_matching``, or ``adversarial`` for the non-saturating loss on log Z.
        feature_distance: ``squared`` or ``absolute`` (see `feature_matching_loss`).
        generator_steps: of one iteration; all but the first on new fake images.
        supervised_only: train the classifier on the labelled images alone, by its first term, as a baseline; the
            generator stays as it was drawn.
        num_classes: K of the data, 0 for a set without classes.
        labelled_per_class: how many images of each class keep their label, None for all.
        options: those of `GAN`.

    Raises:
        UserError: a set without classes, all of whose images are labelled, or what `GAN` raises.
    """

    averaged_networks = ("generator", "discriminator")

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        discriminator: Mapping[str, Any],
        unlabelled_weight: float = 1.0,
        generator_loss: Literal["feature_matching", "adversarial"] = "feature_matching",
        feature_distance: FeatureDistance = "squared",
        generator_steps: int = 1,
        supervised_only: bool = False,
        num_classes: int = 0,
        labelled_per_class: int | None = None,
        **options: Any,
    ) -> None:
        check_has_classes("model=sgan", num_classes)
        if labelled_per_class is None:
            raise UserError("model=sgan learns from few labels: set data.labelled_per_class, 10 for example")
        if options.get("loss", "non_saturating") != "non_saturating":
            raise UserError("model=sgan has the loss of its paper: leave model.loss=non_saturating")
        if generator_loss not in ("feature_matching", "adversarial"):
            raise UserError(f"model.generator_loss must be feature_matching or adversarial, not {generator_loss!r}")
        if feature_distance not in ("squared", "absolute"):
            raise UserError(f"model.feature_distance must be squared or absolute, not {feature_distance!r}")
        if generator_steps < 1:
            raise UserError(f"model.generator_steps must be at least 1, not {generator_steps}")
        super().__init__(
            image_shape=image_shape,
            discriminator={**discriminator, "num_logits": num_classes},
            num_classes=num_classes,
            labelled_per_class=labelled_per_class,
            **options,
        )
        self.unlabelled_weight = unlabelled_weight
        self.generator_loss = generator_loss
        self.feature_distance = feature_distance
        self.generator_steps = generator_steps
        self.supervised_only = supervised_only
        self._labelled: Labelled | None = None

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """A GAN's iteration, whose discriminator steps see the labelled images too; or one supervised step."""
        if not isinstance(batch, SemiSupervisedBatch):
            raise UserError("model=sgan trains on partly labelled images: set data.labelled_per_class")
        self._labelled = Labelled(batch.labelled_images, batch.labelled_labels)
        if not self.images_seen:
            self._initialize_from_data(batch.labelled_images if self.supervised_only else batch.images)
        if self.supervised_only:
            return self.supervised_step()
        losses = super().training_iteration(batch)
        for _ in range(self.generator_steps - 1):
            fake = self._generate(self.generator_batch_size or len(batch.images), None)
            losses |= self.generator_step(Labelled(batch.images, None), fake)
        return losses

    def _initialize_from_data(self, images: Tensor) -> None:
        assert isinstance(self.discriminator, ClassifyingDiscriminator)
        self.discriminator.initialize_from_data(images)
        if self.trainer.world_size > 1:
            for parameter in self.discriminator.parameters():
                torch.distributed.broadcast(parameter.data, src=0)

    def supervised_step(self) -> dict[str, Tensor]:
        """Step the classifier on the labelled images alone; returns its loss."""
        optimizer, _ = self.optimizer_list()
        loss = self._labelled_loss()
        self.minimize(loss, optimizer, self.discriminator, self.gradient_clip_norm)
        return {"labelled_loss": loss}

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (N, K) of images (N, C, H, W) in [-1, 1]."""
        return self.discriminator(images).heads[CLASSES]

    def _labelled_loss(self) -> Tensor:
        assert self._labelled is not None
        assert self._labelled.labels is not None
        return labelled_loss(self.classify(self._augment(self._labelled.images)), self._labelled.labels)

    def _discriminator_losses(self, step: Step) -> dict[str, Tensor]:
        real, fake = step.real, step.fake
        assert real is not None
        return {
            "labelled_loss": self._labelled_loss(),
            "unlabelled_loss": self.unlabelled_weight * 0.5 * unlabelled_loss(real.heads[CLASSES]),
            "fake_loss": self.unlabelled_weight * 0.5 * fake_loss(fake.heads[CLASSES]),
            **self._terms("discriminator", step),
        }

    def _generator_losses(self, step: Step) -> dict[str, Tensor]:
        if self.generator_loss == "adversarial":
            return super()._generator_losses(step)
        assert step.real is not None
        loss = feature_matching_loss(step.real.features, step.fake.features, self.feature_distance)
        return {"generator_loss": loss, **self._terms("generator", step)}

    @property
    def _generator_sees_real(self) -> bool:
        return self.generator_loss == "feature_matching" or super()._generator_sees_real
