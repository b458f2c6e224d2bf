"""Large-scale Scene Understanding: scenes and objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lightning_gen.data.encoded_module import EncodedDataModule
from lightning_gen.data.encoded_set import EncodedSet
from lightning_gen.data.formats.lmdb_records import LMDBRecords
from lightning_gen.errors import UserError

SOURCE = "http://dl.yf.io/lsun"


class LSUNDataModule(EncodedDataModule):
    """LSUN (Yu et al. 2015), from the official LMDB files, each class a label.

    Scenes are read from ``data_dir/lsun/<class>_train_lmdb`` and ``<class>_val_lmdb`` (300 images a class, the split
    ``test`` here), objects from ``data_dir/lsun/<class>``, which has training images only. The files take up to 43 GB a
    class, have no published checksums, and are not downloaded here.

    Args:
        data_dir: where downloaded sets are kept.
        classes: such as ``[bedroom]`` or ``[church_outdoor, tower]``.
        options: those of `EncodedDataModule` and `ImageDataModule`.
    """

    def __init__(self, data_dir: str, classes: Sequence[str] = ("bedroom",), **options: Any) -> None:
        super().__init__(data_dir, **options)
        if not classes or isinstance(classes, str):
            raise UserError(f"data.classes must be a list such as [bedroom], not {classes!r}")
        self.all_class_names = list(classes)
        self.name = "_".join(["lsun", *self.all_class_names])

    def load(self, split: str) -> EncodedSet:
        """Open the databases of one split."""
        records = LMDBRecords([self._find(name, split) for name in self.all_class_names])
        labels = torch.repeat_interleave(torch.arange(len(self.all_class_names)), torch.tensor(records.lengths))
        return self.encoded(records, labels)

    def _find(self, name: str, split: str) -> Path:
        folder = self.data_dir / "lsun"
        scene = folder / f"{name}_{'train' if split == 'train' else 'val'}_lmdb"
        places = [scene, folder / name] if split == "train" else [scene]
        for place in places:
            if (place / "data.mdb").is_file():
                return place
        raise UserError(
            f"LSUN {name} is not in {scene.resolve()}: unpack {SOURCE}/scenes/{scene.name}.zip (or objects/{name}.zip) "
            f"in {folder.resolve()}, or set paths.data_dir"
        )
