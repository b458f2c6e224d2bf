"""Unpacking archives that somebody else made."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from filelock import FileLock

from lightning_gen.errors import UserError, first_line

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError)


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive which `unpack` can read."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive once; the folder appears whole or not at all, and any number of processes may ask.

    Args:
        archive: one of `ARCHIVE_SUFFIXES`.
        folder: where its content goes; if it exists, nothing is done.

    Raises:
        UserError: a damaged archive, a member outside the folder, a full disk.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            unfinished = folder.with_name(f".{folder.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                unfinished.mkdir()
                _extract(archive, unfinished)
                os.replace(unfinished, folder)
            except (tarfile.FilterError, ValueError) as error:
                raise UserError(
                    f"{archive} is refused, a file in it would be written outside its folder ({first_line(error)}): "
                    "download it again, from a source that you trust"
                ) from error
            except DAMAGE as error:
                raise UserError(f"{archive} is damaged ({first_line(error)}): download it again") from error
            except (OSError, RuntimeError, NotImplementedError) as error:
                # zipfile says of encrypted files RuntimeError, of compression that it does not know the other.
                raise UserError(
                    f"{archive} cannot be unpacked to {folder.parent} ({first_line(error)}): unpack it by hand, "
                    "and set data.path to the folder"
                ) from error
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)


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
            _check_end(opened_tar)


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise ReadError unless the archive ends where it seems to.

    tarfile takes a damaged header for the end, and never comes to the checksum behind the last file.
    """
    stream = archive.fileobj
    assert stream is not None
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("a header in it is not readable")
    while stream.read(2**20):
        pass
