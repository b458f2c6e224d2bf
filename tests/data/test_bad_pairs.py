import logging
from pathlib import Path
from typing import Any

import pytest

from lightning_gen.data.sets.unpaired import UnpairedFoldersDataModule
from tests.data.image_files import (
    plain,
    write_jpeg,
    write_plain,
    write_side_by_side,
)
from tests.data.refusals import (
    levels,
    paired,
    refused,
    truncate,
    write_levels,
)


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


def test_an_unknown_direction_is_refused(tmp_path: Path, cache: dict[str, Any]) -> None:
    with refused("data.direction", "AtoB", "BtoA", "'forward'"):
        paired(two_folders(tmp_path)[0], direction="forward", **cache)
