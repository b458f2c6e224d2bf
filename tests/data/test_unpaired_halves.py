from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_gen.data import PairBatch
from lightning_gen.data.sets.unpaired_halves import UnpairedHalvesDataModule
from lightning_gen.images import to_uint8
from tests.data.image_files import write_side_by_side


def halves(tmp_path: Path, **options: Any) -> UnpairedHalvesDataModule:
    """Seven training pairs 0 to 6 of grey level n and 100 + n, and two test pairs 7 and 8."""
    for number in range(9):
        split = "train" if number < 7 else "val"
        a, b = (np.full((8, 8, 3), level, np.uint8) for level in (number, 100 + number))
        write_side_by_side(tmp_path / "set" / split / f"{number}.png", a, b)
    common = {"cache_dir": str(tmp_path / "cache"), "image_size": 8, "num_workers": 0, "batch_size": 3}
    return UnpairedHalvesDataModule("unused", str(tmp_path / "set"), **{**common, **options})


def levels(images: Any) -> list[int]:
    return images[:, 0, 4, 4].tolist()


def test_inputs_of_one_half_are_trained_on_beside_outputs_of_the_other(tmp_path: Path) -> None:
    data = halves(tmp_path)
    data.check()
    assert data.name == "set_AtoB_halves"
    assert not data.paired
    assert data.image_shape == data.input_shape == (3, 8, 8)
    assert levels(data.input_set("train").images) == [0, 1, 2]
    assert levels(data.reference_set("train").images) == [103, 104, 105, 106]
    assert levels(data.input_set("test").images) == [7, 8]
    assert levels(data.reference_set("test").images) == [107, 108]


def test_the_direction_turns_the_domains_round(tmp_path: Path) -> None:
    data = halves(tmp_path, direction="BtoA")
    assert levels(data.input_set("train").images) == [100, 101, 102]
    assert levels(data.reference_set("train").images) == [3, 4, 5, 6]


@pytest.mark.parametrize("residency", ["memory", "stream"])
def test_no_image_meets_its_partner(tmp_path: Path, residency: str) -> None:
    data = halves(tmp_path, residency=residency)
    for columns in data.train_dataloader():
        batch = data.on_after_batch_transfer(columns, 0)
        assert isinstance(batch, PairBatch)
        assert set(levels(to_uint8(batch.images_a))) <= {0, 1, 2}
        assert set(levels(to_uint8(batch.images_b))) <= {103, 104, 105, 106}
