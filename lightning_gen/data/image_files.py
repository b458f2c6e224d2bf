"""Folders and archives of finished images, all of one size, read as they are: to be scored."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lightning_gen.data.formats.archives import ARCHIVE_SUFFIXES, is_archive
from lightning_gen.data.formats.decoding import decode_image
from lightning_gen.data.formats.records import FileRecords
from lightning_gen.data.image_paths import IMAGE_SUFFIXES, is_clutter, open_path, set_name
from lightning_gen.errors import UserError, first_line

THREADS = 4
"""That decode: Pillow and torchvision leave the interpreter free meanwhile."""
SHOWN = 3
"""Files and sizes named where sizes differ."""


def is_image_collection(path: Path) -> bool:
    """Whether a path may be opened as `ImageFiles`: a folder, or a file with the name of an archive."""
    return path.is_dir() or (path.is_file() and is_archive(path))


class ImageFiles:
    """The images below a folder or in a zip or tar archive, ordered by name, decoded as they are read.

    Nothing is resized or cut: that would be a part of the score. Grey images stay grey where all are.

    Args:
        path: of the folder or archive.
        cache_dir: where an archive is unpacked.

    Attributes:
        name: of the folder or archive.
        image_shape: (C, H, W) of every image.
        formats: Pillow's names of the files' formats, in order: ``["JPEG", "PNG"]``.

    Raises:
        UserError: no such folder, no image in it, a file that is no image, or images of several sizes.
    """

    def __init__(self, path: Path, cache_dir: Path) -> None:
        if not is_image_collection(path):
            raise UserError(f"{path} is no folder of images and no archive ({', '.join(ARCHIVE_SUFFIXES)})")
        folder = open_path(str(path), cache_dir)
        files = sorted(file for file in folder.rglob("*") if file.is_file() and not _is_hidden(file, folder))
        for file in files:
            if file.suffix.lower() not in IMAGE_SUFFIXES:
                raise UserError(f"{file} is not an image file: remove it")
        if not files:
            raise UserError(f"{path} holds no images ({', '.join(IMAGE_SUFFIXES[:5])}, ...)")
        self.name = set_name(str(path))
        self.records = FileRecords(files)
        with ThreadPoolExecutor(THREADS) as pool:
            headers = list(pool.map(_read_header, files))
        sizes = Counter(size for size, _, _ in headers)
        if len(sizes) > 1:
            raise UserError(_describe_sizes(path, files, headers, sizes))
        (width, height), _, _ = headers[0]
        self.image_shape = (3 if any(colored for _, colored, _ in headers) else 1, height, width)
        self.formats = sorted({name for _, _, name in headers})

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of all files' bytes, in order."""
        return self.records.digest(range(len(self)))

    def read(self, first: int, last: int) -> Tensor:
        """Images ``first`` to ``last - 1``, uint8 (N, C, H, W).

        Raises:
            UserError: one is damaged; the message names its file.
        """
        with ThreadPoolExecutor(THREADS) as pool:
            return torch.stack(list(pool.map(self._decode, range(first, last))))

    def _decode(self, index: int) -> Tensor:
        name = self.records.name(index)
        try:
            pixels = decode_image(self.records.read(index), name, self.image_shape[0])
        except UserError as error:
            raise UserError(f"{str(error).partition(': ')[0]}: replace or remove it") from error
        if pixels.shape != self.image_shape:
            raise UserError(f"{name} is turned by its EXIF entry to another shape: save it upright")
        return pixels


Header = tuple[tuple[int, int], bool, str]


def _read_header(file: Path) -> Header:
    """(width, height), whether it has colors, and the format, without decoding the pixels."""
    try:
        with Image.open(file) as image:
            return image.size, image.mode not in ("1", "L", "I", "I;16", "I;16B", "F"), str(image.format)
    except UnidentifiedImageError as error:
        raise UserError(f"{file} is not an image: replace or remove it") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read ({first_line(error)}): replace or remove it") from error


def _describe_sizes(path: Path, files: list[Path], headers: list[Header], sizes: Counter[tuple[int, int]]) -> str:
    found = []
    for (width, height), number in sizes.most_common(SHOWN):
        examples = [file.name for file, header in zip(files, headers, strict=True) if header[0] == (width, height)]
        more = ", ..." if number > SHOWN else ""
        found.append(f"{number} of {width}x{height} ({', '.join(examples[:SHOWN])}{more})")
    return (
        f"{path} holds images of {len(sizes)} sizes, {'; '.join(found)}{'; ...' if len(sizes) > SHOWN else ''}: resize "
        "them to one size, in the same way for all that you compare"
    )


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(map(is_clutter, (file, *(parent for parent in file.parents if parent.is_relative_to(folder)))))
