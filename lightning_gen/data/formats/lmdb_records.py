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
        with _environment(self.folders[number]).begin(buffers=False) as transaction:
            value = transaction.get(key)
        if value is None:
            raise UserError(f"{self.name(index)} is gone: the database was changed, run again")
        return bytes(value)

    def _locate(self, index: int) -> tuple[int, bytes]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, bytes(self._keys[number][index - self._starts[number]])

    def _read_keys(self, folder: Path) -> np.ndarray:
        with _environment(folder).begin() as transaction:
            keys = list(transaction.cursor().iternext(keys=True, values=False))
        if not keys:
            raise UserError(f"{folder} holds no images: unpack it anew")
        # An array of bytes: a list would be copied into every forked worker as it is touched.
        return np.array(keys, dtype=np.bytes_)


def _environment(folder: Path) -> Any:
    """The LMDB environment of a folder, opened once in a process, however many sets read it.

    Raises:
        UserError: it is none, or not whole.
    """
    try:
        import lmdb
    except ImportError as error:
        raise UserError(MISSING) from error
    key = os.getpid(), folder.resolve()
    if key not in _environments:
        # Those of the process that this one was forked from must not be used here, nor stay open.
        for inherited in [other for other in _environments if other[0] != os.getpid()]:
            _environments.pop(inherited).close()
        try:
            found = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, meminit=False)
        except (lmdb.Error, OSError) as error:
            raise UserError(f"{folder} is no LMDB database ({first_line(error)}): unpack it anew") from error
        size = (found.info()["last_pgno"] + 1) * found.stat()["psize"]
        if (folder / "data.mdb").stat().st_size < size:
            # Reading a page behind the end of the file would kill the process.
            found.close()
            raise UserError(f"{folder / 'data.mdb'} has less than the {size} bytes that it should: unpack it anew")
        _environments[key] = found
    return _environments[key]


_environments: dict[tuple[int, Path], Any] = {}
