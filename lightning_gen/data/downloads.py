"""Downloads that leave a whole set or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from filelock import FileLock
from torchvision.datasets.utils import check_integrity

from lightning_gen.data.formats.archives import is_archive
from lightning_gen.errors import UserError


def download_once(
    name: str, folder: Path, present: Callable[[], bool], download: Callable[[Path], object], source: str
) -> None:
    """Download a set into ``folder`` unless it is there; any number of processes may ask at once.

    The files come into a folder of their own and are moved when all are verified and unpacked. What exists is not
    replaced, and where all is present nothing is written, so the folder may be read-only.

    Args:
        name: of the set, for messages.
        folder: where its files belong.
        present: whether they are all there.
        download: fetches and verifies them, with the same layout, in the folder that it is given.
        source: where it fetches them from, for messages.

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
                _remove_packed(unfinished)
                _move(unfinished, folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    except UserError:
        raise
    except Exception as error:  # torchvision and what it calls raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason.replace("File not found or corrupted", "what came is not the published file, or not all of it")
        raise UserError(
            f"{name} is not in {folder.resolve()} and cannot be downloaded to it from {source} ({reason}): put its "
            "files there by hand, or set paths.data_dir to a folder that has them"
        ) from error


def first_damaged(folder: Path, checksums: Iterable[tuple[str, str]]) -> Path:
    """The first of some files that does not have its md5 sum; ``folder`` itself if all do."""
    damaged = (folder / file for file, md5 in checksums if not check_integrity(folder / file, md5))
    return next(damaged, folder)


def _remove_packed(folder: Path) -> None:
    """Remove archives and compressed files whose content is beside them."""
    for path in list(folder.rglob("*")):
        if path.is_file() and (is_archive(path) or (path.suffix == ".gz" and path.with_suffix("").exists())):
            path.unlink()


def _move(source: Path, target: Path) -> None:
    """Move the content of one folder into another, whole folders at once where they are new; undone if it fails."""
    moved: list[Path] = []

    def move(source: Path, target: Path) -> None:
        # Folders last: what holds the images makes a set complete.
        for path in sorted(source.iterdir(), key=lambda path: (path.is_dir(), path.name)):
            place = target / path.name
            if not place.exists():
                os.replace(path, place)
                moved.append(place)
            elif path.is_dir():
                move(path, place)

    try:
        move(source, target)
    except BaseException:
        for place in moved:
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        raise
