"""Aligned and cropped faces of celebrities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchvision.datasets import CelebA

from lightning_gen.data.downloads import download_once, first_damaged
from lightning_gen.data.encoded_module import EncodedDataModule
from lightning_gen.data.encoded_set import EncodedSet
from lightning_gen.data.formats.archives import unpack
from lightning_gen.errors import UserError
from lightning_gen.registry import suggestion


class CelebADataModule(EncodedDataModule):
    """CelebA (Liu et al. 2015), aligned images of 178x218: 162,770 for training, 19,867 ``valid``, 19,962 for testing.

    Read from ``data_dir/celeba``: the published lists and ``img_align_celeba``, a folder or its zip file. torchvision
    verifies and, where the package ``gdown`` is installed, downloads them.

    Args:
        data_dir: where downloaded sets are kept.
        attribute: one of the 40 attributes, such as ``Smiling``, as a label of two classes; None for no labels.
        options: those of `EncodedDataModule` and `ImageDataModule`.
    """

    name = "celeba"
    splits = ("train", "test", "valid")

    def __init__(self, data_dir: str, attribute: str | None = None, **options: Any) -> None:
        super().__init__(data_dir, **options)
        self.attribute = attribute
        if attribute is not None:
            self.all_class_names = [f"not {attribute}", attribute]

    def load(self, split: str) -> EncodedSet:
        """Read the lists of one split."""
        folder = self.data_dir / CelebA.base_folder
        download_once(
            "CelebA",
            self.data_dir,
            lambda: self._present(folder),
            lambda place: CelebA(place, download=True),
            "Google Drive (img_align_celeba.zip and its lists)",
        )
        images = folder / "img_align_celeba"
        if not images.is_dir():
            unpack(folder / "img_align_celeba.zip", images)
        # The zip file holds a folder of that name.
        images = next(filter(Path.is_dir, [images / images.name]), images)
        try:
            published = CelebA(self.data_dir, split=split)
        except RuntimeError as error:
            damaged = first_damaged(folder, self._lists())
            raise UserError(
                f"{damaged} is not the published file: delete it and run again to download it anew"
            ) from error
        labels = None
        if self.attribute is not None:
            names = [name for name in published.attr_names if name]
            if self.attribute not in names:
                raise UserError(f"CelebA has no attribute {self.attribute!r}.{suggestion(self.attribute, names)}")
            labels = published.attr[:, names.index(self.attribute)].long()
        return self.encoded_files([images / file for file in published.filename], labels)

    def _lists(self) -> list[tuple[str, str]]:
        return [(file, md5) for _, md5, file in CelebA.file_list if not file.endswith(".zip")]

    def _present(self, folder: Path) -> bool:
        images = folder / "img_align_celeba"
        lists = all((folder / file).is_file() for file, _ in self._lists())
        return lists and (images.is_dir() or images.with_suffix(".zip").is_file())
