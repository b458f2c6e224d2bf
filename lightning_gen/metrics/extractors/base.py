"""What every feature extractor offers: uint8 images in, features and optional class logits out."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.registry import Registry


class Features(NamedTuple):
    """Output of one extractor pass over N images.

    Attributes:
        features: (N, D) float32.
        logits: (N, K) float32 class scores before the softmax, or None where the extractor has no classes.
        spatial: (N, S) float32 features that keep their place in the image, or None where the extractor has none.
        images: (N, C, H, W) uint8, what they are the features of, for scores of the pixels themselves; added by those
            who call an extractor.
    """

    features: Tensor
    logits: Tensor | None
    spatial: Tensor | None = None
    images: Tensor | None = None


class FeatureExtractor(nn.Module):
    """A frozen network that maps images to features; it owns resizing, scaling and evaluation mode.

    Subclasses are registered with ``@extractors.register("name")`` and set the class attributes below. They never
    require gradients, stay in evaluation mode, and compute in float32 whatever the caller's autocast says.

    Attributes:
        name: part of every score's name and protocol; the registry's, but for `trained` its file's.
        num_features: D of the features.
        num_classes: K of the logits, None without logits.
        num_spatial: S of the spatial features, None without any.
        takes_floats: whether float images in [-1, 1] are taken beside uint8 ones, without rounding.
        ranked: False bars the extractor's scores from leaderboards (random weights).
    """

    name: str
    num_features: int
    num_classes: int | None = None
    num_spatial: int | None = None
    takes_floats: bool = False
    ranked: bool = True

    @abstractmethod
    def forward(self, images: Tensor) -> Features:
        """Features of uint8 images (N, C, H, W) in [0, 255]."""

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """What identifies these features: JSON-able ``name``, ``weights_sha256``, ``layer``, ``resize``."""

    @abstractmethod
    def check_image_shape(self, image_shape: tuple[int, int, int]) -> None:
        """Raise UserError, naming the remedy, if images of ``(C, H, W)`` cannot be scored."""

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Extractors have one mode, evaluation: a trainer that walks over modules must not flip them."""
        del mode
        return super().train(False)


extractors: Registry[type[FeatureExtractor]] = Registry("feature extractor", __package__)


def create_extractor(name: str, **options: Any) -> FeatureExtractor:
    """The extractor registered as ``name``, with its weights loaded, on the CPU.

    Raises:
        UserError: unknown name or option, or weights that are missing or damaged; the message names the remedy.
    """
    extractor_class = extractors[name]
    try:
        extractor = extractor_class(**options)
    except TypeError as error:
        raise UserError(f"Feature extractor {name!r}: {error}") from error
    return extractor.requires_grad_(False).eval()


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
