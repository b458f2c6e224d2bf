import gzip
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lightning_gen.data import ImageBatch
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.data.sets.mnist import MNISTDataModule
from lightning_gen.errors import UserError


def test_digits_split_is_stratified_and_complete() -> None:
    data = DigitsDataModule("unused")
    train, test = data.split("train"), data.split("test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.shape[1:] == data.image_shape == (1, 32, 32)
    assert train.labels is not None
    assert test.labels is not None
    assert abs(torch.bincount(test.labels) * 4 - torch.bincount(train.labels)).max() <= 4


def test_digits_are_upright_bright_on_dark_and_full_range() -> None:
    small = DigitsDataModule("unused", image_size=8)
    images = torch.cat([small.split("train").images, small.split("test").images])
    originals = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    assert {image.tobytes() for image in images[:, 0].numpy()} == {image.tobytes() for image in originals}
    assert images.min() == 0
    assert images.max() == 255


def test_the_split_depends_on_the_split_seed_only() -> None:
    assert DigitsDataModule("x", seed=1).split("test").digest == DigitsDataModule("x", seed=2).split("test").digest
    assert DigitsDataModule("x", split_seed=1).split("test").digest != DigitsDataModule("x").split("test").digest


def test_validation_images_leave_the_training_set() -> None:
    data = DigitsDataModule("unused", validation_share=0.1)
    assert (len(data.split("train")), len(data.split("val"))) == (1293, 144)
    with pytest.raises(UserError, match="validation_share"):
        DigitsDataModule("unused").split("val")


def test_batches_become_floats_in_minus_one_to_one() -> None:
    data = DigitsDataModule("unused")
    batch = data.on_after_batch_transfer((ImageBatch(torch.tensor([[[[0, 255]]]], dtype=torch.uint8), None),), 0)
    assert batch.images.tolist() == [[[[-1.0, 1.0]]]]


def write_idx(folder: Path, count: int = 20, zipped: bool = False) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    for prefix in ("train", "t10k"):
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return images


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("place", ["MNIST/raw", "."])
def test_mnist_reads_the_files_at_hand(tmp_path: Path, zipped: bool, place: str) -> None:
    images = write_idx(tmp_path / place, zipped=zipped)
    plain = MNISTDataModule(str(tmp_path), image_size=28).split("train")
    assert np.array_equal(plain.images[:, 0].numpy(), images)
    padded = MNISTDataModule(str(tmp_path), image_size=32).split("test")
    assert padded.images.shape == (20, 1, 32, 32)
    assert torch.equal(padded.images[:, :, 2:-2, 2:-2], plain.images)
    assert padded.images.sum() == plain.images.sum()
    assert padded.labels is not None
    assert padded.labels.tolist() == [index % 10 for index in range(20)]
    assert MNISTDataModule(str(tmp_path), image_size=64).split("test").images.shape == (20, 1, 64, 64)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("zipped", [False, True])
def test_a_damaged_mnist_file_is_named(tmp_path: Path, zipped: bool) -> None:
    write_idx(tmp_path, zipped=zipped)
    path = next(tmp_path.glob("train-images*"))
    truncate(path)
    with pytest.raises(UserError, match=f"{path.name} is damaged.*delete it"):
        MNISTDataModule(str(tmp_path)).split("train")


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    write_idx(tmp_path, count=20)
    short = tmp_path / "short"
    write_idx(short, count=10)
    (short / "train-labels-idx1-ubyte").replace(tmp_path / "train-labels-idx1-ubyte")
    with pytest.raises(UserError, match="do not belong together"):
        MNISTDataModule(str(tmp_path)).split("train")


def test_without_files_and_network_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", offline)
    with pytest.raises(UserError, match=r"paths\.data_dir"):
        MNISTDataModule(str(tmp_path)).split("train")


def test_wrong_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.image_size"):
        MNISTDataModule(str(tmp_path), image_size=30).split("train")
    with pytest.raises(UserError, match=r"data\.image_size"):
        DigitsDataModule("unused", image_size=4).split("train")
