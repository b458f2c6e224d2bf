"""The classifier of a data set that comes with the extractor of its scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.labels import class_index
from lightning_gen.errors import UserError
from lightning_gen.images import to_uint8
from lightning_gen.metrics.extractors import FeatureExtractor

BLOCK_SIZE = 64


class Classifier:
    """The class of the largest logit of an extractor whose classes are the set's.

    Args:
        extractor: on the device where it is to compute.
        image_shape: (C, H, W) of the images.
        class_names: of the set.

    Attributes:
        name: of the extractor.
        accuracy: on images of the set itself, once measured.

    Raises:
        UserError: the extractor cannot take the images, or has other classes.
    """

    def __init__(
        self, extractor: FeatureExtractor, image_shape: tuple[int, int, int], class_names: Sequence[str]
    ) -> None:
        extractor.check_image_shape(image_shape)
        if not class_names or extractor.num_classes != len(class_names):
            raise UserError(
                f"Extractor {extractor.name!r} has {extractor.num_classes or 'no'} classes and the data set "
                f"{len(class_names)}: name one with the set's own classes, as metrics=mnist for mnist"
            )
        self.extractor = extractor
        self.name = extractor.name
        self.class_names = list(class_names)
        self.accuracy = float("nan")

    def __call__(self, images: Tensor) -> Tensor:
        """Labels (N,) int64, on the CPU, of float images (N, C, H, W) in [-1, 1]."""
        return self.classify(to_uint8(images))

    def classify(self, images: Tensor) -> Tensor:
        """Labels (N,) int64, on the CPU, of uint8 images (N, C, H, W)."""
        device = next(self.extractor.parameters()).device
        blocks = []
        with torch.no_grad():
            for block in images.split(BLOCK_SIZE):
                logits = self.extractor(block.to(device)).logits
                assert logits is not None
                blocks.append(logits.argmax(1).cpu())
        return torch.cat(blocks)

    def measure(self, images: ImageSet) -> float:
        """The share of labelled images whose class it finds."""
        assert images.labels is not None
        return float((self.classify(images.images) == images.labels).double().mean())

    def index(self, name: str) -> int:
        """The label of a class given by name, or by its number.

        Raises:
            UserError: there is no such class.
        """
        return class_index(name, self.class_names)
