import io
import json
import logging
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gen.data.description import describe_split
from lightning_gen.data.formats.archives import unpack
from lightning_gen.data.sets.derived import ColorizeDataModule
from lightning_gen.data.sets.huggingface import HuggingFaceDataModule
from lightning_gen.data.sets.image_folder import ImageFolderDataModule
from lightning_gen.data.sets.lsun import LSUNDataModule
from lightning_gen.data.sets.paired import PairedDataModule
from lightning_gen.data.sets.unpaired import UnpairedFoldersDataModule
from lightning_gen.errors import UserError
from tests.conftest import ROOT
from tests.data.image_files import (
    encode,
    noise,
    plain,
    write,
    write_animated_gif,
    write_jpeg,
    write_lmdb,
    write_lsun,
    write_parquet,
    write_plain,
    write_side_by_side,
)

REMEDY = r"\b(set|remove|replace|download|unpack|lower|choose|make|must be|delete|Did you mean|Known)\b"


@contextmanager
def refused(*words: str) -> Iterator[None]:
    """Inside, a UserError must be raised, of one line that has these words and says what to do."""
    with pytest.raises(UserError) as caught:
        yield
    check_message(caught.value, *words)


def check_message(error: UserError, *words: str) -> None:
    message = str(error)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message
    assert re.search(REMEDY, message), f"says not what to do: {message}"


@pytest.fixture
def cache(tmp_path: Path) -> dict[str, Any]:
    """Options of every data module here: small images, decoded in this process."""
    return {"cache_dir": str(tmp_path / "cache"), "image_size": 8, "num_workers": 0, "batch_size": 4}


def folder_of(path: Path, **options: Any) -> ImageFolderDataModule:
    return ImageFolderDataModule("unused", str(path), **options)


def levels(images: torch.Tensor) -> list[int]:
    """The grey level of each image."""
    return images[:, 0, 4, 4].tolist()


def write_levels(folder: Path, *numbers: int) -> Path:
    """PNGs of one level each, named by it."""
    for level in numbers:
        write_plain(folder / f"{level:03}.png", level)
    return folder


def truncate(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


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
    assert len(warnings) == 1
    assert warnings[0].startswith("skipped: ")
    assert str(folder / "025.jpg") in warnings[0]
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


def paired(path: Path, **options: Any) -> PairedDataModule:
    return PairedDataModule("unused", str(path), **options)


def test_side_by_side_images_of_odd_width_are_refused_or_skipped(
    tmp_path: Path, cache: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    write_side_by_side(tmp_path / "set" / "train" / "1.jpg", plain(10), plain(20))
    odd = write_side_by_side(tmp_path / "set" / "train" / "2.jpg", plain(10), plain(20, width=9))
    with refused(str(odd), "17 pixels wide", "set data.on_error=skip"):
        paired(tmp_path / "set", **cache).reference_set("train")
    with caplog.at_level(logging.WARNING):
        assert len(paired(tmp_path / "set", on_error="skip", **cache).reference_set("train")) == 1
    assert str(odd) in caplog.text


def two_folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    folder = tmp_path / "set"
    return folder, write_levels(folder / "trainA", 10, 20, 30), write_levels(folder / "trainB", 10, 20, 30)


def test_partners_of_unequal_sizes_are_refused_or_skipped(
    tmp_path: Path, cache: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder, a, b = two_folders(tmp_path)
    write_plain(b / "020.png", 20, height=12)
    with refused(str(a / "020.png"), str(b / "020.png"), "8x8 and 8x12", "set data.on_error=skip"):
        paired(folder, **cache).reference_set("train")
    with caplog.at_level(logging.WARNING):
        data = paired(folder, on_error="skip", **cache)
        assert levels(data.reference_set("train").images) == [10, 30]
        assert levels(data.input_set("train").images) == [10, 30]
    assert str(b / "020.png") in caplog.text


@pytest.mark.parametrize("missing", ["trainA", "trainB"])
def test_a_file_without_partner_is_refused_or_passed_over(
    tmp_path: Path, cache: dict[str, Any], missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, a, b = two_folders(tmp_path)
    (folder / missing / "020.png").unlink()
    left = (b if missing == "trainA" else a) / "020.png"
    with refused(str(left), "no partner", str(folder / missing), "set data.on_error=skip"):
        paired(folder, **cache).split("train")
    with caplog.at_level(logging.WARNING):
        data = paired(folder, on_error="skip", **cache)
        assert levels(data.reference_set("train").images) == levels(data.input_set("train").images) == [10, 30]
    assert str(left) in caplog.text


def test_a_broken_partner_is_named_and_the_pair_skipped(tmp_path: Path, cache: dict[str, Any]) -> None:
    folder, _, b = two_folders(tmp_path)
    truncate(b / "020.png")
    with refused(str(b / "020.png"), "set data.on_error=skip"):
        paired(folder, **cache).reference_set("train")
    data = paired(folder, on_error="skip", **cache)
    assert levels(data.reference_set("train").images) == levels(data.input_set("train").images) == [10, 30]


def test_two_files_with_one_stem_are_refused_or_the_second_passed_over(
    tmp_path: Path, cache: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder, a, _ = two_folders(tmp_path)
    second = write_jpeg(a / "020.webp", plain(99))
    with refused(str(second), "same stem as 020.png", "set data.on_error=skip"):
        paired(folder, **cache).split("train")
    with caplog.at_level(logging.WARNING):
        data = paired(folder, on_error="skip", **cache)
        assert levels(data.input_set("train").images) == [10, 20, 30]
    assert str(second) in caplog.text


def test_folders_with_no_stem_in_common_are_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    write_levels(tmp_path / "set" / "trainA", 10)
    write_levels(tmp_path / "set" / "trainB", 20)
    with refused(str(tmp_path / "set" / "trainA"), str(tmp_path / "set" / "trainB")):
        paired(tmp_path / "set", on_error="skip", **cache).split("train")


def test_a_folder_without_partner_is_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    write_levels(tmp_path / "set" / "trainA", 10)
    with refused(str(tmp_path / "set" / "trainB")):
        paired(tmp_path / "set", **cache).split("train")


def test_a_folder_in_no_known_layout_of_pairs_is_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    write_levels(tmp_path / "set", 10)
    with refused(str(tmp_path / "set"), "trainA"):
        paired(tmp_path / "set", **cache).split("train")


def test_an_unpaired_set_without_one_of_its_folders_is_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    write_levels(tmp_path / "set" / "trainA", 10)
    data = UnpairedFoldersDataModule("unused", str(tmp_path / "set"), **cache)
    with refused(str(tmp_path / "set" / "trainB"), "set data.path"):
        data.split("train")


def make_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    compression = path.suffix[1:].replace("tar", "").replace("tgz", "gz")
    level = {"compresslevel": 1} if compression in ("gz", "bz2") else {}
    with tarfile.open(path, f"w:{compression}", **level) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            facts = tarfile.TarInfo(name)
            facts.size = len(content)
            archive.addfile(facts, io.BytesIO(content))
    return path


def make_archive(path: Path, members: Mapping[str, bytes]) -> Path:
    return (make_zip if path.suffix == ".zip" else make_tar)(path, members)


def png(level: int) -> bytes:
    return encode(plain(level), "PNG")


GOOD = {f"{name}/{level:03}.png": png(level) for name, level in (("a", 10), ("a", 20), ("b", 30), ("b", 40))}
KINDS = ("zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz")


@pytest.mark.parametrize("top", ["", "photos/"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_good_archive_is_the_same_as_its_folder(tmp_path: Path, cache: dict[str, Any], kind: str, top: str) -> None:
    for name, content in GOOD.items():
        write(tmp_path / "photos" / name, content)
    folder = folder_of(tmp_path / "photos", **cache)
    path = make_archive(tmp_path / f"photos.{kind}", {top + name: content for name, content in GOOD.items()})
    packed = folder_of(path, **cache)
    assert packed.class_names == folder.class_names == ["a", "b"]
    images, wanted = packed.reference_set("train"), folder.reference_set("train")
    assert images.digest == wanted.digest
    assert levels(images.images) == [10, 20, 30, 40]
    assert images.labels is not None
    assert images.labels.tolist() == [0, 0, 1, 1]


def test_an_archive_is_unpacked_once_and_anew_when_it_changes(tmp_path: Path, cache: dict[str, Any]) -> None:
    path = make_zip(tmp_path / "photos.zip", GOOD)
    unpacked = folder_of(path, **cache).path
    assert str(unpacked).startswith(cache["cache_dir"])
    write(unpacked / "a" / "mark.png", png(50))
    assert 50 in levels(folder_of(path, **cache).reference_set("train").images)
    make_zip(path, {**GOOD, "b/060.png": png(60)})
    assert levels(folder_of(path, **cache).reference_set("train").images) == [10, 20, 30, 40, 60]


@pytest.mark.parametrize("top", ["", "photos/"])
def test_the_name_of_a_set_does_not_tell_when_its_archive_was_written(
    tmp_path: Path, cache: dict[str, Any], top: str
) -> None:
    path = make_zip(tmp_path / "photos.zip", {top + name: content for name, content in GOOD.items()})
    name = folder_of(path, **cache).name
    assert name.startswith("photos")
    os.utime(path, (10**9, 10**9))
    assert folder_of(path, **cache).name == name


def test_what_macos_adds_to_a_zip_is_no_class(tmp_path: Path, cache: dict[str, Any]) -> None:
    additions = {f"__MACOSX/{name.replace('/', '/._')}": b"\0\5\x16\7" for name in GOOD}
    data = folder_of(make_zip(tmp_path / "photos.zip", {**GOOD, **additions}), **cache)
    assert data.class_names == ["a", "b"]
    assert levels(data.reference_set("train").images) == [10, 20, 30, 40]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_of_pairs_with_a_training_split_only_is_the_same_as_its_folder(
    tmp_path: Path, cache: dict[str, Any], kind: str
) -> None:
    picture = write_side_by_side(tmp_path / "set" / "train" / "1.png", plain(10), plain(20))
    path = make_archive(tmp_path / f"set.{kind}", {"train/1.png": picture.read_bytes()})
    assert (
        paired(path, **cache).reference_set("train").digest
        == paired(tmp_path / "set", **cache).reference_set("train").digest
    )


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".lock"}


OUTSIDE = ["../evil.png", "a/../../evil.png", "../../../evil.png"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("member", [*OUTSIDE, "ABSOLUTE"])
def test_an_archive_with_a_member_outside_its_folder_writes_nothing_there(
    tmp_path: Path, cache: dict[str, Any], kind: str, member: str
) -> None:
    member = member.replace("ABSOLUTE", str(tmp_path / "evil.png"))
    path = make_archive(tmp_path / f"photos.{kind}", {**GOOD, member: png(66), "b/050.png": png(50)})
    before = everything_below(tmp_path)
    if kind != "zip" and member.startswith("/"):
        # As tar itself does, the leading slash is dropped: it is then a file inside.
        unpack(path, tmp_path / "cache" / "unpacked" / "photos")
        assert not (tmp_path / "evil.png").exists()
        return
    with pytest.raises(UserError) as caught:
        folder_of(path, **cache)
    assert everything_below(tmp_path) - before <= {"cache", "cache/unpacked"}
    check_message(caught.value, str(path), "outside its folder")


@pytest.mark.parametrize("target", ["../..", "/", "../../evil.png"])
def test_a_tar_with_a_link_out_of_its_folder_writes_nothing_there(
    tmp_path: Path, cache: dict[str, Any], target: str
) -> None:
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, target
        archive.addfile(link)
        file = tarfile.TarInfo("link/evil.png")
        file.size = 4
        archive.addfile(file, io.BytesIO(b"evil"))
    before = everything_below(tmp_path)
    with pytest.raises(UserError) as caught:
        folder_of(path, **cache)
    assert everything_below(tmp_path) - before <= {"cache", "cache/unpacked"}
    check_message(caught.value, str(path), "outside its folder")


def noisy() -> dict[str, bytes]:
    """Members that no compression makes small, so that damage in the middle hits one of them; several blocks of bz2."""
    return {f"a/{number}.bmp": encode(noise(120, 120, seed=number), "BMP") for number in range(8)}


def cut_off(content: bytes) -> bytes:
    return content[: len(content) // 2]


def overwritten(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(200) + content[middle + 200 :]


def replaced_by_text(content: bytes) -> bytes:
    return b"<html>404 not found</html>\n" * (len(content) // 1000)


def emptied(content: bytes) -> bytes:
    del content
    return b""


# A plain tar has no checksum of its members, so what is overwritten in the middle of one cannot be told.
DAMAGES = [
    (kind, damage)
    for kind in KINDS
    for damage in (cut_off, overwritten, replaced_by_text, emptied)
    if (kind, damage) != ("tar", overwritten)
]


@pytest.mark.parametrize(("kind", "damage"), DAMAGES)
def test_a_damaged_archive_is_named_and_leaves_nothing(
    tmp_path: Path, cache: dict[str, Any], kind: str, damage: Callable[[bytes], bytes]
) -> None:
    path = make_archive(tmp_path / f"photos.{kind}", noisy())
    path.write_bytes(damage(path.read_bytes()))
    with refused(str(path), "download it again"):
        folder_of(path, **cache)
    assert [place.name for place in (tmp_path / "cache" / "unpacked").iterdir() if place.suffix != ".lock"] == []


def test_a_tar_with_a_damaged_header_in_its_middle_does_not_lose_files_silently(
    tmp_path: Path, cache: dict[str, Any]
) -> None:
    path = make_tar(tmp_path / "photos.tar", GOOD)
    content = bytearray(path.read_bytes())
    second = content.index(b"a/020.png")
    content[second + 148 : second + 156] = b"7777777\0"
    path.write_bytes(content)
    with refused(str(path), "download it again"):
        folder_of(path, **cache)


def test_an_encrypted_zip_is_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    path = make_zip(tmp_path / "photos.zip", GOOD)
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = content.find(signature)
        while start >= 0:
            content[start + flags] |= 1
            start = content.find(signature, start + 4)
    path.write_bytes(content)
    with refused(str(path)):
        folder_of(path, **cache)


def test_an_archive_without_images_is_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    path = make_zip(tmp_path / "photos.zip", {})
    with refused("photos.zip"):
        folder_of(path, **cache).split("train")


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


def test_an_unknown_direction_is_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    with refused("data.direction", "AtoB", "BtoA", "'forward'"):
        paired(two_folders(tmp_path)[0], direction="forward", **cache)


def test_labels_by_folders_need_folders(tmp_path: Path, cache: dict[str, Any]) -> None:
    folder = write_levels(tmp_path / "images", 10)
    with refused(str(folder), "set data.labels=none"):
        folder_of(folder, labels="folders", **cache)


def test_random_crops_cannot_be_kept(tmp_path: Path, cache: dict[str, Any]) -> None:
    folder = write_levels(tmp_path / "images", 10, 20, 30, 40)
    with refused("data.crop=random", "set data.residency=stream"):
        folder_of(folder, crop="random", **{**cache, "residency": "memory"}).train_dataloader()
