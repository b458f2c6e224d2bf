from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.errors import UserError
from tests.test_cli import call


def test_data_tells_what_a_set_holds(tmp_path: Path) -> None:
    facts = json.loads(call("data", "digits", "image_size=8", "-o", tmp_path / "digits.png", "--json"))
    assert (facts["name"], facts["num_classes"]) == ("digits", 10)
    splits = facts["splits"]
    assert (splits["train"]["size"], splits["test"]["size"]) == (1437, 360)
    digits = load_digits()
    counts = {
        name: splits["train"]["classes"][name] + splits["test"]["classes"][name] for name in splits["train"]["classes"]
    }
    assert counts == {str(label): int((digits.target == label).sum()) for label in range(10)}
    assert splits["train"]["shape"] == [1, 8, 8]
    assert splits["train"]["digest"] == DigitsDataModule("unused", image_size=8).split("train").digest  # type: ignore[attr-defined]
    pixels = np.rint(digits.images * 255 / 16) / 255
    sizes = np.array([1437, 360]) / 1797
    means = np.array([splits[split]["mean"][0] for split in ("train", "test")])
    deviations = np.array([splits[split]["std"][0] for split in ("train", "test")])
    assert sizes @ means == pytest.approx(pixels.mean(), abs=1e-12)
    assert sizes @ (deviations**2 + means**2) == pytest.approx((pixels**2).mean(), abs=1e-12)
    assert facts["output"] == str(tmp_path / "digits.png")


def test_the_table_names_splits_and_classes(tmp_path: Path) -> None:
    shown = call("data", "digits", "validation_share=0.1", "-o", tmp_path / "grid.png")
    for part in ("train", "val", "test", "1,293", "144", "360", "10 classes: 0 "):
        assert part in shown
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (2 * (8 * 33 - 1),) * 2


def test_pairs_are_drawn_side_by_side(tmp_path: Path) -> None:
    for name in ("edges", "inverted"):
        facts = json.loads(call("data", name, "image_size=16", "-n", 16, "-o", tmp_path / f"{name}.png", "--json"))
        assert facts["name"] == f"{name}_digits"
    inverted = np.asarray(Image.open(tmp_path / "inverted.png").convert("L")).astype(float)
    half = inverted.shape[1] // 2
    assert inverted[:, :half].mean() < 128 < inverted[:, half:].mean()


def test_a_damaged_image_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(5):
        Image.new("RGB", (8, 8), (index * 50, 0, 255)).save(folder / f"{index}.png")
    Image.effect_noise((64, 64), 50).save(folder / "2.png")
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:1000])
    options = ["data", "image_folder", f"path={folder}", f"paths.output_dir={tmp_path}", "image_size=8"]
    with pytest.raises(UserError, match=r"2\.png is damaged"):
        call(*options, "-o", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
    result = json.loads(call(*options, "on_error=skip", "-o", tmp_path / "b.png", "--json"))["splits"]["train"]
    assert (result["size"], result["skipped"]) == (4, 1)
    assert result["mean"] == pytest.approx([(0 + 50 + 150 + 200) / 4 / 255, 0, 1])
    (folder / "2.png").unlink()
    whole = json.loads(call(*options, "-o", tmp_path / "c.png", "--json"))["splits"]["train"]
    assert whole == {**result, "skipped": 0}


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    for arguments, message in (
        (("digitss",), "digits"),
        (("digits", "image_sizes=8"), "Did you mean 'data.image_size'"),
        (("digits", "-o", tmp_path / "grid.jpg"), r"must be a \.png"),
        (("image_folder",), r"data\.path has no default"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            call("data", *arguments)
        assert "\n" not in str(caught.value)
    (tmp_path / "grid.png").write_text("mine")
    with pytest.raises(UserError, match="--force"):
        call("data", "digits", "-o", tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_text() == "mine"
