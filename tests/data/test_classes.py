"""A part of a set's classes, in every split, under labels from zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gen.configuration import compose_config
from lightning_gen.data import ImageDataModule
from lightning_gen.data.batches import SemiSupervisedBatch
from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.sets.derived import InvertedDataModule
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.data.sets.huggingface import HuggingFaceDataModule
from lightning_gen.data.sets.image_folder import ImageFolderDataModule
from lightning_gen.errors import UserError
from lightning_gen.registry import construct
from tests.data.image_files import write_parquet, write_plain


def digits(**options: Any) -> DigitsDataModule:
    return DigitsDataModule("unused", image_size=8, **options)


def in_memory(data: ImageDataModule, split: str) -> ImageSet:
    found = data.split(split)
    assert isinstance(found, ImageSet)
    return found


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("classes", [[7, 2, 5], ["7", "2", "5"], ["7", 2, 5]])
def test_all_splits_hold_the_named_classes_alone_in_their_order(split: str, classes: list[Any]) -> None:
    data, everything = digits(classes=classes), in_memory(digits(), split)
    assert everything.labels is not None
    kept = torch.tensor([label in (2, 5, 7) for label in everything.labels.tolist()]).nonzero().flatten()
    expected = everything.subset(kept)
    found = in_memory(data, split)
    assert torch.equal(found.images, expected.images), "in the order of the set"
    assert expected.labels is not None
    assert found.labels is not None
    assert found.labels.dtype == torch.int64
    assert found.labels.tolist() == [{7: 0, 2: 1, 5: 2}[label] for label in expected.labels.tolist()]
    assert list(data.class_names) == ["7", "2", "5"]
    assert (data.name, data.num_classes) == ("digits", 3)
    assert data.reference_set(split).digest == found.digest != everything.digest


def test_without_the_option_nothing_changes() -> None:
    data = digits()
    assert data.class_names == tuple("0123456789")
    assert data.split("test") is data.split("test")
    assert len(data.split("train")) == 1437


def test_the_law_the_held_out_images_and_the_labels_that_are_kept_are_of_these_classes() -> None:
    data = digits(classes=[5, 6, 7, 8, 9], validation_share=0.2, labelled_per_class=4)
    whole = in_memory(digits(classes=[5, 6, 7, 8, 9]), "train")
    train, val = in_memory(data, "train"), in_memory(data, "val")
    assert len(val) == round(0.2 * len(whole))
    assert len(train) + len(val) == len(whole)
    assert data.label_law is not None
    assert len(data.label_law) == 5
    assert data.labelled_indices is not None
    assert train.labels is not None
    assert torch.bincount(train.labels[data.labelled_indices]).tolist() == [4] * 5
    (columns, *_) = data.train_dataloader()
    batch = data.on_after_batch_transfer(columns, 0)
    assert isinstance(batch, SemiSupervisedBatch)
    assert batch.labelled_labels.max() <= 4


@pytest.mark.parametrize("residency", ["memory", "stream"])
def test_encoded_images_are_chosen_before_they_are_decoded(tmp_path: Path, residency: Any) -> None:
    for name, level in (("ant", 10), ("bee", 20), ("cow", 30)):
        for split in ("train", "test"):
            for number in range(3):
                write_plain(tmp_path / "set" / split / name / f"{number}.png", level + number)
    (tmp_path / "set" / "train" / "ant" / "0.png").write_bytes(b"damaged")
    options: dict[str, Any] = {"cache_dir": str(tmp_path / "cache"), "image_size": 8, "num_workers": 0}
    options |= {"batch_size": 6, "residency": residency}
    data = ImageFolderDataModule("unused", str(tmp_path / "set"), classes=["cow", "bee"], **options)
    assert list(data.class_names) == ["cow", "bee"]
    for split in ("train", "test"):
        found = data.reference_set(split)
        assert found.labels is not None
        pairs = list(zip(found.images[:, 0, 4, 4].tolist(), found.labels.tolist(), strict=True))
        assert pairs == [(20, 1), (21, 1), (22, 1), (30, 0), (31, 0), (32, 0)]
    (columns,) = data.train_dataloader()
    batch = data.on_after_batch_transfer(columns, 0)
    assert batch.labels is not None
    levels = ((batch.images[:, 0, 4, 4] + 1) * 127.5).round()
    assert torch.equal(batch.labels, (levels < 30).long())
    everything = ImageFolderDataModule("unused", str(tmp_path / "set"), **options)
    with pytest.raises(UserError, match="is not an image"):
        everything.reference_set("train")


def test_sets_made_of_others_choose_among_the_classes_of_those() -> None:
    source = {"_target_": "lightning_gen.data.sets.digits.DigitsDataModule", "data_dir": "unused", "image_size": 8}
    for option, names in (({"classes": ["3"]}, ["3"]), ({"classes": [0]}, ["0"])):
        data = InvertedDataModule("unused", source, image_size=8, **option)
        assert list(data.class_names) == names
        assert {int(label) for label in in_memory(data, "train_a").labels} == {0}  # type: ignore[union-attr]
    within = InvertedDataModule("unused", {**source, "classes": [4, 8]}, image_size=8, classes=["8"])
    assert list(within.class_names) == ["8"]
    eights = digits(classes=[8, 4]).split("train").labels
    assert eights is not None
    found = len(within.split("train")) + len(within.split("train_a"))
    assert found == int((eights == 0).sum())


def test_names_come_before_numbers(tmp_path: Path) -> None:
    for name in ("1", "10", "2"):
        write_plain(tmp_path / "set" / name / "0.png", int(name))
    for classes, names in (([2, 0], ["2", "1"]), ([1], ["1"]), (["10"], ["10"])):
        data = ImageFolderDataModule("unused", str(tmp_path / "set"), image_size=8, num_workers=0, classes=classes)
        assert list(data.class_names) == names
        assert data.all_class_names == ["1", "10", "2"]


def test_the_key_is_there_for_every_set() -> None:
    data = construct(compose_config(["data.classes=[1,8]", "data.image_size=8"])["data"], ImageDataModule)  # type: ignore[type-abstract]
    assert list(data.class_names) == ["1", "8"]
    assert data.kept_labels == [1, 8]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], r"data\.classes must be null or a list such as \[0,1\], not \[\]"),
        ("57", r"data\.classes must be null or a list"),
        ([5, 10], r"data\.classes: No class '10': known are 0, 1, 2"),
        ([-1], r"data\.classes: No class '-1'"),
        (["five"], r"data\.classes: No class 'five'"),
        ([3, "3"], r"data\.classes=\[3, '3'\] names a class twice"),
    ],
)
def test_classes_that_mean_nothing_are_refused(classes: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        digits(classes=classes).split("train")


def test_a_set_without_classes_has_none_to_choose(tmp_path: Path) -> None:
    write_plain(tmp_path / "set" / "0.png", 1)
    folder = ImageFolderDataModule("unused", str(tmp_path / "set"), image_size=8, classes=["a"])
    with pytest.raises(UserError, match=r"set has no classes to choose from: unset data\.classes"):
        folder.split("train")
    write_parquet(tmp_path / "hub" / "train.parquet", [(tmp_path / "set" / "0.png").read_bytes()], [None])
    hub = HuggingFaceDataModule("unused", str(tmp_path / "hub"), image_column="img", label_column=None, classes=["a"])
    with pytest.raises(UserError, match="has no classes to choose from"):
        hub.split("train")


def test_a_split_without_these_classes_is_refused(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a"):
        write_plain(tmp_path / "set" / name / "0.png", 1)
    (tmp_path / "set" / "test" / "b").mkdir()
    data = ImageFolderDataModule("unused", str(tmp_path / "set"), image_size=8, classes=["b"], on_error="skip")
    assert len(data.split("train")) == 1
    with pytest.raises(UserError, match=r"b holds no images|leaves a split without images"):
        data.split("test")
