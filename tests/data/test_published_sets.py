import contextlib
import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

from lightning_gen.data.formats.decoding import resize
from lightning_gen.data.sets.celeba import CelebADataModule
from lightning_gen.data.sets.cifar import CIFAR10DataModule, CIFAR100DataModule
from lightning_gen.data.sets.mnist import (
    EMNISTDataModule,
    FashionMNISTDataModule,
    KMNISTDataModule,
    MNISTDataModule,
)
from lightning_gen.data.sets.svhn import SVHNDataModule
from lightning_gen.errors import UserError
from tests.data.published_files import (
    CELEBA_ATTRIBUTES,
    EMNIST_CLASSES,
    Content,
    Publish,
    PublishedSet,
    Server,
    assert_reads,
    encode_cifar_batch,
    encode_png,
    list_files,
    make_content,
    read_all,
    write_emnist,
)

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def refusal(published: PublishedSet, folder: Path, split: str = "train", **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        published.module(folder, **options).split(split)
    message = str(caught.value)
    assert "\n" not in message
    return message


# The files themselves: what the other tests read is in the published formats.


def test_a_cifar_batch_opens_as_its_authors_describe() -> None:
    images, labels = make_content((3, 32, 32), 10, train=4)["train"]
    batch = pickle.loads(encode_cifar_batch(images, labels, "labels"), encoding="bytes")
    assert set(batch) == {b"batch_label", b"labels", b"data", b"filenames"}
    assert batch[b"data"].shape == (4, 3072)
    assert batch[b"data"].dtype == np.uint8
    assert batch[b"data"][2, 1024 + 32 * 5 + 7] == images[2, 1, 5, 7]
    assert batch[b"labels"] == labels.tolist()


# CIFAR


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
@pytest.mark.parametrize("size", [16, 24, 48, 64])
def test_other_sizes_are_resized(publish: Publish, tmp_path: Path, name: str, size: int) -> None:
    published = publish(name)
    data = published.module(tmp_path, image_size=size)
    images, labels = read_all(data, "test")
    originals, expected_labels = published.content["test"]
    assert images.shape == (len(originals), *data.image_shape) == (len(originals), 3, size, size)
    assert torch.equal(torch.from_numpy(images), resize(torch.from_numpy(originals), size, size))
    assert np.array_equal(labels, expected_labels)


DAMAGE = pytest.mark.parametrize("damage", ["altered", "truncated"])


def spoil(file: Path, damage: str) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-1] if damage == "truncated" else content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(
    ("split", "batch"), [("train", "data_batch_1"), ("train", "data_batch_3"), ("test", "test_batch")]
)
@DAMAGE
def test_a_damaged_cifar_batch_is_named(publish: Publish, tmp_path: Path, batch: str, split: str, damage: str) -> None:
    published = publish("cifar10")
    published.module(tmp_path).split("train")
    spoil(tmp_path / "cifar-10-batches-py" / batch, damage)
    message = refusal(published, tmp_path, split)
    assert batch in message
    assert "delete" in message


@pytest.mark.parametrize("file", ["data_batch_2", "batches.meta"])
def test_a_damaged_cifar_folder_is_made_good_as_the_message_says(publish: Publish, tmp_path: Path, file: str) -> None:
    published = publish("cifar10")
    published.module(tmp_path).split("train")
    folder = tmp_path / "cifar-10-batches-py"
    spoil(folder / file, "truncated")
    message = refusal(published, tmp_path)
    assert f"{folder}" in message
    assert "delete it" in message
    if f"{folder / file}" in message:
        (folder / file).unlink()
    else:
        shutil.rmtree(folder)
    assert_reads(published.module(tmp_path), published.content)


def test_a_missing_cifar_batch_is_downloaded_or_the_message_says_what_to_do(publish: Publish, tmp_path: Path) -> None:
    published = publish("cifar10")
    published.module(tmp_path).split("train")
    folder = tmp_path / "cifar-10-batches-py"
    (folder / "data_batch_2").unlink()
    with contextlib.suppress(UserError):
        assert_reads(published.module(tmp_path), published.content)
        return
    assert "delete it" in refusal(published, tmp_path)
    shutil.rmtree(folder)
    assert_reads(published.module(tmp_path), published.content)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-batches-py/test_batch"),
        ("cifar100", "cifar-100-python/train"),
        ("svhn", "svhn/train_32x32.mat"),
        ("celeba", "celeba/list_attr_celeba.txt"),
    ],
)
def test_no_message_advises_an_argument_of_torchvision(publish: Publish, tmp_path: Path, name: str, file: str) -> None:
    published = publish(name)
    assert_reads(published.module(tmp_path), published.content)
    spoil(tmp_path / file, "truncated")
    with pytest.raises(UserError) as caught:
        assert_reads(published.module(tmp_path), published.content)
    assert "download=True" not in str(caught.value)


def test_a_pickle_that_is_not_the_published_one_is_not_opened(publish: Publish, tmp_path: Path) -> None:
    published = publish("cifar10")
    published.module(tmp_path).split("train")

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "harm",)

    for file in ("data_batch_1", "batches.meta"):
        intact = (tmp_path / "cifar-10-batches-py" / file).read_bytes()
        (tmp_path / "cifar-10-batches-py" / file).write_bytes(pickle.dumps(Harmful()))
        refusal(published, tmp_path)
        (tmp_path / "cifar-10-batches-py" / file).write_bytes(intact)
    assert not (tmp_path / "harm").exists()


def write_parquet(folder: Path, content: Content, image_column: str = "img", label_column: str = "label") -> None:
    folder.mkdir(parents=True)
    for split, (images, labels) in content.items():
        rows = [{"bytes": encode_png(image), "path": f"{index}.png"} for index, image in enumerate(images)]
        kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        columns = {
            image_column: pyarrow.array(rows, kind),
            label_column: pyarrow.array(labels.tolist(), pyarrow.int64()),
        }
        parquet.write_table(pyarrow.table(columns), folder / f"{split}.parquet", row_group_size=7)


def test_cifar10_from_parquet_files_is_what_was_written(publish: Publish, server: Server, tmp_path: Path) -> None:
    published = publish("cifar10")
    write_parquet(tmp_path / "data/cifar10", published.content)
    data = published.module(tmp_path / "data")
    assert_reads(data, published.content)
    assert server.requests == []
    assert list_files(tmp_path / "data") == {"cifar10/train.parquet", "cifar10/test.parquet"}
    # The same set from the pickles has the same digest.
    assert published.module(tmp_path / "other").split("train").digest == data.split("train").digest


def test_cifar100_from_parquet_files_is_what_was_written(publish: Publish, server: Server, tmp_path: Path) -> None:
    published = publish("cifar100")
    write_parquet(tmp_path / "cifar100", published.content, label_column="fine_label")
    assert_reads(published.module(tmp_path), published.content)
    assert server.requests == []


def test_parquet_images_are_resized_too(publish: Publish, tmp_path: Path) -> None:
    published = publish("cifar10")
    write_parquet(tmp_path / "cifar10", published.content)
    images, _ = read_all(published.module(tmp_path, image_size=16), "test")
    assert torch.equal(torch.from_numpy(images), resize(torch.from_numpy(published.content["test"][0]), 16, 16))


def test_published_pickles_come_before_parquet_files(publish: Publish, server: Server, tmp_path: Path) -> None:
    published = publish("cifar10")
    published.module(tmp_path).split("train")
    server.requests.clear()
    write_parquet(tmp_path / "cifar10", make_content((3, 32, 32), 10, train=3, test=3))
    assert_reads(published.module(tmp_path), published.content)
    assert server.requests == []


def test_a_missing_or_damaged_parquet_file_is_named(publish: Publish, tmp_path: Path) -> None:
    published = publish("cifar10")
    write_parquet(tmp_path / "cifar10", published.content)
    (tmp_path / "cifar10/test.parquet").unlink()
    assert "test.parquet" in refusal(published, tmp_path, "test")
    file = tmp_path / "cifar10/train.parquet"
    file.write_bytes(file.read_bytes()[:200])
    message = refusal(published, tmp_path)
    assert str(file) in message
    assert "download it again" in message


def test_parquet_labels_beyond_the_classes_are_refused(publish: Publish, tmp_path: Path) -> None:
    published = publish("cifar10")
    images, labels = published.content["train"]
    write_parquet(tmp_path / "cifar10", {"train": (images, labels + 5)})
    message = refusal(published, tmp_path)
    assert "label" in message


def test_a_parquet_image_of_another_size_is_named(publish: Publish, tmp_path: Path) -> None:
    published = publish("cifar10")
    images, labels = published.content["train"]
    folder = tmp_path / "cifar10"
    folder.mkdir()
    rows = [{"bytes": encode_png(image), "path": None} for image in images]
    rows[7]["bytes"] = encode_png(images[7][:, :20])
    columns = {"img": pyarrow.array(rows), "label": pyarrow.array(labels.tolist(), pyarrow.int64())}
    parquet.write_table(pyarrow.table(columns), folder / "train.parquet")
    message = refusal(published, tmp_path)
    assert f"{folder / 'train.parquet'} row 7" in message


# SVHN


def test_the_extra_split_of_svhn(publish: Publish, tmp_path: Path) -> None:
    published = publish("svhn")
    data = published.module(tmp_path)
    assert_reads(data, {"extra": published.content["extra"]})
    assert list_files(tmp_path) - {"served"} >= {"svhn/extra_32x32.mat"}
    assert not (tmp_path / "svhn/train_32x32.mat").exists()


@DAMAGE
def test_a_damaged_svhn_file_is_named_and_made_good_as_the_message_says(
    publish: Publish, tmp_path: Path, damage: str
) -> None:
    published = publish("svhn")
    published.module(tmp_path).split("train")
    file = tmp_path / "svhn/train_32x32.mat"
    spoil(file, damage)
    message = refusal(published, tmp_path)
    assert str(file) in message
    assert "delete it" in message
    file.unlink()
    assert_reads(published.module(tmp_path), published.content)


# CelebA


@pytest.mark.parametrize("attribute", ["Smiling", "5_o_Clock_Shadow", "Young"])
def test_an_attribute_of_celeba_labels_the_images(
    publish: Publish, server: Server, tmp_path: Path, attribute: str
) -> None:
    data = publish("celeba").module(tmp_path, attribute=attribute)
    lines = (server.folder / "celeba/list_attr_celeba.txt").read_text().splitlines()
    column = CELEBA_ATTRIBUTES.index(attribute)
    values = [int(line.split()[1 + column]) for line in lines[2:]]
    labels = [read_all(data, split)[1] for split in ("train", "valid", "test")]
    assert np.concatenate(labels).tolist() == [int(value == 1) for value in values]
    assert list(data.class_names) == [f"not {attribute}", attribute]
    assert data.num_classes == 2


def test_celeba_without_attribute_has_no_labels(publish: Publish, tmp_path: Path) -> None:
    data = publish("celeba").module(tmp_path, attribute=None)
    assert data.split("train").labels is None
    assert (data.num_classes, data.label_law) == (0, None)


def test_all_attributes_of_celeba_are_known(publish: Publish, tmp_path: Path) -> None:
    published = publish("celeba")
    assert len(CELEBA_ATTRIBUTES) == 40
    for attribute in CELEBA_ATTRIBUTES:
        assert published.module(tmp_path, attribute=attribute).split("test").labels is not None


@pytest.mark.parametrize(("wrong", "right"), [("smiling", "Smiling"), ("Eyeglases", "Eyeglasses")])
def test_an_unknown_attribute_is_answered_with_one_that_is_near(
    publish: Publish, tmp_path: Path, wrong: str, right: str
) -> None:
    message = refusal(publish("celeba"), tmp_path, attribute=wrong)
    assert repr(wrong) in message
    assert f"Did you mean {right!r}" in message


def test_the_center_crop_of_celeba_is_cut_from_the_middle(publish: Publish, server: Server, tmp_path: Path) -> None:
    published = publish("celeba")
    images, _ = read_all(published.module(tmp_path, center_crop=148, image_size=148), "train")
    with Image.open(tmp_path / "celeba/img_align_celeba/000001.jpg") as image:
        pixels = np.asarray(image)
    # (218 - 148) / 2 and (178 - 148) / 2.
    assert np.array_equal(images[0], pixels[35 : 35 + 148, 15 : 15 + 148].transpose(2, 0, 1))

    small, _ = read_all(published.module(tmp_path, center_crop=148, image_size=64), "train")
    assert torch.equal(torch.from_numpy(small), resize(torch.from_numpy(images), 64, 64))


def test_a_crop_larger_than_celeba_is_refused(publish: Publish, tmp_path: Path) -> None:
    data = publish("celeba").module(tmp_path, center_crop=200)
    with pytest.raises(UserError, match=r"000001\.jpg is 178x218.*data\.center_crop"):
        read_all(data, "train")


def test_a_missing_or_damaged_image_of_celeba_is_named(publish: Publish, tmp_path: Path) -> None:
    data = publish("celeba").module(tmp_path)
    data.split("train")
    image = tmp_path / "celeba/img_align_celeba/000002.jpg"
    image.write_bytes(image.read_bytes()[:500])
    with pytest.raises(UserError, match=r"000002\.jpg is damaged"):
        read_all(data, "train")
    image.unlink()
    with pytest.raises(UserError, match=r"000002\.jpg cannot be read"):
        read_all(data, "train")


CELEBA_LISTS = pytest.mark.parametrize(
    "file",
    [
        "list_attr_celeba.txt",
        "list_eval_partition.txt",
        "list_bbox_celeba.txt",
        "list_landmarks_align_celeba.txt",
        "identity_CelebA.txt",
    ],
)


@CELEBA_LISTS
def test_a_damaged_list_of_celeba_is_named(publish: Publish, tmp_path: Path, file: str) -> None:
    published = publish("celeba")
    published.module(tmp_path).split("train")
    spoil(tmp_path / "celeba" / file, "truncated")
    assert file in refusal(published, tmp_path)


@CELEBA_LISTS
@pytest.mark.parametrize("damage", ["altered", "truncated", "gone"])
def test_a_damaged_list_of_celeba_is_made_good_as_the_message_says(
    publish: Publish, tmp_path: Path, file: str, damage: str
) -> None:
    published = publish("celeba")
    published.module(tmp_path).split("train")
    path = tmp_path / "celeba" / file
    if damage == "gone":
        path.unlink()
        # Either it is downloaded again, or the message says how to have that done.
        with contextlib.suppress(UserError):
            assert_reads(published.module(tmp_path), published.content)
            return
    else:
        spoil(path, damage)
    message = refusal(published, tmp_path)
    assert str(tmp_path / "celeba") in message
    assert "delete" in message
    if "list_*.txt" in message:
        for found in (tmp_path / "celeba").glob("list_*.txt"):
            found.unlink()
    else:
        path.unlink(missing_ok=True)
    assert_reads(published.module(tmp_path), published.content)


# Classes


@pytest.mark.parametrize(
    ("module", "number"),
    [
        (MNISTDataModule, 10),
        (FashionMNISTDataModule, 10),
        (KMNISTDataModule, 10),
        (CIFAR10DataModule, 10),
        (CIFAR100DataModule, 100),
        (SVHNDataModule, 10),
        (CelebADataModule, 0),
    ],
)
def test_each_set_has_its_number_of_classes(module: Any, number: int) -> None:
    data = module("unused")
    assert data.num_classes == len(data.class_names) == len(set(data.class_names)) == number
    assert all(isinstance(name, str) and name for name in data.class_names)


@pytest.mark.parametrize(("part", "number"), EMNIST_CLASSES.items())
def test_each_part_of_emnist_has_its_classes(publish: Publish, tmp_path: Path, part: str, number: int) -> None:
    published = publish(f"emnist_{part}")
    data = published.module(tmp_path)
    assert data.num_classes == len(data.class_names) == len(set(data.class_names)) == number
    assert data.name == f"emnist_{part}"
    assert_reads(data, published.content)
    assert sorted(set(read_all(data, "train")[1].tolist())) == list(range(number))
    assert data.label_law is not None
    assert len(data.label_law) == number


def test_the_classes_of_emnist_are_in_the_order_of_its_mapping() -> None:
    # emnist-<part>-mapping.txt of the published set: ASCII codes by label.
    digits, upper = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert "".join(EMNISTDataModule("x", part="byclass").class_names) == digits + upper + upper.lower()
    assert "".join(EMNISTDataModule("x", part="balanced").class_names) == digits + upper + "abdefghnqrt"
    assert "".join(EMNISTDataModule("x", part="bymerge").class_names) == digits + upper + "abdefghnqrt"
    assert "".join(EMNISTDataModule("x", part="letters").class_names) == upper.lower()
    assert "".join(EMNISTDataModule("x", part="digits").class_names) == digits


def test_an_unknown_part_of_emnist_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.part must be one of .*letters.*, not 'letter'"):
        EMNISTDataModule("unused", part="letter")


def test_emnist_stands_upright(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    # A bar along the top, which the file has along the left.
    bar = np.zeros((1, 1, 28, 28), np.uint8)
    bar[:, :, :4, 2:] = 255
    folder = tmp_path / "EMNIST/raw"
    archive = write_emnist(tmp_path / "zip", {"digits": {"train": (bar, np.zeros(1)), "test": (bar, np.zeros(1))}})
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    shutil.copytree(tmp_path / "unpacked/gzip", folder)
    images, _ = read_all(EMNISTDataModule(str(tmp_path), part="digits", image_size=28), "train")
    assert images[0, 0, 0].tolist() == [0, 0] + [255] * 26
    assert images[0, 0, :, 10].tolist() == [255] * 4 + [0] * 24


@pytest.mark.parametrize(("module", "torchvision_set"), [(CIFAR10DataModule, CIFAR10), (CIFAR100DataModule, CIFAR100)])
def test_the_classes_of_cifar_are_those_of_its_files(
    publish: Publish, tmp_path: Path, module: Any, torchvision_set: Any
) -> None:
    publish(module.name).module(tmp_path).split("train")
    assert list(module.all_class_names) == torchvision_set(tmp_path).classes
    assert list(module.all_class_names) == sorted(module.all_class_names)


def test_cifar_images_are_red_green_blue_from_the_top(publish: Publish, server: Server, tmp_path: Path) -> None:
    published = publish("cifar10")
    images, _ = read_all(published.module(tmp_path), "train")
    with (tmp_path / "cifar-10-batches-py/data_batch_1").open("rb") as file:
        rows = pickle.load(file, encoding="bytes")[b"data"]
    assert images[0, 0, 0].tolist() == rows[0, :32].tolist()
    assert images[0, 1, 1].tolist() == rows[0, 1024 + 32 : 1024 + 64].tolist()
    assert images[0, 2, 31].tolist() == rows[0, -32:].tolist()
    content = io.BytesIO(encode_png(images[0]))
    assert Image.open(content).getpixel((5, 9)) == tuple(rows[0, [9 * 32 + 5 + 1024 * c for c in range(3)]].tolist())
