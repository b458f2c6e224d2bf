import os
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_gen.data.sets.cifar import CIFAR10DataModule
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.errors import UserError
from lightning_gen.metrics.extractors import create_extractor
from lightning_gen.metrics.extractors.base import sha256_of_file
from lightning_gen.metrics.extractors.trained import WEIGHTS_DIR, read_record
from tests.metrics.inception_weights import photograph_crops

REAL_DATA = os.environ.get("LIGHTNING_GEN_REAL_DATA")


def accuracy(name: str, images: torch.Tensor, labels: torch.Tensor) -> float:
    logits = create_extractor(name)(images).logits
    assert logits is not None
    return (logits.argmax(1) == labels).double().mean().item()


def test_the_digits_extractor_is_as_accurate_as_its_record_says() -> None:
    record = read_record(WEIGHTS_DIR / "digits.safetensors")
    data = DigitsDataModule("unused")
    test = data.split("test")
    assert test.labels is not None
    assert record["train_digest"] == data.split("train").digest
    assert record["test_accuracy"] == pytest.approx(accuracy("digits", test.images, test.labels), abs=0.003)
    assert record["test_accuracy"] > 0.97


def test_the_mnist_extractor_tells_of_its_training_and_reads_other_digits() -> None:
    record = read_record(WEIGHTS_DIR / "mnist.safetensors")
    assert record["train_size"] == 60000
    assert record["test_accuracy"] > 0.99
    test = DigitsDataModule("unused", image_size=28).split("test")
    assert test.labels is not None
    assert accuracy("mnist", test.images, test.labels) > 0.5


def test_the_cifar10_extractor_is_small_and_tells_of_its_training() -> None:
    file = WEIGHTS_DIR / "cifar10.safetensors"
    record = read_record(file)
    assert file.stat().st_size < 5e6
    assert (record["data"], record["train_size"], record["test_size"]) == ("cifar10", 50000, 10000)
    assert record["class_names"] == list(CIFAR10DataModule.all_class_names)
    assert record["test_accuracy"] >= 0.9


if REAL_DATA:

    def test_the_cifar10_extractor_is_as_accurate_as_its_record_says() -> None:
        record = read_record(WEIGHTS_DIR / "cifar10.safetensors")
        data = CIFAR10DataModule(REAL_DATA or "")
        test = data.reference_set("test")
        assert test.labels is not None
        assert record["train_digest"] == data.reference_set("train").digest
        blocks = test.images.split(1000), test.labels.split(1000)
        right = sum(accuracy("cifar10", *block) for block in zip(*blocks, strict=True)) / 10
        assert record["test_accuracy"] == pytest.approx(right, abs=0.001)


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "random"])
def test_what_every_extractor_keeps_to(name: str) -> None:
    extractor = create_extractor(name)
    images = photograph_crops(8, size=32) if name == "cifar10" else DigitsDataModule("unused").split("test").images[:8]
    extractor.check_image_shape((images.shape[1], *images.shape[2:]))
    output = extractor(images)
    assert output.features.shape == (8, extractor.num_features)
    assert output.features.dtype == torch.float32
    assert output.logits is not None
    assert output.logits.shape == (8, extractor.num_classes)
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(extractor(images).features, output.features)
    extractor.train()
    assert not any(module.training for module in extractor.modules())
    assert len(extractor.protocol()["weights_sha256"]) == 64
    assert extractor.protocol()["name"] == name


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("digits", "867f8b8219cfbc54eb075fcdd12860f8c94811a74a3e8d1704680cb9449ee6cc"),
        ("mnist", "be3e00d03a02b9512947d1355fcefb4fc8fc387d8b0b3961ae9e4de14b56105a"),
    ],
)
def test_published_protocols_of_lenet_features_stay_as_they_are(name: str, digest: str) -> None:
    expected = {"name": name, "weights_sha256": digest, "layer": "dense_84", "resize": "pad_32"}
    assert create_extractor(name).protocol() == expected
    assert sha256_of_file(WEIGHTS_DIR / f"{name}.safetensors") == digest


def test_28_pixels_are_padded_to_32() -> None:
    extractor = create_extractor("mnist")
    images = DigitsDataModule("unused", image_size=28).split("test").images[:4]
    assert torch.equal(extractor(images).features, extractor(nn.functional.pad(images, [2] * 4)).features)


def test_random_features_are_barred_from_leaderboards() -> None:
    assert not create_extractor("random").ranked
    assert create_extractor("digits").ranked
    assert create_extractor("random", seed=1).protocol() != create_extractor("random", seed=2).protocol()


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    for arguments, message in (
        ({"name": "digit"}, "Did you mean 'digits'"),
        ({"name": "digits", "weight": 1}, "weight"),
        ({"name": "digits", "weights": str(tmp_path / "none.safetensors")}, "none.safetensors"),
        ({"name": "digits", "weights": str(tmp_path / "bad.safetensors")}, "bad.safetensors"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            create_extractor(**arguments)
        assert "\n" not in str(caught.value)
    for shape in ((3, 32, 32), (1, 64, 64)):
        with pytest.raises(UserError, match="metrics=inception"):
            create_extractor("digits").check_image_shape(shape)
