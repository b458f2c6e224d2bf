"""MNIST and the sets in its format, from their idx files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.datasets import EMNIST, KMNIST, MNIST, FashionMNIST

from lightning_gen.data.downloads import download_once
from lightning_gen.data.formats.decoding import resize
from lightning_gen.data.formats.idx import read_idx
from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.module import ImageDataModule
from lightning_gen.errors import UserError

SIZE = 28
PADDED_SIZE = 32


class MNISTDataModule(ImageDataModule):
    """MNIST (LeCun et al. 1998): 60,000 training and 10,000 test images of 28x28.

    At ``image_size`` 32 the images are padded by two black pixels a side, as LeNet-5 takes them; larger sizes enlarge
    the padded images by bicubic filtering. Existing idx files, plain or gzipped, in ``data_dir/MNIST/raw`` or
    ``data_dir`` itself are read as they are; otherwise torchvision downloads and verifies them.
    """

    name = "mnist"
    all_class_names: Sequence[str] = tuple("0123456789")
    image_channels = 1
    published: ClassVar[type[MNIST]] = MNIST

    @property
    def source(self) -> str:
        """Where the files are published."""
        return self.published.mirrors[0]

    def load(self, split: str) -> ImageSet:
        """Read one split from idx files."""
        if self.image_size != SIZE and self.image_size < PADDED_SIZE:
            raise UserError(f"{self.name} comes at 28x28 or from 32x32, not {self.image_size}: set data.image_size")
        images = torch.from_numpy(read_idx(self._find(self.file_name(split, "images")), dimensions=3))
        labels = torch.from_numpy(read_idx(self._find(self.file_name(split, "labels")), dimensions=1)).long()
        if len(images) != len(labels) or images.shape[1:] != (SIZE, SIZE):
            raise UserError(
                f"{self.name} files under {self.data_dir} do not belong together: {tuple(images.shape)} images, "
                f"{len(labels)} labels; delete them and run again to download"
            )
        images, labels = self.arrange(images[:, None], labels)
        if self.image_size >= PADDED_SIZE:
            images = pad(images, [(PADDED_SIZE - SIZE) // 2] * 4)
        return ImageSet(resize(images, self.image_size, self.image_size), labels)

    def arrange(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 1, 28, 28) upright and labels from 0, from those in the files."""
        return images, labels

    def file_name(self, split: str, kind: str) -> str:
        """Of the idx file of ``images`` or ``labels``."""
        return f"{'train' if split == 'train' else 't10k'}-{kind}-idx{'3' if kind == 'images' else '1'}-ubyte"

    def download(self, folder: Path) -> None:
        """Fetch and verify all files."""
        self.published(folder, download=True)

    def _find(self, file: str) -> Path:
        names = [self.file_name(split, kind) for split in ("train", "test") for kind in ("images", "labels")]
        if self._existing(file) is None:
            download_once(
                self.published.__name__,
                self.data_dir,
                lambda: all(map(self._existing, names)),
                self.download,
                self.source,
            )
        found = self._existing(file)
        assert found is not None
        return found

    def _existing(self, file: str) -> Path | None:
        folders = [self.data_dir / self.published.__name__ / "raw"]
        if self.published is MNIST:
            folders.append(self.data_dir)
        candidates = [folder / name for folder in folders for name in (file, f"{file}.gz")]
        return next((path for path in candidates if path.is_file()), None)


class FashionMNISTDataModule(MNISTDataModule):
    """Fashion-MNIST (Xiao et al. 2017): clothes in MNIST's format, in ``data_dir/FashionMNIST/raw``."""

    name = "fashion_mnist"
    all_class_names = tuple(FashionMNIST.classes)
    published = FashionMNIST


class KMNISTDataModule(MNISTDataModule):
    """Kuzushiji-MNIST (Clanuwat et al. 2018): cursive characters in MNIST's format, in ``data_dir/KMNIST/raw``."""

    name = "kmnist"
    all_class_names = tuple(KMNIST.classes)
    published = KMNIST


class EMNISTDataModule(MNISTDataModule):
    """EMNIST (Cohen et al. 2017): letters and digits in MNIST's format, in ``data_dir/EMNIST/raw``.

    The files hold the images transposed and the letters numbered from 1; both are put right here.

    Args:
        data_dir: where downloaded sets are kept.
        part: ``byclass``, ``bymerge``, ``balanced``, ``letters``, ``digits`` or ``mnist``.
        options: those of `ImageDataModule`.
    """

    published = EMNIST

    def __init__(self, data_dir: str, part: str = "balanced", **options: Any) -> None:
        super().__init__(data_dir, **options)
        if part not in EMNIST.splits:
            raise UserError(f"data.part must be one of {', '.join(EMNIST.splits)}, not {part!r}")
        self.part = part
        self.name = f"emnist_{part}"
        self.all_class_names = [name for name in EMNIST.classes_split_dict[part] if name != "N/A"]

    @property
    def source(self) -> str:
        """Where the files are published."""
        return EMNIST.url

    def arrange(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Transposed images and letters from 1, put right."""
        return images.transpose(2, 3).contiguous(), labels - 1 if self.part == "letters" else labels

    def file_name(self, split: str, kind: str) -> str:
        """Of the idx file of ``images`` or ``labels``."""
        return f"emnist-{self.part}-{split}-{kind}-idx{'3' if kind == 'images' else '1'}-ubyte"

    def download(self, folder: Path) -> None:
        """Fetch and verify all files of all parts."""
        EMNIST(folder, split=self.part, download=True)
