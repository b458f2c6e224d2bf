"""Classifiers of images of two domains, of which one is labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.data.batches import DomainBatch, PairBatch
from lightning_gen.errors import UserError
from lightning_gen.models.base import ImageBatch
from lightning_gen.models.labels import check_has_classes
from lightning_gen.models.one_optimizer import OneOptimizerModel
from lightning_gen.networks.encoders import perceptron
from lightning_gen.registry import construct

TrainOn = Literal["source", "target", "both"]


class DomainClassifier(OneOptimizerModel):
    """A classifier of a target domain that is trained on the labels of a source domain, or on those of the target.

    Cross-entropy on labelled images of the source alone is the lower bound of domain adaptation, on all labels of the
    target its upper bound. Domain A of the data is the source, domain B the target.

    Args:
        image_shape: (C, H, W) of the images of both domains.
        body: network spec, images -> features (N, D), with all its widths (`lightning_gen.networks.lenet`).
        optimizer: optimizer spec (see `build_optimizer`), of all networks.
        classifier_hidden: widths of the hidden layers between features and class logits.
        train_on: labels of the ``source``, of the ``target``, or of ``both``, every labelled image of a batch counting
            alike.
        gradient_clip_norm: total norm to which the gradient is clipped; None for no clipping.
        input_shape: (C, H, W) of the source's images; None for a set of one domain, which is refused.
        num_classes: K of the data, 0 for a set without classes.
        labelled_per_class: how many target images of each class keep their label, None for all.

    Raises:
        UserError: a set of one domain or without classes, domains of different shapes, or ``train_on`` and the labels
            that there are do not fit.
    """

    network_names: ClassVar[tuple[str, ...]] = ("body", "classifier")
    averaged_networks: ClassVar[tuple[str, ...]] = ("body", "classifier")

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        body: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        classifier_hidden: Sequence[int] = (100, 100),
        train_on: TrainOn = "source",
        gradient_clip_norm: float | None = None,
        input_shape: tuple[int, int, int] | None = None,
        num_classes: int = 0,
        labelled_per_class: int | None = None,
    ) -> None:
        super().__init__(optimizer, gradient_clip_norm)
        self.save_hyperparameters(logger=False)
        name = type(self).__name__
        if input_shape is None:
            raise UserError(f"{name} learns from two domains, and the data set has one: set data=adaptation")
        if tuple(input_shape) != tuple(image_shape):
            raise UserError(
                f"{name} needs domains of one shape, not {tuple(input_shape)} and {tuple(image_shape)}: set "
                "data=adaptation"
            )
        check_has_classes(name, num_classes)
        check_labels(train_on, labelled_per_class)
        self.train_on = train_on
        self.body = construct(body, nn.Module, image_shape=tuple(image_shape))
        self.num_features = feature_width(self.body, image_shape)
        self.classifier = perceptron([self.num_features, *classifier_hidden, num_classes], "relu")
        # The layout in which convolutions are fastest, on the CPU too.
        self.to(memory_format=torch.channels_last)

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """One step on the labelled images of a batch."""
        images, labels = self.labelled_images(batch)
        loss = F.cross_entropy(self.classifier(self.body(images)).float(), labels)
        self.step(loss)
        return {"loss": loss}

    def labelled_images(self, batch: ImageBatch) -> tuple[Tensor, Tensor]:
        """Images (M, C, H, W) and labels (M,) that ``train_on`` names: those of the source first."""
        assert isinstance(batch, PairBatch | DomainBatch)
        assert batch.labels_a is not None
        source = (batch.images_a, batch.labels_a)
        if self.train_on == "source":
            return source
        if isinstance(batch, DomainBatch):
            target = (batch.labelled_images, batch.labelled_labels)
        else:
            # All labels of the target are given.
            assert batch.labels_b is not None
            target = (batch.images_b, batch.labels_b)
        if self.train_on == "target":
            return target
        return torch.cat([source[0], target[0]]), torch.cat([source[1], target[1]])

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (N, K) of images (N, C, H, W) of the target, in [-1, 1]."""
        return self.classifier(self.features(images)).float()

    def features(self, images: Tensor) -> Tensor:
        """What the body makes (N, D) of images (N, C, H, W) of the target."""
        return self.body(images).float()


def check_labels(train_on: str, labelled_per_class: int | None) -> None:
    """Refuse a training on labels that are not given, and labels that would be given for nothing.

    Args:
        train_on: ``source``, ``target`` or ``both``.
        labelled_per_class: how many target images of each class keep their label, None for all.

    Raises:
        UserError: naming the remedy.
    """
    if train_on not in ("source", "target", "both"):
        raise UserError(f"model.train_on must be source, target or both, not {train_on!r}")
    if train_on == "source" and labelled_per_class != 0:
        raise UserError(
            "model.train_on=source leaves the target's labels unused: set data=adaptation and data.labelled_per_class=0"
        )
    if train_on != "source" and labelled_per_class == 0:
        raise UserError(
            f"model.train_on={train_on} needs labels of the target: set data.labelled_per_class to 10, for example, or "
            "to null for all"
        )


def feature_width(body: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """D of a network that makes features (N, D) of images (N, C, H, W).

    Raises:
        UserError: it makes something else.
    """
    body.eval()
    with torch.no_grad():
        features = body(torch.zeros(1, *image_shape))
    body.train()
    if features.ndim != 2:
        raise UserError(
            f"model.body makes {tuple(features.shape[1:])} of an image and not a vector: set model.body to another"
        )
    return int(features.shape[1])
