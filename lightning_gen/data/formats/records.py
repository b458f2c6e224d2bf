"""Encoded images by number, wherever they are stored."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lightning_gen.errors import UserError, first_line


class GoneError(UserError):
    """Images that were there when the run began cannot be found, whole folders of them: no damage to skip."""


class Records(ABC):
    """Encoded images (JPEG, PNG, WebP, ... bytes) that can be read by number, also in a forked worker."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """Where the image is, for messages."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            UserError: it cannot be read.
        """

    def digest(self, indices: Sequence[int]) -> str:
        """SHA-256 (hexadecimal) of the encoded images at ``indices``, in that order; reads each once."""
        content = hashlib.sha256()
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for part in pool.map(self._digest_one, indices):
                content.update(part)
        return content.hexdigest()

    def _digest_one(self, index: int) -> bytes:
        try:
            return hashlib.sha256(self.read(index)).digest()
        except UserError:
            # Reported, or skipped, when it is decoded.
            return b"unreadable"


class FileRecords(Records):
    """One file an image.

    Args:
        paths: of the files, in order.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        # An array of bytes: a list of a million strings would be copied into every forked worker as it is touched.
        self._paths = np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        """The file's path."""
        return os.fsdecode(self._paths[index])

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        try:
            with open(self._paths[index], "rb", buffering=0) as file:
                return file.read()
        except OSError as error:
            folder = Path(self.name(index)).parent
            if not folder.is_dir():
                raise GoneError(f"{folder} is gone: bring the images back, and go on with resume=auto") from error
            raise UserError(
                f"{self.name(index)} cannot be read ({first_line(error)}): remove it, or set data.on_error=skip"
            ) from error
