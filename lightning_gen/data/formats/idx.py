"""The idx format of MNIST (LeCun et al. 1998)."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from lightning_gen.errors import UserError


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
