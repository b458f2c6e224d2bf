"""The base of data modules whose images are files of many sizes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lightning_gen.data.encoded_set import EncodedSet
from lightning_gen.data.formats.decoding import Frame
from lightning_gen.data.formats.records import FileRecords, Records
from lightning_gen.data.image_paths import IMAGE_SUFFIXES, is_clutter
from lightning_gen.data.module import ImageDataModule
from lightning_gen.errors import UserError

log = logging.getLogger(__name__)


class EncodedDataModule(ImageDataModule):
    """Images that are decoded, cut to a square and resized with antialiasing.

    Args:
        data_dir: where downloaded sets are kept.
        channels: 3 for RGB, 1 for grey.
        center_crop: side, in pixels of the originals, of a square that is cut from the middle first; None for none.
        crop: which square of an oblong image is kept: ``center``, or ``random``, anew in every epoch.
        on_error: ``raise`` at the first damaged image, or ``skip`` them with a warning each.
        options: those of `ImageDataModule`.
    """

    def __init__(
        self,
        data_dir: str,
        channels: int = 3,
        center_crop: int | None = None,
        crop: Literal["center", "random"] = "center",
        on_error: Literal["raise", "skip"] = "raise",
        **options: Any,
    ) -> None:
        super().__init__(data_dir, **options)
        if channels not in (1, 3):
            raise UserError(f"data.channels must be 1 or 3, not {channels}")
        if on_error not in ("raise", "skip"):
            raise UserError(f"data.on_error must be raise or skip, not {on_error!r}")
        self.image_channels = channels
        self.frame = Frame(self.image_size, center_crop, crop)
        self.on_error = on_error

    def encoded(self, records: Records, labels: Tensor | None = None) -> EncodedSet:
        """The set of some records."""
        return EncodedSet(records, self.frame, self.image_channels, labels, on_error=self.on_error, seed=self.seed)

    def encoded_files(self, paths: Sequence[Path], labels: Tensor | None = None) -> EncodedSet:
        """The set of some image files."""
        return self.encoded(FileRecords(paths), labels)

    def list_images(self, folder: Path, *, recursive: bool = False) -> list[Path]:
        """The image files of a folder, ordered by name; hidden files and what systems leave are passed over.

        Raises:
            UserError: no such folder, no image in it, or, unless ``on_error`` is ``skip``, a file that is no image.
        """
        try:
            found = sorted(folder.rglob("*") if recursive else folder.iterdir())
        except OSError as error:
            raise UserError(f"{folder} cannot be read ({error.strerror}): set data.path") from error
        images = []
        for path in found:
            inside = [path, *(parent for parent in path.parents if parent.is_relative_to(folder) and parent != folder)]
            if path.is_dir() or any(map(is_clutter, inside)):
                continue
            if path.suffix.lower() in IMAGE_SUFFIXES:
                images.append(path)
            else:
                self.refuse(f"{path} is not an image file")
        if not images:
            raise UserError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES[:5])}, ...): set data.path")
        return images

    def refuse(self, problem: str) -> None:
        """Raise UserError for a file that is not as it should be, or only report it if ``on_error`` is ``skip``."""
        if self.on_error == "raise":
            raise UserError(f"{problem}: remove it, or set data.on_error=skip")
        log.warning("skipped: %s", problem)
