"""Self-training: a classifier that learns from its own most confident predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_gen.data.batches import UNLABELLED, SemiSupervisedBatch
from lightning_gen.models.classifier import hidden_features
from lightning_gen.models.pool_choice import choose_confident
from lightning_gen.models.pool_classifier import PoolClassifier
from lightning_gen.registry import construct


class SelfTraining(PoolClassifier):
    """A classifier that is trained on the labelled images, labels the most confident of the others, and goes on.

    Scudder 1965, "Probability of error of some adaptive pattern-recognition machines" (IEEE Transactions on
    Information Theory 11); Yarowsky 1995, "Unsupervised word sense disambiguation rivaling supervised methods",
    section 4, whose step 3c is ``threshold`` and whose labels may change (``relabel``); Lee 2013, "Pseudo-label: the
    simple and efficient semi-supervised learning method for deep neural networks" (ICML workshop on challenges in
    representation learning), which labels all images (``first_share=1``) in every iteration.

    Args:
        image_shape: (C, H, W) of the images.
        classifier: network spec, images -> class logits (`lightning_gen.networks.encoders`).
        optimizer: see `PoolClassifier`.
        num_training_images: see `PoolClassifier`.
        num_classes: see `PoolClassifier`.
        labelled_per_class: see `PoolClassifier`.
        options: those of `PoolClassifier`.
    """

    network_names: ClassVar[tuple[str, ...]] = ("classifier",)
    averaged_networks: ClassVar[tuple[str, ...]] = ("classifier",)

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classifier: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        num_training_images: int,
        num_classes: int = 0,
        labelled_per_class: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(optimizer, "self_training", 1, num_training_images, num_classes, labelled_per_class, **options)
        self.save_hyperparameters(logger=False)
        self.classifier = construct(classifier, nn.Module, image_shape=tuple(image_shape), num_outputs=num_classes)
        self.to(memory_format=torch.channels_last)

    def losses(self, batch: SemiSupervisedBatch) -> tuple[Tensor, Tensor]:
        """See `PoolClassifier`."""
        return self.classifier_losses(
            self.classifier, batch.labelled_images, batch.labelled_labels, batch.images, pool=0
        )

    def all_logits(self, images: Tensor) -> list[Tensor]:
        """Those of the one classifier."""
        return [self.classify(images)]

    def choose(self, confidences: Tensor, labels: Tensor, free: Tensor, numbers: list[int]) -> tuple[Tensor, Tensor]:
        """The most confident."""
        offered = torch.where(free, labels, UNLABELLED)
        chosen = choose_confident(confidences[0], offered[0], numbers[0], self.threshold, self.balanced_classes)
        return chosen[None], confidences

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (N, K) of images (N, C, H, W) in [-1, 1]."""
        return self.classifier(images).float()

    def features(self, images: Tensor) -> Tensor:
        """What the network's last linear layer gets, (N, D), of images (N, C, H, W) in [-1, 1]."""
        return hidden_features(self.classifier, images)
