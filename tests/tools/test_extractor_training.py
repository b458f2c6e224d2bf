from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.data import ImageDataModule
from lightning_gen.data.image_set import ImageSet
from lightning_gen.errors import UserError
from lightning_gen.metrics.extractors import create_extractor
from lightning_gen.metrics.extractors.base import sha256_of_file
from lightning_gen.metrics.extractors.trained import read_record
from lightning_gen.tools.extractor_training import train_extractor

OPTIONS = {"architecture": "resnet", "epochs": 20}


@pytest.fixture(autouse=True)
def _global_generator() -> Iterator[None]:
    """Training seeds the global generator for its weights."""
    with torch.random.fork_rng(devices=[]):
        yield


class Stripes(ImageDataModule):
    """Horizontal or vertical stripes under noise, a class each."""

    name = "stripes"
    all_class_names = ("horizontal", "vertical")
    image_channels = 3

    def load(self, split: str) -> ImageSet:
        rng = torch.Generator().manual_seed(len(split))
        labels = torch.arange(96 if split == "train" else 32) % 2
        ramp = torch.arange(self.image_size) // (self.image_size // 8) % 2 * 150
        grid = ramp.expand(self.image_size, -1)
        images = torch.stack([grid.T, grid])[labels][:, None].repeat(1, 3, 1, 1)
        noise = torch.randint(0, 100, images.shape, generator=rng)
        return ImageSet((images + noise).to(torch.uint8), self.labels(labels))

    def labels(self, labels: Tensor) -> Tensor | None:
        return labels


class Unlabelled(Stripes):
    def labels(self, labels: Tensor) -> Tensor | None:
        return None


class TrainOnly(Stripes):
    splits = ("train",)


def train(path: Path, data: ImageDataModule, **options: Any) -> dict[str, Any]:
    path.parent.mkdir(exist_ok=True)
    return train_extractor("stripes", data, path, {**OPTIONS, **options}, torch.device("cpu"))


def test_the_file_tells_of_its_training_and_keeps_what_it_tells(tmp_path: Path) -> None:
    data = Stripes("unused", image_size=8)
    record = train(tmp_path / "stripes.safetensors", data)
    extractor = create_extractor("trained", weights="stripes", folder=str(tmp_path))
    test = data.reference_set("test")
    logits = extractor(test.images).logits
    assert logits is not None
    assert test.labels is not None
    right = (logits.argmax(1) == test.labels).double().mean().item()
    assert record["test_accuracy"] == pytest.approx(right, abs=5e-5)
    assert right > 0.9
    train_set = data.reference_set("train")
    expected = {
        "name": "stripes",
        "architecture": "resnet",
        "image_shape": [3, 8, 8],
        "num_classes": 2,
        "class_names": ["horizontal", "vertical"],
        "data": "stripes",
        "train_digest": train_set.digest,
        "train_size": 96,
        "test_split": "test",
        "test_size": 32,
        "epochs": 20,
        "seed": 0,
    }
    stored = read_record(tmp_path / "stripes.safetensors")
    assert stored.items() >= expected.items()
    assert stored["versions"]["torch"] == importlib.metadata.version("torch")
    assert record["weights_sha256"] == sha256_of_file(tmp_path / "stripes.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["stripes.safetensors"]


def test_a_set_without_test_images_is_measured_on_held_out_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set data\.validation_share"):
        train(tmp_path / "a.safetensors", TrainOnly("unused", image_size=8))
    record = train(tmp_path / "a.safetensors", TrainOnly("unused", image_size=8, validation_share=0.25), epochs=1)
    assert (record["test_split"], record["test_size"], record["train_size"]) == ("val", 24, 72)


def test_large_images_are_made_smaller_in_training_as_in_scoring(tmp_path: Path) -> None:
    record = train(tmp_path / "a.safetensors", Stripes("unused", image_size=64), architecture="lenet", epochs=20)
    assert record["image_shape"] == [3, 64, 64]
    extractor = create_extractor("trained", weights=str(tmp_path / "a.safetensors"))
    assert extractor.protocol()["resize"] == "bilinear_32"
    test = Stripes("unused", image_size=64).reference_set("test")
    logits = extractor(test.images).logits
    assert logits is not None
    assert test.labels is not None
    assert record["test_accuracy"] == pytest.approx((logits.argmax(1) == test.labels).double().mean().item(), abs=5e-5)
    assert record["test_accuracy"] > 0.9


def test_data_that_cannot_be_learned_from_is_refused_in_one_line(tmp_path: Path) -> None:
    for data, message in (
        (Unlabelled("unused", image_size=8), "stripes has images without labels in its train split"),
        (Stripes("unused", image_size=24), "data.image_size"),
    ):
        with pytest.raises(UserError, match=message) as error:
            train(tmp_path / "a.safetensors", data)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
