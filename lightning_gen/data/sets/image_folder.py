"""Any folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from sklearn.model_selection import train_test_split

from lightning_gen.data.encoded_module import EncodedDataModule
from lightning_gen.data.encoded_set import EncodedSet
from lightning_gen.data.image_paths import is_clutter, open_path, set_name
from lightning_gen.errors import UserError


class ImageFolderDataModule(EncodedDataModule):
    """Images in a folder, or in a zip or tar archive of one.

    With subfolders ``train`` and ``test`` (or ``val``) these are the splits; otherwise all images (of ``train``) are
    one set, of which ``test_share`` is drawn for testing. Within a split, subfolders are classes, ordered by name.

    Args:
        data_dir: not used.
        path: of the folder or archive.
        labels: ``folders``: subfolders are classes; ``none``: all images at any depth, without classes; ``auto``: the
            first if there are subfolders.
        test_share: share of the images, in [0, 1), drawn by ``split_seed`` for testing where there is no folder for it.
        options: those of `EncodedDataModule` and `ImageDataModule`.
    """

    def __init__(
        self,
        data_dir: str,
        path: str,
        labels: Literal["auto", "folders", "none"] = "auto",
        test_share: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(data_dir, **options)
        if labels not in ("auto", "folders", "none"):
            raise UserError(f"data.labels must be auto, folders or none, not {labels!r}")
        if not 0 <= test_share < 1:
            raise UserError(f"data.test_share must be in [0, 1), not {test_share}")
        self.path = open_path(path, self.cache_dir)
        self.name = set_name(path)
        self.test_share = test_share
        self.split_folders = {
            name: self.path / name for name in ("train", "test", "val") if (self.path / name).is_dir()
        }
        if self.split_folders and "train" not in self.split_folders:
            raise UserError(f"{self.path} has {', '.join(self.split_folders)} but no folder train: set data.path")
        if "val" in self.split_folders:
            self.split_folders.setdefault("test", self.split_folders.pop("val"))
        self.training_folder = self.split_folders.get("train", self.path)
        entries = sorted(self.training_folder.iterdir())
        subfolders = [entry.name for entry in entries if entry.is_dir() and not is_clutter(entry)]
        if labels == "folders" and not subfolders:
            raise UserError(f"{self.training_folder} has no subfolders to be classes: set data.labels=none")
        self.all_class_names: Sequence[str] = [] if labels == "none" else subfolders

    def load(self, split: str) -> EncodedSet:
        """List one split."""
        if split in self.split_folders and ("test" in self.split_folders or not self.test_share):
            return self._list(self.split_folders[split])
        everything = self._list(self.training_folder)
        if not self.test_share:
            if split == "train":
                return everything
            raise UserError(f"{self.path} has no folder {split}: set data.test_share, or choose the split train")
        held_out = round(len(everything) * self.test_share)
        if not 0 < held_out < len(everything):
            raise UserError(
                f"data.test_share={self.test_share} of the {len(everything)} images of {self.path} leaves none on one "
                "side: set another data.test_share"
            )
        train, test = train_test_split(
            torch.arange(len(everything)).numpy(), test_size=held_out, random_state=self.split_seed
        )
        return everything.subset(torch.from_numpy(train if split == "train" else test).sort().values)

    def _list(self, folder: Path) -> EncodedSet:
        if not self.all_class_names:
            return self.encoded_files(self.list_images(folder, recursive=True))
        for path in sorted(folder.iterdir()):
            if is_clutter(path) or path.name in self.all_class_names:
                continue
            self.refuse(f"{path} belongs to none of the classes {', '.join(self.all_class_names)}")
        files = []
        labels = []
        for label, name in enumerate(self.all_class_names):
            found = self.list_images(folder / name, recursive=True)
            files += found
            labels += [label] * len(found)
        return self.encoded_files(files, torch.tensor(labels))
