"""One process at a time trains in a run directory."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
from pathlib import Path
from typing import TextIO

from lightning_gen.errors import UserError

LOCK = ".lock"
"""File of a run directory that the process which trains the run holds a lock on; it stays, the lock does not."""

_held: dict[Path, TextIO] = {}


def hold(folder: Path) -> None:
    """Hold a run directory until `release` or the end of this process, however it ends.

    A POSIX record lock: workers that are forked do not inherit it, so it never outlives the process, and network file
    systems know it. Where the file system has no locks, nothing is held.

    Raises:
        UserError: another process holds it, or nothing can be written to the directory.
    """
    place = folder.resolve()
    if place in _held:  # to close a second file on the lock would let it go
        return
    try:
        file = (place / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write to {folder} ({error.strerror}): make it writable") from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise UserError(
                f"Run {folder} is in use by {holder}: wait for it, stop it, or choose another run_name"
            ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()
    _held[place] = file


def release(folder: Path) -> None:
    """Let a run directory go, if this process holds it."""
    file = _held.pop(folder.resolve(), None)
    if file is not None:
        file.close()
