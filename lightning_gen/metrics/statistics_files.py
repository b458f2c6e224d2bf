"""Files of feature statistics that other tools write and read: a mean and a covariance."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_gen.errors import UserError, first_line
from lightning_gen.files import atomic_path
from lightning_gen.metrics.extractors.base import sha256_of_file
from lightning_gen.metrics.statistics import GaussianStatistics

SUFFIXES = (".npz", ".pt")
"""``.npz`` with ``mu`` and ``sigma``, as of pytorch-fid and clean-fid; ``.pt``, an entry of torch-fidelity's cache."""


def is_statistics_file(path: Path) -> bool:
    """Whether the name is that of a file which `read_statistics` reads."""
    return path.suffix.lower() in SUFFIXES


def read_statistics(path: Path) -> GaussianStatistics:
    """The statistics in a file: float64, of an unknown number of images unless it holds ``n``.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise UserError(f"No file {path}")
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                content: dict[str, Any] = {key: arrays[key] for key in arrays.files}
        else:
            content = _load_tensors(path)
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise UserError(f"{path} cannot be read as statistics: {first_line(error)}") from error
    if not isinstance(content, dict) or not {"mu", "sigma"} <= content.keys():
        raise UserError(f"{path} does not hold the arrays mu and sigma")
    mean, covariance = (torch.as_tensor(content[key], dtype=torch.float64) for key in ("mu", "sigma"))
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(
            f"{path}: mu {tuple(mean.shape)} and sigma {tuple(covariance.shape)} are no mean and covariance"
        )
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise UserError(f"{path} holds NaN or infinite values")
    return GaussianStatistics(int(content["n"]) if "n" in content else None, mean, (covariance + covariance.T) / 2)


def write_statistics(path: Path, statistics: GaussianStatistics) -> None:
    """Write ``mu`` and ``sigma`` as float64, and the number of images ``n``, whole or not at all.

    Raises:
        UserError: the name has neither of the known suffixes.
    """
    if not is_statistics_file(path):
        raise UserError(f"{path} must end in {' or '.join(SUFFIXES)}")
    arrays = {"mu": statistics.mean.numpy(), "sigma": statistics.covariance.numpy()}
    if statistics.n is not None:
        arrays["n"] = np.array(statistics.n)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        if path.suffix.lower() == ".npz":
            np.savez(file, **arrays)  # type: ignore[arg-type]
        else:
            torch.save(arrays, file)


def statistics_protocol(path: Path, statistics: GaussianStatistics) -> dict[str, Any]:
    """What identifies the statistics of a file, in the place of a reference set."""
    return {"dataset": path.stem, "split": "file", "size": statistics.n, "digest": sha256_of_file(path)}


def _load_tensors(path: Path) -> dict[str, Any]:
    """The dictionary in a file of torch.save, of tensors or of NumPy arrays, without running what it holds."""
    from numpy._core.multiarray import _reconstruct  # what pickled arrays call

    known: list[Any] = [
        np.ndarray,
        np.dtype,
        _reconstruct,
        np.dtypes.Float64DType,
        np.dtypes.Float32DType,
        np.dtypes.Int64DType,
    ]
    with torch.serialization.safe_globals(known):
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content
