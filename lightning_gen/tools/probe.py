"""How much the features of a model tell of the class: linear classification on few labels.

Radford et al. 2016, sections 5.1 and 5.2: the discriminator's maps of all layers, max-pooled to a 4x4 grid, flattened
and concatenated, under a regularized linear L2-SVM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_gen.data.image_set import ImageSet
from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import HasFeatureMaps, HasFeatures
from lightning_gen.models.feature_sources import pooled
from lightning_gen.models.linear_probe import Probe

BLOCK_SIZE = 64

Embedding = Callable[[Tensor], Tensor]
"""uint8 images (N, C, H, W) -> float features (N, D) on the CPU."""


class ProbeResult(NamedTuple):
    """Results of one kind of features.

    Attributes:
        accuracies: share of the test images that are right, for each draw of labels.
        penalties: C of each draw.
        num_features: D.
    """

    accuracies: list[float]
    penalties: list[float]
    num_features: int

    @property
    def mean(self) -> float:
        """Mean accuracy over the draws."""
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float | None:
        """Standard deviation of the accuracy over the draws (n - 1), None for a single draw."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else None


def probe(embed: Embedding, train: ImageSet, test: ImageSet, draws: Sequence[Tensor], seed: int) -> ProbeResult:
    """Fit a `Probe` for every draw of labelled images and count how many test images it classifies rightly.

    The test images pass through in blocks, so that their features, of which there may be very many, are never held.

    Args:
        embed: the features.
        train: images with labels.
        test: images with labels.
        draws: for each draw the indices (M,) int64 of the training images whose labels are used.
        seed: of the images that are held out to choose C.
    """
    assert train.labels is not None
    assert test.labels is not None
    probes = []
    for indices in draws:
        labelled = train.subset(indices)
        assert labelled.labels is not None
        features = torch.cat([embed(block) for block in labelled.images.split(BLOCK_SIZE)])
        probes.append(Probe(features, labelled.labels, seed))
    right = [0] * len(probes)
    for images, labels in zip(test.images.split(BLOCK_SIZE), test.labels.split(BLOCK_SIZE), strict=True):
        features = embed(images)
        for draw, fitted in enumerate(probes):
            right[draw] += int((fitted.predict(features) == labels).sum())
    accuracies = [count / len(test) for count in right]
    return ProbeResult(accuracies, [fitted.penalty for fitted in probes], features.shape[1])


def model_embedding(model: GenerativeModel) -> Embedding:
    """The pooled feature maps of a model, or its features where it has no maps; call within `evaluation`.

    Raises:
        UserError: it has neither.
    """
    if not isinstance(model, HasFeatureMaps | HasFeatures):
        raise UserError(f"{type(model).__name__} has no features to probe")
    look: HasFeatureMaps | HasFeatures = model

    def embed(images: Tensor) -> Tensor:
        pixels = to_float(images.to(model.device))
        with torch.no_grad():
            maps = look.feature_maps(pixels) if isinstance(look, HasFeatureMaps) else [look.features(pixels)]
            return pooled(maps).float().cpu()

    return embed


def pixel_embedding(images: Tensor) -> Tensor:
    """Pixels as they are, in [-1, 1]: (N, C * H * W)."""
    return to_float(images).flatten(1)
