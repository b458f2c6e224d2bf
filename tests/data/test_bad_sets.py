import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_gen.data.sets.derived import ColorizeDataModule
from lightning_gen.data.sets.huggingface import HuggingFaceDataModule
from lightning_gen.data.sets.lsun import LSUNDataModule
from lightning_gen.data.sets.unpaired import UnpairedFoldersDataModule
from tests.conftest import ROOT
from tests.data.image_files import (
    encode,
    noise,
    write_lmdb,
    write_lsun,
    write_parquet,
)
from tests.data.refusals import (
    cut_off,
    emptied,
    folder_of,
    levels,
    paired,
    png,
    refused,
    replaced_by_text,
    truncate,
    write_levels,
)


def test_a_test_folder_with_a_class_that_train_lacks_is_refused_or_passed_over(
    tmp_path: Path, cache: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "images"
    for name, level in (("train/a", 10), ("train/b", 20), ("test/a", 30), ("test/b", 40), ("test/c", 50)):
        write_levels(folder / name, level)
    data = folder_of(folder, **cache)
    assert len(data.split("train")) == 2
    with refused(str(folder / "test" / "c"), "none of the classes a, b", "set data.on_error=skip"):
        data.split("test")
    with caplog.at_level(logging.WARNING):
        assert levels(folder_of(folder, on_error="skip", **cache).reference_set("test").images) == [30, 40]
    assert str(folder / "test" / "c") in caplog.text


def test_a_folder_without_test_split_is_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    flat = write_levels(tmp_path / "flat", 10, 20)
    with refused(str(flat), "set data.test_share"):
        folder_of(flat, **cache).split("test")
    write_levels(tmp_path / "split" / "train", 10, 20)
    with refused(str(tmp_path / "split"), "no folder test"):
        folder_of(tmp_path / "split", **cache).split("test")
    write_levels(tmp_path / "pairs" / "trainA", 10)
    write_levels(tmp_path / "pairs" / "trainB", 10)
    with refused(str(tmp_path / "pairs"), "testA"):
        paired(tmp_path / "pairs", **cache).split("test")
    with refused(str(tmp_path / "pairs" / "testB")):
        UnpairedFoldersDataModule("unused", str(tmp_path / "pairs"), **cache).split("test")


def test_a_folder_with_a_test_split_only_is_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    write_levels(tmp_path / "images" / "test", 10)
    with refused(str(tmp_path / "images"), "no folder train", "set data.path"):
        folder_of(tmp_path / "images", **cache)


@pytest.mark.parametrize(("number", "share"), [(1, 0.5), (3, 0.9)])
def test_a_test_share_that_leaves_nothing_to_train_on_is_refused(
    tmp_path: Path, cache: dict[str, Any], number: int, share: float
) -> None:
    write_levels(tmp_path / "images", *range(number))
    with refused("data.test_share"):
        folder_of(tmp_path / "images", test_share=share, **cache).split("train")


def hub(path: Path, **options: Any) -> HuggingFaceDataModule:
    return HuggingFaceDataModule("unused", str(path), **{"image_column": "img", **options})


def test_an_unknown_parquet_column_gets_the_near_one_suggested(tmp_path: Path, cache: dict[str, Any]) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", [png(10)], [0])
    with refused(str(tmp_path / "set"), "'imgs'", "data.image_column", "Did you mean 'img'?"):
        hub(tmp_path / "set", image_column="imgs", **cache).split("train")
    with refused(str(tmp_path / "set"), "'labels'", "data.label_column", "Did you mean 'label'?"):
        hub(tmp_path / "set", label_column="labels", **cache).split("train")


@pytest.mark.parametrize("damage", [cut_off, replaced_by_text, emptied])
@pytest.mark.parametrize("name", ["train.parquet", "train-00001-of-00002.parquet"])
def test_a_damaged_parquet_file_is_named(
    tmp_path: Path, cache: dict[str, Any], damage: Callable[[bytes], bytes], name: str
) -> None:
    if name != "train.parquet":
        write_parquet(tmp_path / "set" / "train-00000-of-00002.parquet", [png(10)], [0])
    path = write_parquet(tmp_path / "set" / name, [png(10)], [0])
    path.write_bytes(damage(path.read_bytes()))
    with refused(str(path), "is damaged", "download it again"):
        hub(tmp_path / "set", **cache).split("train")


def test_parquet_files_with_different_columns_are_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    write_parquet(tmp_path / "set" / "train-00000-of-00002.parquet", [png(10)], [0])
    write_parquet(tmp_path / "set" / "train-00001-of-00002.parquet", [png(10)], ["cat"])
    with refused(str(tmp_path / "set"), "different columns"):
        hub(tmp_path / "set", **cache).split("train")


def test_a_folder_without_the_parquet_file_is_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", [png(10)], [0])
    with refused(str(tmp_path / "set"), "test.parquet", "set data.path"):
        hub(tmp_path / "set", **cache).split("test")


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", [], [])
    with refused(str(tmp_path / "set")):
        hub(tmp_path / "set", **cache).split("train")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (encode(noise(40, 40), "PNG")[:2000], "is damaged"),
        (b"text", "is not an image"),
        (None, "holds no image bytes"),
    ],
    ids=["truncated", "text", "missing"],
)
def test_a_broken_or_missing_image_in_a_parquet_file_is_refused_or_skipped(
    tmp_path: Path, cache: dict[str, Any], content: Any, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "set"
    write_parquet(folder / "train.parquet", [png(10), content, png(30)], [0, 1, 2])
    with refused(str(folder), f"row 1 {problem}", "set data.on_error=skip"):
        hub(folder, **cache).reference_set("train")
    with caplog.at_level(logging.WARNING):
        images = hub(folder, on_error="skip", **cache).reference_set("train")
    assert levels(images.images) == [10, 30]
    assert images.labels is not None
    assert images.labels.tolist() == [0, 2]
    assert f"row 1 {problem}" in caplog.text


@pytest.mark.parametrize("labels", [[0, None], [-1, 0], ["cat", None]])
def test_labels_that_are_missing_or_negative_are_refused(tmp_path: Path, cache: dict[str, Any], labels: Any) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", [png(10), png(20)], labels)
    with refused(str(tmp_path / "set"), "'label'", "set data.label_column"):
        hub(tmp_path / "set", **cache).split("train")


@pytest.mark.parametrize(("train", "test"), [([0, 1], [0, 2]), (["cat", "dog"], ["dog", "eel"])])
def test_a_class_that_the_training_split_lacks_is_refused(
    tmp_path: Path, cache: dict[str, Any], train: Any, test: Any
) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", [png(10), png(20)], train)
    write_parquet(tmp_path / "set" / "test.parquet", [png(10), png(20)], test)
    with refused(str(tmp_path / "set"), "'label'"):
        hub(tmp_path / "set", **cache).split("test")


@pytest.mark.parametrize("damage", [replaced_by_text, emptied])
def test_a_bad_lmdb_file_is_named(tmp_path: Path, cache: dict[str, Any], damage: Callable[[bytes], bytes]) -> None:
    folder = write_lmdb(tmp_path / "lsun" / "tower_train_lmdb", [png(10)])
    content = (folder / "data.mdb").read_bytes()
    (folder / "data.mdb").write_bytes(damage(content))
    with refused(str(folder), "no LMDB database", "unpack it anew"):
        LSUNDataModule(str(tmp_path), ["tower"], **cache).split("train")


def test_an_lmdb_file_without_images_is_named(tmp_path: Path, cache: dict[str, Any]) -> None:
    folder = write_lmdb(tmp_path / "lsun" / "tower_train_lmdb", [])
    with refused(str(folder), "holds no images", "unpack it anew"):
        LSUNDataModule(str(tmp_path), ["tower"], **cache).split("train")


READ_TRUNCATED = """
import sys
from lightning_gen.data.sets.lsun import LSUNDataModule
from lightning_gen.errors import UserError
try:
    LSUNDataModule(sys.argv[1], ["tower"], cache_dir=sys.argv[1], image_size=8, num_workers=0).reference_set("train")
except UserError as error:
    print("refused:", error)
"""


def test_a_truncated_lmdb_file_is_named_and_does_not_kill_the_process(tmp_path: Path) -> None:
    values = [encode(noise(40, 40, seed=number), "PNG") for number in range(40)]
    folder = write_lmdb(tmp_path / "lsun" / "tower_train_lmdb", values)
    truncate(folder / "data.mdb")
    # In a process of its own: memory that is mapped beyond the end of a file is a bus error.
    command = [sys.executable, "-c", READ_TRUNCATED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused: ")
    assert str(folder) in done.stdout


def test_a_missing_lsun_class_is_named(tmp_path: Path, cache: dict[str, Any]) -> None:
    write_lsun(tmp_path / "lsun", "tower", [png(10)])
    data = LSUNDataModule(str(tmp_path), ["tower", "bridge"], **cache)
    with refused("bridge", str(tmp_path / "lsun" / "bridge_train_lmdb"), "unpack", "set paths.data_dir"):
        data.split("train")
    with refused(str(tmp_path / "lsun" / "tower_val_lmdb"), "unpack"):
        LSUNDataModule(str(tmp_path), ["tower"], **cache).split("test")


@pytest.mark.parametrize("classes", [[], "tower"])
def test_lsun_classes_must_be_a_list(tmp_path: Path, cache: dict[str, Any], classes: Any) -> None:
    with refused("data.classes must be a list"):
        LSUNDataModule(str(tmp_path), classes, **cache)


def test_a_broken_image_in_an_lmdb_file_is_refused_or_skipped(
    tmp_path: Path, cache: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_lmdb(tmp_path / "lsun" / "tower_train_lmdb", [png(10), b"no image", png(30)])
    with refused(str(folder), f"key {1:040x}", "set data.on_error=skip"):
        LSUNDataModule(str(tmp_path), ["tower"], **cache).reference_set("train")
    with caplog.at_level(logging.WARNING):
        data = LSUNDataModule(str(tmp_path), ["tower"], on_error="skip", **cache)
        assert levels(data.reference_set("train").images) == [10, 30]
    assert f"key {1:040x} is not an image" in caplog.text


def test_colorize_of_a_grey_set_is_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    digits = {"_target_": "lightning_gen.data.sets.digits.DigitsDataModule", "data_dir": "unused", "image_size": 8}
    with refused("digits is grey", "data@data.source"):
        ColorizeDataModule("unused", digits, **cache)
    folder = write_levels(tmp_path / "images", 10)
    grey = {
        "_target_": "lightning_gen.data.sets.image_folder.ImageFolderDataModule",
        "data_dir": "unused",
        "path": str(folder),
        "channels": 1,
        "image_size": 8,
    }
    with refused("images is grey", "data@data.source"):
        ColorizeDataModule("unused", grey, **cache)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop": "left"}, ("data.crop", "center", "random", "'left'")),
        ({"on_error": "ignore"}, ("data.on_error", "raise", "skip", "'ignore'")),
        ({"labels": "files"}, ("data.labels", "auto", "folders", "none", "'files'")),
        ({"residency": "disk"}, ("data.residency", "auto", "device", "memory", "stream", "'disk'")),
        ({"channels": 4}, ("data.channels", "1 or 3", "4")),
        ({"test_share": 1.0}, ("data.test_share", "1.0")),
        ({"test_share": -0.1}, ("data.test_share", "-0.1")),
        ({"validation_share": 1.5}, ("data.validation_share", "1.5")),
        ({"image_size": 0}, ("data.image_size", "0")),
        ({"num_workers": -1}, ("data.num_workers", "-1")),
        ({"center_crop": 0}, ("data.center_crop", "0")),
    ],
    ids=lambda value: "=".join(map(str, next(iter(value.items())))) if isinstance(value, dict) else "",
)
def test_unknown_options_are_refused(
    tmp_path: Path, cache: dict[str, Any], options: dict[str, Any], words: tuple[str, ...]
) -> None:
    folder = write_levels(tmp_path / "images", 10)
    with refused(*words):
        folder_of(folder, **{**cache, **options})


def test_labels_by_folders_need_folders(tmp_path: Path, cache: dict[str, Any]) -> None:
    folder = write_levels(tmp_path / "images", 10)
    with refused(str(folder), "set data.labels=none"):
        folder_of(folder, labels="folders", **cache)


def test_random_crops_cannot_be_kept(tmp_path: Path, cache: dict[str, Any]) -> None:
    folder = write_levels(tmp_path / "images", 10, 20, 30, 40)
    with refused("data.crop=random", "set data.residency=stream"):
        folder_of(folder, crop="random", **{**cache, "residency": "memory"}).train_dataloader()
