import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lightning_gen.data.formats.archives import unpack
from lightning_gen.errors import UserError
from tests.data.image_files import (
    encode,
    noise,
    plain,
    write,
    write_side_by_side,
)
from tests.data.refusals import (
    check_message,
    cut_off,
    emptied,
    folder_of,
    levels,
    overwritten,
    paired,
    png,
    refused,
    replaced_by_text,
)


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
