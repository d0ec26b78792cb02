"""One process at a time: an exclusive lock on a file.

The kernel lets go of it however its holder ends, also by SIGKILL; the file itself stays and means nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

POLL_S = 0.05
HOLDER_BYTES_MAX = 32


class FileLock:
    """An advisory lock (flock) on ``path``, held from :meth:`acquire` to :meth:`release`.

    Two of them on one path exclude each other in one process too.

    Args:
        path: the file; it and its folder are made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def acquire(self, wait_s: float = 0.0) -> bool:
        """Take the lock, and note this process in the file. At once when it is held already.

        Args:
            wait_s: how long to wait for another holder to let go, s.

        Returns:
            False when another one still holds it.

        Raises:
            OSError: the file cannot be made, or its file system knows no locks.
        """
        if self._fd >= 0:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            deadline_s = time.monotonic() + wait_s
            while not _try_lock(fd):
                if time.monotonic() >= deadline_s:
                    os.close(fd)
                    return False
                time.sleep(POLL_S)
        except BaseException:
            os.close(fd)
            raise
        # For the words of whoever comes second; that a full disk does not take it is no reason to do without the lock.
        with contextlib.suppress(OSError):
            os.truncate(fd, 0)
            os.write(fd, str(os.getpid()).encode())
        self._fd = fd
        return True

    def release(self) -> None:
        """Let go; idempotent, never raises."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def holder(self) -> str:
        """The process id that the last one to take the lock has noted, ``"unknown"`` where there is none."""
        try:
            with self.path.open("rb") as file:
                noted = file.read(HOLDER_BYTES_MAX)
        except OSError:
            return "unknown"
        return noted.decode() if noted.isdigit() else "unknown"


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
