"""Co-training: two classifiers with two views of an image, each of which teaches the other (Blum and Mitchell 1998)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lightning_gen.data.batches import UNLABELLED, SemiSupervisedBatch
from lightning_gen.errors import UserError
from lightning_gen.models.classifier import hidden_features
from lightning_gen.models.pool_choice import choose_confident, merge_choices
from lightning_gen.models.pool_classifier import PoolClassifier
from lightning_gen.networks.views import View
from lightning_gen.registry import construct

_HALF = "lightning_gen.networks.views.Half"
VIEWS: dict[str, list[dict[str, str]]] = {
    "top_bottom": [{"_target_": _HALF, "side": "top"}, {"_target_": _HALF, "side": "bottom"}],
    "left_right": [{"_target_": _HALF, "side": "left"}, {"_target_": _HALF, "side": "right"}],
}
"""Views that have a name."""


class CoTraining(PoolClassifier):
    """Two classifiers, each of which sees one view of an image and labels images for both or for the other.

    Blum and Mitchell 1998, "Combining labeled and unlabeled data with co-training" (COLT), table 1: in every round each
    classifier chooses the images that it is most confident of. With ``pool=shared``, the paper's, both choices are
    added to one pool that both train on; where they contradict one another, which the paper leaves open, the more
    confident one is followed. With ``pool=separate`` each trains on what the other chose. An image's class is that of
    the largest product of both posteriors (section 5 of the paper). Views of one class should tell nothing of one
    another, and each should suffice to tell the class (section 2).

    Args:
        image_shape: (C, H, W) of the images.
        classifier: network spec, a view -> class logits (`lightning_gen.networks.encoders`), of both classifiers.
        optimizer: see `PoolClassifier`; one for both.
        num_training_images: see `PoolClassifier`.
        views: ``top_bottom``, ``left_right``, or specs of two views (`lightning_gen.networks.views`).
        pool: ``shared`` or ``separate``.
        num_classes: see `PoolClassifier`.
        labelled_per_class: see `PoolClassifier`.
        options: those of `PoolClassifier`.

    Raises:
        UserError: other views or pools, or what `PoolClassifier` raises.
    """

    network_names: ClassVar[tuple[str, ...]] = ("classifier_a", "classifier_b")
    averaged_networks: ClassVar[tuple[str, ...]] = ("classifier_a", "classifier_b")

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classifier: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        num_training_images: int,
        views: str | Sequence[Mapping[str, Any]] = "left_right",
        pool: Literal["shared", "separate"] = "shared",
        num_classes: int = 0,
        labelled_per_class: int | None = None,
        **options: Any,
    ) -> None:
        if pool not in ("shared", "separate"):
            raise UserError(f"model.pool must be shared or separate, not {pool!r}")
        num_pools = 1 if pool == "shared" else 2
        super().__init__(
            optimizer, "co_training", num_pools, num_training_images, num_classes, labelled_per_class, **options
        )
        self.save_hyperparameters(logger=False)
        self.view_a, self.view_b = build_views(views, image_shape)
        self.classifier_a, self.classifier_b = (
            construct(classifier, nn.Module, image_shape=view.view_shape, num_outputs=num_classes)
            for view in (self.view_a, self.view_b)
        )
        self.to(memory_format=torch.channels_last)

    def losses(self, batch: SemiSupervisedBatch) -> tuple[Tensor, Tensor]:
        """See `PoolClassifier`."""
        terms = [
            self.classifier_losses(
                classifier, view(batch.labelled_images), batch.labelled_labels, view(batch.images), pool
            )
            for classifier, view, pool in (
                (self.classifier_a, self.view_a, 0),
                (self.classifier_b, self.view_b, len(self.pool_labels) - 1),
            )
        ]
        (labelled_a, pseudo_a), (labelled_b, pseudo_b) = terms
        return labelled_a + labelled_b, pseudo_a + pseudo_b

    def all_logits(self, images: Tensor) -> list[Tensor]:
        """Those of both views."""
        return [self.classifier_a(self.view_a(images)).float(), self.classifier_b(self.view_b(images)).float()]

    def choose(self, confidences: Tensor, labels: Tensor, free: Tensor, numbers: list[int]) -> tuple[Tensor, Tensor]:
        """The most confident of both views; each classifier chooses half of what a shared pool gets."""
        shared = len(free) == 1
        if shared:
            numbers = [(numbers[0] + 1) // 2, numbers[0] // 2]
        else:
            # Row p of the pools is what classifier p learns, and the other one chooses.
            confidences, labels = confidences.flip(0), labels.flip(0)
        offered = torch.where(free, labels, UNLABELLED)
        choices = [
            choose_confident(sure, told, number, self.threshold, self.balanced_classes)
            for sure, told, number in zip(confidences, offered, numbers, strict=True)
        ]
        if not shared:
            return torch.stack(choices), confidences
        merged, sure = merge_choices(torch.stack(choices), confidences)
        return merged[None], sure[None]

    def classify(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) in [-1, 1]: the mean of both views' log-probabilities."""
        return torch.stack([logits.log_softmax(1) for logits in self.all_logits(images)]).mean(0)

    def features(self, images: Tensor) -> Tensor:
        """What both last linear layers get, (N, D), of images (N, C, H, W) in [-1, 1]."""
        pairs = ((self.classifier_a, self.view_a), (self.classifier_b, self.view_b))
        return torch.cat([hidden_features(classifier, view(images)) for classifier, view in pairs], 1)


def build_views(views: str | Sequence[Mapping[str, Any]], image_shape: tuple[int, int, int]) -> tuple[View, View]:
    """Two views of images (C, H, W).

    Raises:
        UserError: an unknown name, or another number of specs.
    """
    if isinstance(views, str) and views not in VIEWS:
        raise UserError(f"model.views must be {', '.join(VIEWS)} or specs of two views, not {views!r}")
    specs = VIEWS[views] if isinstance(views, str) else views
    if len(specs) != 2:
        raise UserError(f"model.views must be two views, not {len(specs)}")
    first, second = (construct(spec, View, image_shape=image_shape) for spec in specs)
    return first, second
