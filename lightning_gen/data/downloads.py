"""Downloads that leave a whole set or nothing."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from lightning_gen.data.formats.archives import is_archive
from lightning_gen.errors import UserError


def download_once(name: str, folder: Path, present: Callable[[], bool], download: Callable[[Path], object]) -> None:
    """Download a set into ``folder`` unless it is there; any number of processes may ask at once.

    The files come into a folder of their own and are moved when all are verified and unpacked. What exists is neither
    read nor replaced, and where all is present nothing is written, so the folder may be read-only.

    Args:
        name: of the set, for messages.
        folder: where its files belong.
        present: whether they are all there.
        download: fetches and verifies them, with the same layout, in the folder that it is given.

    Raises:
        UserError: no network, a truncated or altered file, a full or read-only disk.
    """
    if present():
        return
    unfinished = folder / f".{name}.download"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"):
            if present():
                return
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                unfinished.mkdir()
                download(unfinished)
                _move_files(unfinished, folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    except (OSError, RuntimeError, HTTPException, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason.replace("File not found or corrupted", "what came is not the published file, or not all of it")
        raise UserError(
            f"{name} is not in {folder.resolve()} and cannot be downloaded to it ({reason}): put its files there by "
            "hand, or set paths.data_dir to a folder that has them"
        ) from error


def _move_files(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_file() and not is_archive(path) and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
