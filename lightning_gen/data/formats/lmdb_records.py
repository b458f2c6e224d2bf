"""Images in the LMDB files of LSUN: each value is an encoded image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_gen.data.formats.records import Records
from lightning_gen.errors import UserError, first_line

MISSING = "lmdb is not installed: pip install 'lightning-gen[lsun]'"


class LMDBRecords(Records):
    """All values of one or several LMDB environments, each ordered by key.

    Nothing is written beside the files, and any number of processes may read them.

    Args:
        folders: of the environments (each holds ``data.mdb``).

    Raises:
        UserError: a folder that is no LMDB environment, or lmdb is not installed.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)
        self._open: dict[Path, Any] = {}
        self._owner = os.getpid()
        self._keys = [self._read_keys(folder) for folder in self.folders]
        self.lengths = [len(keys) for keys in self._keys]
        self._starts = np.cumsum([0, *self.lengths])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, index: int) -> str:
        """Folder and key."""
        number, key = self._locate(index)
        return f"{self.folders[number]} key {key.decode(errors='replace')}"

    def read(self, index: int) -> bytes:
        """The encoded image."""
        number, key = self._locate(index)
        with self._environment(self.folders[number]).begin(buffers=False) as transaction:
            value = transaction.get(key)
        if value is None:
            raise UserError(f"{self.name(index)} is gone: the database was changed, run again")
        return bytes(value)

    def _locate(self, index: int) -> tuple[int, bytes]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, bytes(self._keys[number][index - self._starts[number]])

    def _read_keys(self, folder: Path) -> np.ndarray:
        with self._environment(folder).begin() as transaction:
            keys = list(transaction.cursor().iternext(keys=True, values=False))
        if not keys:
            raise UserError(f"{folder} holds no images: unpack it anew")
        # An array of bytes: a list would be copied into every forked worker as it is touched.
        return np.array(keys, dtype=np.bytes_)

    def _environment(self, folder: Path) -> Any:
        try:
            import lmdb
        except ImportError as error:
            raise UserError(MISSING) from error
        if self._owner != os.getpid():
            # An environment must not be used across a fork.
            self._open, self._owner = {}, os.getpid()
        if folder not in self._open:
            try:
                self._open[folder] = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, meminit=False)
            except (lmdb.Error, OSError) as error:
                raise UserError(f"{folder} is no LMDB database ({first_line(error)}): unpack it anew") from error
        return self._open[folder]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}
