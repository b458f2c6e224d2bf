"""The published sets themselves; only where LIGHTNING_GEN_REAL_DATA names a folder that has them."""

import os

import pytest

from lightning_gen.data.description import describe_split
from lightning_gen.data.sets.cifar import CIFAR10DataModule
from lightning_gen.data.sets.mnist import MNISTDataModule

REAL_DATA = os.environ.get("LIGHTNING_GEN_REAL_DATA")

if REAL_DATA:

    @pytest.mark.parametrize(
        ("split", "counts"),
        [
            ("train", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
            ("test", [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
        ],
    )
    def test_mnist_has_its_published_counts(split: str, counts: list[int]) -> None:
        data = MNISTDataModule(REAL_DATA or "", image_size=28)
        facts = describe_split(data.split(split), data.class_names, num_workers=0)
        assert facts["size"] == sum(counts)
        assert facts["skipped"] == 0
        assert facts["shape"] == [1, 28, 28]
        assert facts["classes"] == dict(zip("0123456789", counts, strict=True))
        if split == "train":
            assert facts["mean"] == pytest.approx([0.1307], abs=5e-5)
            assert facts["std"] == pytest.approx([0.3081], abs=5e-5)

    def test_mnist_is_padded_with_black() -> None:
        plain = MNISTDataModule(REAL_DATA or "", image_size=28).split("test")
        padded = MNISTDataModule(REAL_DATA or "", image_size=32).split("test")
        assert (padded.images[:, :, 2:-2, 2:-2] == plain.images).all()
        assert padded.images.sum() == plain.images.sum()

    @pytest.mark.parametrize(("split", "size"), [("train", 50_000), ("test", 10_000)])
    def test_cifar10_has_its_published_counts_and_colours(split: str, size: int) -> None:
        data = CIFAR10DataModule(REAL_DATA or "")
        facts = describe_split(data.split(split), data.class_names, num_workers=0)
        assert facts["size"] == size
        assert facts["skipped"] == 0
        assert facts["shape"] == [3, 32, 32]
        assert facts["classes"] == dict.fromkeys(data.class_names, size // 10)
        if split == "train":
            assert facts["mean"] == pytest.approx([0.49140, 0.48216, 0.44653], abs=5e-5)
            assert facts["std"] == pytest.approx([0.24703, 0.24349, 0.26159], abs=5e-5)
