"""Unpacking archives that somebody else made."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from filelock import FileLock

from lightning_gen.errors import UserError, first_line

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive which `unpack` can read."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive once; the folder appears whole or not at all, and any number of processes may ask.

    Args:
        archive: one of `ARCHIVE_SUFFIXES`.
        folder: where its content goes; if it exists, nothing is done.

    Returns:
        ``folder``, or its only subfolder where the archive holds no more than that.

    Raises:
        UserError: a damaged archive, a member outside the folder, a full disk.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            unfinished = folder.with_name(f".{folder.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                _extract(archive, unfinished)
                os.replace(unfinished, folder)
            except (tarfile.FilterError, ValueError) as error:
                raise UserError(
                    f"{archive} is refused, a file in it would be written outside its folder ({first_line(error)})"
                ) from error
            except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise UserError(f"{archive} is damaged ({first_line(error)}): download it again") from error
            except OSError as error:
                raise UserError(f"{archive} cannot be unpacked to {folder.parent} ({first_line(error)})") from error
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    inside = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _extract(archive: Path, folder: Path) -> None:
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(archive) as opened:
            for name in opened.namelist():
                # zipfile would quietly put it somewhere else.
                if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                    raise ValueError(f"{name!r}")
            opened.extractall(folder)
    else:
        with tarfile.open(archive) as opened_tar:
            opened_tar.extractall(folder, filter="data")
