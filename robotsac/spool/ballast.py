"""Room on the disk that is kept for the last records."""

from __future__ import annotations

import os
from pathlib import Path


class Ballast:
    """A file of reserved blocks, given up when the disk is full so that what is on its way can still be written.

    Args:
        path: the file.
        size: bytes.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size

    def restore(self, free_bytes: int, keep_free_bytes: int) -> bool:
        """Make the file unless it is there. False when that would leave less than ``keep_free_bytes`` free."""
        try:
            if self.path.stat().st_size >= self.size:
                return True
        except OSError:
            pass  # not there, or not readable: then it is made, or that fails and says so
        if free_bytes - self.size < keep_free_bytes:
            return False
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # Blocks, not a hole: a sparse file would reserve nothing.
                os.posix_fallocate(fd, 0, self.size)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError:
            self.release()
            return False
        return True

    def release(self) -> bool:
        """Give the room back. False when there was none."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True
