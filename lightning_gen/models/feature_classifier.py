"""A classifier that is fitted at once to features of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_gen.errors import UserError
from lightning_gen.models.base import GenerativeModel, ImageBatch
from lightning_gen.models.feature_heads import FeatureHead
from lightning_gen.models.feature_sources import build_source
from lightning_gen.models.labels import check_has_classes, labelled_part
from lightning_gen.registry import construct


class FeatureClassifier(GenerativeModel):
    """Frozen features, their principal components if asked for, and a `FeatureHead` fitted to those.

    `lightning_gen.callbacks.fit_classifier.FitClassifier` has it fitted to the whole training set before the first
    iteration. An iteration computes the cross-entropy of a batch's labelled images and takes no step, so one is enough;
    a checkpoint holds all that was fitted, and a run that goes on from one fits nothing again.

    Args:
        image_shape: (C, H, W) of the images.
        source: of the features (see `build_source`).
        head: spec of a `FeatureHead`.
        pca: how many principal components of all training images' features the head sees; None for the features.
        num_classes: K of the data, 0 for a set without classes.

    Attributes:
        fitted: 1 once `fit_images` has run.

    Raises:
        UserError: a set without classes, or what source and head raise.
    """

    network_names: ClassVar[tuple[str, ...]] = ("source", "head")
    pca_mean: Tensor
    pca_components: Tensor
    fitted: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        source: Mapping[str, Any],
        head: Mapping[str, Any],
        pca: int | None = None,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        check_has_classes("the model", num_classes)
        self.source = build_source(source, image_shape, "model.source").requires_grad_(False)
        self.hparams["source"] = self.source.spec
        num_features = self.source.num_features
        if pca is not None and not 1 <= pca <= num_features:
            raise UserError(f"model.pca={pca} must be null or from 1 to the number of features, {num_features}")
        self.pca = pca
        self.register_buffer("pca_mean", torch.zeros(0 if pca is None else num_features))
        self.register_buffer("pca_components", torch.zeros(pca or 0, num_features))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.int64))
        self.head = construct(
            head,
            FeatureHead,  # type: ignore[type-abstract]
            num_features=pca or num_features,
            num_classes=num_classes,
        )

    def train(self, mode: bool = True) -> FeatureClassifier:
        """Training or evaluation mode; the source stays in evaluation mode."""
        super().train(mode)
        self.source.eval()
        return self

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One that is never stepped: Lightning counts iterations by it."""
        return torch.optim.SGD(self.head.parameters(), lr=0.0)

    def on_train_start(self) -> None:
        """Refuse to go on without a fit."""
        if not self.fitted:
            raise UserError("nothing fitted the classifier: set callbacks.fit_classifier as in callbacks/default.yaml")

    @torch.no_grad()
    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """The cross-entropy of the batch's labelled images; nothing changes."""
        images, labels = labelled_part(batch)
        return {"classification": cross_entropy(self.classify(images), labels)}

    @property
    def uses_unlabelled(self) -> bool:
        """Whether images without a label change the fit."""
        return self.pca is not None or self.head.uses_unlabelled

    def fit_images(self, blocks: Iterator[tuple[Tensor, Tensor]]) -> Mapping[str, float]:
        """Fit to training images (N, C, H, W) in [-1, 1] with labels (N,), -1 where unknown, in blocks.

        Returns:
            What the head says of its fit.

        Raises:
            UserError: fewer images than principal components, or what the head raises.
        """
        with torch.no_grad():
            parts = [(self.source(images.to(self.device)).cpu(), labels.cpu()) for images, labels in blocks]
        features, labels = (torch.cat(each) for each in zip(*parts, strict=True))
        if self.pca is not None:
            if len(features) < self.pca:
                raise UserError(f"model.pca={self.pca} is more than the {len(features)} training images: set it lower")
            solver = "covariance_eigh" if len(features) >= features.shape[1] else "full"
            found = PCA(self.pca, svd_solver=solver).fit(features.double().numpy())
            self.pca_mean.copy_(torch.from_numpy(found.mean_))
            self.pca_components.copy_(torch.from_numpy(found.components_))
            features = self._project(features.to(self.device)).cpu()
        facts = self.head.fit(features, labels, self.seed)
        self.fitted.fill_(1)
        return facts

    def features(self, images: Tensor) -> Tensor:
        """What the head sees, (N, D) float32, of images (N, C, H, W) in [-1, 1]."""
        return self._project(self.source(images))

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (N, K) float32 of images (N, C, H, W) in [-1, 1]."""
        return self.head(self.features(images))

    def _project(self, features: Tensor) -> Tensor:
        return features if self.pca is None else (features - self.pca_mean) @ self.pca_components.T
