"""Two folders of unrelated images, as CycleGAN takes them."""

from __future__ import annotations

from typing import Any

from lightning_gen.data.encoded_module import EncodedDataModule
from lightning_gen.data.encoded_set import EncodedSet
from lightning_gen.data.image_paths import open_path, set_name
from lightning_gen.data.pairs import UnpairedDataModule

FOLDERS = {"train": "trainB", "test": "testB", "train_a": "trainA", "test_a": "testA"}


class UnpairedFoldersDataModule(EncodedDataModule, UnpairedDataModule):
    """Images of two domains in ``trainA``, ``trainB``, ``testA`` and ``testB`` (Zhu et al. 2017).

    Args:
        data_dir: not used.
        path: of the folder that has these, or of a zip or tar archive of it.
        options: those of `EncodedDataModule` and `ImageDataModule`.
    """

    def __init__(self, data_dir: str, path: str, **options: Any) -> None:
        super().__init__(data_dir, **options)
        self.path = open_path(path, self.cache_dir)
        self.name = set_name(path)
        self.input_channels = self.image_channels

    def load(self, split: str) -> EncodedSet:
        """List the images of one domain's split."""
        return self.encoded_files(self.list_images(self.path / FOLDERS[split]))
