import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_gen.data.description import describe_split
from lightning_gen.data.sets.image_folder import ImageFolderDataModule
from lightning_gen.data.sets.paired import PairedDataModule
from lightning_gen.data.sets.unpaired import UnpairedFoldersDataModule
from tests.data.image_files import (
    noise,
    write,
    write_animated_gif,
    write_jpeg,
    write_plain,
)
from tests.data.refusals import (
    folder_of,
    levels,
    refused,
    truncate,
    write_levels,
)


def truncated_jpeg(path: Path) -> None:
    truncate(write_jpeg(path, noise(64, 64)))


def jpeg_without_its_last_bytes(path: Path) -> None:
    truncate(write_jpeg(path, noise(64, 64)), 0.98)


def jpeg_overwritten_in_the_header(path: Path) -> None:
    content = bytearray(write_jpeg(path, noise(64, 64)).read_bytes())
    content[20:600] = bytes(580)
    path.write_bytes(content)


def empty_file(path: Path) -> None:
    write(path, b"")


def text(path: Path) -> None:
    write(path, b"<html>404 not found</html>\n")


broken = pytest.mark.parametrize(
    "break_it", [truncated_jpeg, jpeg_without_its_last_bytes, jpeg_overwritten_in_the_header, empty_file, text]
)


def folder_with_a_broken_image(tmp_path: Path, break_it: Callable[[Path], None]) -> Path:
    folder = write_levels(tmp_path / "images", 10, 20, 30, 40)
    break_it(folder / "025.jpg")
    return folder


@broken
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_is_named(
    tmp_path: Path, cache: dict[str, Any], break_it: Callable[[Path], None], num_workers: int
) -> None:
    folder = folder_with_a_broken_image(tmp_path, break_it)
    data = folder_of(folder, **{**cache, "num_workers": num_workers})
    with refused(str(folder / "025.jpg"), "set data.on_error=skip"):
        data.reference_set("train")
    leftovers = [path.name for path in (tmp_path / "cache" / "decoded").iterdir() if path.suffix != ".lock"]
    assert leftovers == []


def test_a_text_file_with_the_name_of_a_jpeg_is_not_called_damaged(tmp_path: Path, cache: dict[str, Any]) -> None:
    folder = folder_with_a_broken_image(tmp_path, text)
    with refused("025.jpg is not an image"):
        folder_of(folder, **cache).reference_set("train")


@broken
def test_a_broken_image_stops_training_with_its_name(
    tmp_path: Path, cache: dict[str, Any], break_it: Callable[[Path], None]
) -> None:
    folder = folder_with_a_broken_image(tmp_path, break_it)
    for residency in ("stream", "memory"):
        with refused(str(folder / "025.jpg"), "set data.on_error=skip"):
            list(folder_of(folder, **{**cache, "residency": residency, "batch_size": 5}).train_dataloader())


@broken
def test_a_broken_image_that_is_skipped_is_left_out_reported_and_counted(
    tmp_path: Path, cache: dict[str, Any], break_it: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_with_a_broken_image(tmp_path, break_it)
    data = folder_of(folder, on_error="skip", **cache)
    with caplog.at_level(logging.WARNING):
        reference = data.reference_set("train")
    assert levels(reference.images) == [10, 20, 30, 40]
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2
    assert warnings[0].startswith("skipped: ")
    assert str(folder / "025.jpg") in warnings[0]
    assert warnings[1] == "images-train: 1 of 5 images were damaged and skipped"
    (facts,) = (tmp_path / "cache" / "decoded").glob("*/facts.json")
    assert json.loads(facts.read_text())["skipped"] == 1
    again = folder_of(folder, on_error="skip", **cache)
    # Workers report the damage to this process.
    described = describe_split(again.split("train"), [], 1)
    assert (described["size"], described["skipped"]) == (4, 1)
    assert described["digest"] == reference.digest


@broken
def test_a_broken_image_that_is_skipped_is_replaced_in_streamed_batches(
    tmp_path: Path, cache: dict[str, Any], break_it: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_with_a_broken_image(tmp_path, break_it)
    data = folder_of(folder, on_error="skip", **{**cache, "residency": "stream", "batch_size": 5})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            ((batch,),) = list(data.train_dataloader())
            assert batch.images.shape == (5, 3, 8, 8)
            # In its place stands the next one.
            assert sorted(levels(batch.images)) == [10, 20, 30, 30, 40]
    assert len([record for record in caplog.records if "025.jpg" in record.getMessage()]) == 1


def test_the_label_of_a_replaced_image_is_that_of_what_stands_in_its_place(
    tmp_path: Path, cache: dict[str, Any]
) -> None:
    write_levels(tmp_path / "images" / "a", 10, 20)
    truncated_jpeg(tmp_path / "images" / "a" / "last.jpg")
    write_levels(tmp_path / "images" / "b", 130, 140)
    data = folder_of(tmp_path / "images", on_error="skip", **{**cache, "residency": "stream", "batch_size": 5})
    ((batch,),) = list(data.train_dataloader())
    assert batch.labels is not None
    assert sorted(zip(levels(batch.images), batch.labels.tolist(), strict=True)) == [
        (10, 0),
        (20, 0),
        (130, 1),
        (130, 1),
        (140, 1),
    ]
    kept = data.reference_set("train")
    assert kept.labels is not None
    assert (levels(kept.images), kept.labels.tolist()) == ([10, 20, 130, 140], [0, 0, 1, 1])


def test_a_broken_image_that_is_skipped_is_left_out_of_training_from_memory(
    tmp_path: Path, cache: dict[str, Any]
) -> None:
    folder = folder_with_a_broken_image(tmp_path, truncated_jpeg)
    data = folder_of(folder, on_error="skip", **{**cache, "residency": "memory"})
    ((batch,),) = list(data.train_dataloader())
    assert sorted(levels(batch.images)) == [10, 20, 30, 40]


def test_batches_for_evaluation_leave_a_broken_image_out(tmp_path: Path, cache: dict[str, Any]) -> None:
    folder = folder_with_a_broken_image(tmp_path, truncated_jpeg)
    data = folder_of(folder, on_error="skip", **cache)
    assert [levels(batch.images) for (batch,) in data.ordered_batches("train")] == [[10, 20, 30], [40]]


def test_a_folder_of_nothing_but_broken_images_is_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    for number in range(4):
        truncated_jpeg(tmp_path / "images" / f"{number}.jpg")
    for call in (
        lambda data: data.reference_set("train"),
        lambda data: list(data.train_dataloader()),
    ):
        data = folder_of(tmp_path / "images", on_error="skip", **{**cache, "residency": "stream"})
        with refused(str(tmp_path / "images")):
            call(data)


def test_a_file_that_vanishes_is_named(tmp_path: Path, cache: dict[str, Any]) -> None:
    folder = write_levels(tmp_path / "images", 10, 20, 30)
    data = folder_of(folder, **cache)
    assert len(data.split("train")) == 3
    (folder / "020.png").unlink()
    with refused(str(folder / "020.png"), "cannot be read"):
        data.reference_set("train")


def test_a_link_to_nothing_is_refused_or_skipped(
    tmp_path: Path, cache: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_levels(tmp_path / "images", 10, 30)
    (folder / "020.png").symlink_to(tmp_path / "gone.png")
    with caplog.at_level(logging.WARNING):
        images = folder_of(folder, on_error="skip", **cache).reference_set("train").images
    assert levels(images) == [10, 30]
    assert str(folder / "020.png") in caplog.text
    with refused(str(folder / "020.png")):
        folder_of(folder, **cache).reference_set("train")


def test_a_file_that_is_no_image_is_refused_or_passed_over(
    tmp_path: Path, cache: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_levels(tmp_path / "images", 10, 20)
    note = write(folder / "015.txt", b"a note")
    with refused(str(note), "not an image file", "set data.on_error=skip"):
        folder_of(folder, **cache).split("train")
    with caplog.at_level(logging.WARNING):
        data = folder_of(folder, on_error="skip", **cache)
        assert levels(data.reference_set("train").images) == [10, 20]
    assert [record.getMessage() for record in caplog.records] == [f"skipped: {note} is not an image file"]


def test_a_file_beside_the_classes_is_refused_or_passed_over(
    tmp_path: Path, cache: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "images"
    write_levels(folder / "a", 10)
    write_levels(folder / "b", 20)
    stray = write_plain(folder / "stray.png", 30)
    with refused(str(stray), "set data.on_error=skip"):
        folder_of(folder, **cache).split("train")
    with caplog.at_level(logging.WARNING):
        assert levels(folder_of(folder, on_error="skip", **cache).reference_set("train").images) == [10, 20]
    assert str(stray) in caplog.text


@pytest.mark.parametrize("classes", [(), ("a", "b")])
def test_what_desktops_leave_in_folders_is_passed_over(
    tmp_path: Path, cache: dict[str, Any], classes: tuple[str, ...]
) -> None:
    folder = tmp_path / "images"
    for place in (folder, *(folder / name for name in classes)):
        write(place / ".DS_Store", b"x")
        write(place / "Thumbs.db", b"x")
        write(place / ".hidden" / "image.png", b"x")
    for place in [folder / name for name in classes] or [folder]:
        write_levels(place, 10)
    assert set(levels(folder_of(folder, **cache).reference_set("train").images)) == {10}


def test_an_empty_folder_is_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    (tmp_path / "images").mkdir()
    with refused(str(tmp_path / "images"), "holds no images", "set data.path"):
        folder_of(tmp_path / "images", **cache).split("train")


def test_an_empty_class_folder_is_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    write_levels(tmp_path / "images" / "a", 10)
    (tmp_path / "images" / "b").mkdir()
    with refused(str(tmp_path / "images" / "b"), "holds no images"):
        folder_of(tmp_path / "images", **cache).split("train")


@pytest.mark.parametrize("module", [ImageFolderDataModule, PairedDataModule, UnpairedFoldersDataModule])
@pytest.mark.parametrize("name", ["missing", "missing.zip", "file.txt"])
def test_a_missing_folder_is_named(tmp_path: Path, cache: dict[str, Any], module: Any, name: str) -> None:
    write(tmp_path / "file.txt", b"x")
    with refused(str(tmp_path / name), "no folder or archive", "set data.path"):
        module("unused", str(tmp_path / name), **cache)


def test_an_animated_gif_is_refused_or_skipped(
    tmp_path: Path, cache: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_levels(tmp_path / "images", 10, 20)
    write_animated_gif(folder / "015.gif", frames=3)
    with refused(str(folder / "015.gif"), "3 frames", "set data.on_error=skip"):
        folder_of(folder, **cache).reference_set("train")
    with caplog.at_level(logging.WARNING):
        assert levels(folder_of(folder, on_error="skip", **cache).reference_set("train").images) == [10, 20]
    assert "015.gif has 3 frames" in caplog.text


def test_an_image_smaller_than_the_center_crop_is_refused_or_skipped(tmp_path: Path, cache: dict[str, Any]) -> None:
    folder = write_levels(tmp_path / "images", 10, 20)
    write_plain(folder / "015.png", 15, height=4)
    with refused(str(folder / "015.png"), "data.center_crop=6"):
        folder_of(folder, center_crop=6, **cache).reference_set("train")
    data = folder_of(folder, center_crop=6, on_error="skip", **cache)
    assert levels(data.reference_set("train").images) == [10, 20]
