"""MNIST from its original idx files."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import pad
from torchvision.datasets import MNIST

from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.module import ImageDataModule
from lightning_gen.errors import UserError

PREFIX = {"train": "train", "test": "t10k"}
SIZE = 28
PADDED_SIZE = 32


class MNISTDataModule(ImageDataModule):
    """MNIST (LeCun et al. 1998): 60,000 training and 10,000 test images of 28x28.

    At ``image_size`` 32 the images are padded by two black pixels a side, as LeNet-5 takes them; larger sizes enlarge
    the padded images by bicubic filtering. Existing idx files, plain or gzipped, in ``data_dir/MNIST/raw`` or
    ``data_dir`` itself are read as they are; otherwise torchvision downloads and verifies them.
    """

    name = "mnist"
    class_names = tuple("0123456789")
    image_channels = 1

    def load(self, split: Literal["train", "test"]) -> ImageSet:
        """Read one split from idx files."""
        if self.image_size != SIZE and self.image_size < PADDED_SIZE:
            raise UserError(f"mnist comes at 28x28 or from 32x32, not {self.image_size}: set data.image_size")
        images = torch.from_numpy(read_idx(self._find(f"{PREFIX[split]}-images-idx3-ubyte"), dimensions=3))
        labels = torch.from_numpy(read_idx(self._find(f"{PREFIX[split]}-labels-idx1-ubyte"), dimensions=1)).long()
        if len(images) != len(labels) or images.shape[1:] != (SIZE, SIZE):
            raise UserError(
                f"MNIST files under {self.data_dir} do not belong together: {tuple(images.shape)} images, "
                f"{len(labels)} labels; delete them and run again to download"
            )
        images = images[:, None]
        if self.image_size >= PADDED_SIZE:
            images = pad(images, [(PADDED_SIZE - SIZE) // 2] * 4)
        if self.image_size > PADDED_SIZE:
            size = (self.image_size, self.image_size)
            resized = [Image.fromarray(image.numpy()).resize(size, Image.Resampling.BICUBIC) for image in images[:, 0]]
            images = torch.from_numpy(np.stack([np.asarray(image) for image in resized])[:, None])
        return ImageSet(images, labels)

    def _find(self, name: str) -> Path:
        found = self._existing(name)
        if found is None:
            try:
                MNIST(self.data_dir, download=True)
            except (RuntimeError, OSError) as error:
                raise UserError(
                    f"MNIST is not under {Path(self.data_dir).resolve()} and cannot be downloaded ({error}): put the "
                    "four idx files into MNIST/raw there, or set paths.data_dir"
                ) from error
            found = self._existing(name)
        assert found is not None
        return found

    def _existing(self, name: str) -> Path | None:
        folders = (Path(self.data_dir, "MNIST", "raw"), Path(self.data_dir))
        candidates = [folder / file for folder in folders for file in (name, f"{name}.gz")]
        return next((path for path in candidates if path.is_file()), None)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """A uint8 array from an idx file, plain or gzipped.

    Args:
        path: the file; ``.gz`` is decompressed.
        dimensions: number of axes that it must have.

    Raises:
        UserError: the file is damaged or not such an idx file.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run again to download it anew") from error
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise UserError(f"{path} is not an idx file of {dimensions} dimensions: delete it and run again to download it")
    shape = np.frombuffer(content, ">i4", count=dimensions, offset=4)
    if len(content) - header != int(shape.prod()):
        raise UserError(
            f"{path} is damaged: {len(content) - header} bytes of data where {int(shape.prod())} belong; delete it and "
            "run again to download it anew"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
