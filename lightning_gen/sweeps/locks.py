"""Locks that end with the processes that hold them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType


class FileLock:
    """An exclusive lock on a file (``flock``), on one machine and over a file system that several share.

    The system frees it when the last process that holds it has ended, however it ended. A child that inherits the file
    descriptor holds it too.

    Args:
        path: the file, which is made if need be and stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """The file descriptor, of a lock that is held."""
        assert self._descriptor is not None
        return self._descriptor

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock.

        Args:
            wait: whether to wait until it is free.

        Returns:
            False where another holds it and we do not wait.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give it back; a child that inherited it keeps it."""
        os.close(self.descriptor)
        self._descriptor = None

    def __enter__(self) -> FileLock:
        """Wait for the lock."""
        self.acquire(wait=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self.release()
