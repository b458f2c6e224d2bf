"""Arrays that are computed once, block by block, and mapped into memory from a file by every process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from lightning_gen.files import atomic_path


def kept_array(path: Path, number: int, blocks: Callable[[], Iterator[Tensor]]) -> Tensor:
    """The array in a ``.npy`` file, which is made if there is no whole one.

    Any number of processes may ask at once: the first computes under a lock, the others read.

    Args:
        path: of the file; its folder is made.
        number: rows of the array.
        blocks: called to compute it: the rows in order, in tensors of one type.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        found = _read(path, number)
        if found is None:
            _write(path, number, blocks())
            found = _read(path, number)
    assert found is not None
    return found


def _write(path: Path, number: int, blocks: Iterator[Tensor]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for place, block in enumerate(blocks):
            rows = block.cpu().contiguous().numpy()
            if not place:
                header = {
                    "descr": np.lib.format.dtype_to_descr(rows.dtype),
                    "fortran_order": False,
                    "shape": (number, *rows.shape[1:]),
                }
                np.lib.format.write_array_header_1_0(file, header)
            file.write(rows.data)


def _read(path: Path, number: int) -> Tensor | None:
    """The file's contents, None without a whole file of so many rows."""
    try:
        # Private mapping: the pages are shared by all processes until somebody writes, and then not written back.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return torch.from_numpy(array) if len(array) == number else None
