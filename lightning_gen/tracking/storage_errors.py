"""Full, read-only and vanished disks under a run, told in one line."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_gen.errors import UserError
from lightning_gen.tracking.run_directory import RunDirectory

STORAGE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
    errno.ENOENT,
}
"""Errors of a file system that somebody has to mend, and that say nothing about this program."""


@contextmanager
def storage_errors(run: RunDirectory) -> Iterator[None]:
    """Turn an error of the file system within the context into one line.

    Args:
        run: what is trained; its files are whole, because they are written beside their place.

    Raises:
        UserError: naming the file or directory, the reason and the checkpoint to go on from.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE:
            raise
        good = run.last_checkpoint
        kept = f"the last good checkpoint is {good}" if good.exists() else "no checkpoint was written yet"
        raise UserError(
            f"{error.strerror}: {error.filename or run.path}: training stopped; {kept}; mend that and go on with "
            "resume=auto"
        ) from error
