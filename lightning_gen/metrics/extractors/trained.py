"""Extractors of one domain: classifiers in files that tell of their own training, registered or shipped.

A file is in the safetensors format. Its metadata holds the record under ``record``, one JSON object with sorted keys,
so that equal weights and records are equal bytes. The files of ``digits`` and ``mnist`` are older: each entry of their
record is an entry of the metadata, and what all of them share is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from lightning_gen.errors import UserError, first_line
from lightning_gen.files import atomic_path, canonical_json
from lightning_gen.images import as_float
from lightning_gen.metrics.extractors.base import FeatureExtractor, Features, extractors, sha256_of_file
from lightning_gen.metrics.extractors.classifiers import ARCHITECTURES

WEIGHTS_DIR = Path(__file__).with_name("weights")
LARGEST_SIZE = 64
FIRST_RECORD = {"architecture": "lenet", "image_shape": [1, 32, 32], "num_classes": 10, "class_names": []}
RESERVED = ("fid", "inception_score")


def network_size(architecture: str, image_size: int) -> int:
    """Height and width of what the network sees of images of ``image_size``: 32 for LeNet, at most 64 for ResNet.

    Raises:
        UserError: the size is neither 28 nor a power of two from 8.
    """
    if image_size != 28 and (image_size < 8 or image_size.bit_count() > 1):
        raise UserError(
            f"Extractors take images of 8, 16, 28, 32, 64, ... pixels, not {image_size}: set data.image_size"
        )
    return 32 if architecture == "lenet" or image_size == 28 else min(image_size, LARGEST_SIZE)


def fit(images: Tensor, size: int) -> Tensor:
    """Images in the size of a network: padded by two black pixels a side, or resized.

    Args:
        images: (N, C, S, S) uint8, or float in [-1, 1].
        size: 28 is padded to 32; what else differs is resized by bilinear filtering, antialiased, and rounded if uint8.

    Returns:
        (N, C, size, size) of the same type.
    """
    if images.shape[-1] == size:
        return images
    if (images.shape[-1], size) == (28, 32):
        return functional.pad(images, [2] * 4, value=-1.0 if images.is_floating_point() else 0)
    resized = functional.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)
    return resized if images.is_floating_point() else resized.round_().clamp_(0, 255).to(torch.uint8)


def check_name(name: str) -> None:
    """Raise UserError if an extractor may not be called ``name``."""
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise UserError(f"An extractor's name is of a-z, 0-9 and _, not {name!r}")
    if name in RESERVED or name in set(extractors):
        raise UserError(f"The name {name!r} belongs to another extractor or score: choose another, as {name}_2")


def read_record(path: Path) -> dict[str, Any]:
    """What the weight file says of itself and of its training.

    Raises:
        UserError: it cannot be read, or is no extractor's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        entries = json.loads(metadata["record"]) if "record" in metadata else None
        record = entries or {key: json.loads(value) for key, value in metadata.items()}
        if "test_accuracy" not in record:
            raise ValueError("it has no record of a training")
        return {**FIRST_RECORD, "name": path.stem, **record}
    except (OSError, SafetensorError, ValueError, AttributeError) as error:
        raise UserError(
            f"Cannot read extractor weights from {path} ({first_line(error)}): set metrics.extractor.weights to a file "
            "of `lightning-gen extractor train`"
        ) from error


def stored_weights(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors as files hold them: float16 but for biases and batch norms, which are float32."""
    state = network.state_dict()
    return {key: (value.half() if value.ndim > 1 else value).cpu().contiguous() for key, value in state.items()}


def write_extractor(path: Path, weights: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write an extractor's file, whole or not at all."""
    with atomic_path(path) as temporary:
        save_file(dict(weights), temporary, metadata={"record": canonical_json(record)})


class ClassifierExtractor(FeatureExtractor):
    """The `Classifier` in a weight file, on images of the shape that it was trained on.

    Args:
        path: the file.

    Attributes:
        record: what `read_record` says of it.

    Raises:
        UserError: it cannot be read.
    """

    takes_floats = True

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.record = record = read_record(path)
        channels, size, _ = record["image_shape"]
        self.size = network_size(record["architecture"], size)
        try:
            network = ARCHITECTURES[record["architecture"]](channels, record["num_classes"], self.size)
            network.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError, KeyError) as error:
            raise UserError(
                f"Cannot read extractor weights from {path} ({first_line(error)}): set metrics.extractor.weights"
            ) from error
        self.network = network.to(memory_format=torch.channels_last)
        self.num_features = network.num_features
        self.num_classes = record["num_classes"]
        self.weights_sha256 = sha256_of_file(path)

    def forward(self, images: Tensor) -> Features:
        """Features (N, D) and logits (N, K) of images (N, C, S, S)."""
        with torch.autocast(images.device.type, enabled=False):
            output: Features = self.network(as_float(fit(images, self.size)))
        return output

    def protocol(self) -> dict[str, Any]:
        """Name, weights, layer and preprocessing."""
        return {
            "name": self.name,
            "weights_sha256": self.weights_sha256,
            "layer": self.network.layer,
            "resize": self._resize(),
        }

    def check_image_shape(self, image_shape: tuple[int, int, int]) -> None:
        """The shape of the training images; 28x28 and 32x32 are one, as the smaller is padded."""
        channels, size, _ = self.record["image_shape"]
        sizes = (32, 28) if size in (28, 32) else (size,)
        if image_shape not in [(channels, side, side) for side in sizes]:
            color = {1: "grey", 3: "RGB"}.get(channels, f"{channels}-channel")
            wanted = " or ".join(f"{side}x{side}" for side in sizes)
            raise UserError(
                f"Extractor {self.name!r} takes {color} images of {wanted}, not {image_shape}: set "
                f"data.image_size={sizes[0]} or use metrics=inception"
            )

    def _resize(self) -> str:
        size = self.record["image_shape"][1]
        if size in (28, 32):
            return "pad_32"
        return "none" if size == self.size else f"bilinear_{self.size}"


@extractors.register("trained")
class TrainedExtractor(ClassifierExtractor):
    """An extractor that `lightning-gen extractor train NAME` made; scores are called by its own name.

    Args:
        weights: its name, or the path of its file.
        folder: of the registered ones, ``paths.extractors_dir``.

    Raises:
        UserError: there is none, or its name belongs to another.
    """

    name = "trained"

    def __init__(self, weights: str, folder: str = ".") -> None:
        registered = Path(folder, f"{weights}.safetensors")
        path = Path(weights).expanduser()
        if re.fullmatch(r"\w+", weights) and not path.is_file():
            path = registered
            if not path.is_file():
                known = sorted(file.stem for file in Path(folder).glob("*.safetensors"))
                raise UserError(
                    f"No extractor {weights!r} in {Path(folder).resolve()}, which has {', '.join(known) or 'none'}: "
                    f"train it by `lightning-gen extractor train {weights} data=...` or name its file by "
                    "metrics.extractor.weights=FILE"
                )
        super().__init__(path)
        self.name = self.record["name"]
        check_name(self.name)


class ShippedExtractor(ClassifierExtractor):
    """An extractor whose weights come with the package.

    Args:
        weights: another file of the same format; None for the one that ships.
    """

    def __init__(self, weights: str | None = None) -> None:
        super().__init__(Path(weights).expanduser() if weights else WEIGHTS_DIR / f"{self.name}.safetensors")


@extractors.register("digits")
class DigitsExtractor(ShippedExtractor):
    """LeNet trained on the training split of scikit-learn's digits at 32x32."""

    name = "digits"


@extractors.register("mnist")
class MNISTExtractor(ShippedExtractor):
    """LeNet trained on the training images of MNIST, padded to 32x32."""

    name = "mnist"


@extractors.register("cifar10")
class CIFAR10Extractor(ShippedExtractor):
    """ResNet trained on the training images of CIFAR-10."""

    name = "cifar10"
