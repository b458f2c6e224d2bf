"""Paths of images: which files are some, and what a path in a config names."""

from __future__ import annotations

from pathlib import Path

from lightning_gen.data.formats.archives import ARCHIVE_SUFFIXES, is_archive, unpack
from lightning_gen.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif", ".jp2")
SPLIT_FOLDERS = ("train", "test", "val", "trainA", "trainB", "testA", "testB", "A", "B")
"""Names of folders that mean something by themselves."""


def is_clutter(path: Path) -> bool:
    """Whether a file or folder is one that systems leave in folders of images: hidden, thumbnails, resource forks."""
    return path.name.startswith(".") or path.name in ("Thumbs.db", "desktop.ini", "__MACOSX")


def open_path(path: str, cache_dir: Path) -> Path:
    """The folder that ``data.path`` names; an archive is unpacked into the cache first.

    Where an archive holds one folder alone that is no split, that is it.

    Raises:
        UserError: there is none, or the archive is damaged.
    """
    place = Path(path)
    if is_archive(place) and place.is_file():
        facts = place.stat()
        folder = cache_dir / "unpacked" / f"{place.name}-{facts.st_size}-{facts.st_mtime_ns}"
        unpack(place, folder)
        inside = [entry for entry in folder.iterdir() if not is_clutter(entry)]
        alone = len(inside) == 1 and inside[0].is_dir() and inside[0].name not in SPLIT_FOLDERS
        return inside[0] if alone else folder
    if not place.is_dir():
        raise UserError(f"data.path={path!r} is no folder or archive: set data.path")
    return place


def set_name(path: str) -> str:
    """What a set at ``data.path`` is called: the name of the folder, or of the archive without its suffix."""
    name = Path(path).resolve().name
    return next((name[: -len(suffix)] for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)), name)
