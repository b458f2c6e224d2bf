"""LeNet classifiers of digits: small domain extractors whose weights ship with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import pad

from lightning_gen.errors import UserError, first_line
from lightning_gen.images import as_float
from lightning_gen.metrics.extractors.base import FeatureExtractor, Features, extractors, sha256_of_file

WEIGHTS_DIR = Path(__file__).with_name("weights")
INPUT_SIZE = 32


class LeNet(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling; its 84 units before the classes are the features."""

    num_features = 84
    num_classes = 10

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 120, 5),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(120, self.num_features),
        )
        self.head = nn.Linear(self.num_features, self.num_classes)

    def forward(self, images: Tensor) -> Features:
        """Features before their ReLU and logits of float images (N, 1, 32, 32) in [-1, 1]."""
        features = self.layers(images)
        return Features(features, self.head(features.relu()))


class LeNetExtractor(FeatureExtractor):
    """A trained `LeNet` on grey images of 32x32, or of 28x28, which are padded by two black pixels a side.

    Args:
        weights: a safetensors file of a `LeNet`; None for the one that ships with the package.
    """

    weights_name: ClassVar[str]
    num_features = LeNet.num_features
    num_classes = LeNet.num_classes
    takes_floats = True

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        path = Path(weights) if weights else WEIGHTS_DIR / f"{self.weights_name}.safetensors"
        self.network = LeNet()
        try:
            self.network.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = first_line(error)
            raise UserError(
                f"Cannot read LeNet weights from {path} ({reason}): set metrics.extractor.weights"
            ) from error
        self.weights_sha256 = sha256_of_file(path)

    def forward(self, images: Tensor) -> Features:
        """Features (N, 84) and logits (N, 10) of images (N, 1, H, W) with H = W = 28 or 32."""
        margin = (INPUT_SIZE - images.shape[-1]) // 2
        with torch.autocast(images.device.type, enabled=False):
            return self.network(pad(as_float(images), [margin] * 4, value=-1.0))

    def protocol(self) -> dict[str, Any]:
        """Name, weights, layer and preprocessing."""
        return {
            "name": self.name,
            "weights_sha256": self.weights_sha256,
            "layer": "dense_84",
            "resize": "pad_32",
        }

    def check_image_shape(self, image_shape: tuple[int, int, int]) -> None:
        """Grey images of 28x28 or 32x32."""
        if image_shape not in ((1, INPUT_SIZE, INPUT_SIZE), (1, 28, 28)):
            raise UserError(
                f"Extractor {self.name!r} takes grey images of 32x32 or 28x28, not {image_shape}: set "
                "data.image_size=32 or use metrics=inception"
            )


@extractors.register("digits")
class DigitsExtractor(LeNetExtractor):
    """LeNet trained on the training split of scikit-learn's digits at 32x32."""

    name = weights_name = "digits"


@extractors.register("mnist")
class MNISTExtractor(LeNetExtractor):
    """LeNet trained on the training images of MNIST, padded to 32x32."""

    name = weights_name = "mnist"


def training_record(path: Path) -> dict[str, Any]:
    """What the weight file says of its training: data digest, accuracy, seed, epochs."""
    with safe_open(path, framework="pt") as file:
        return {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
