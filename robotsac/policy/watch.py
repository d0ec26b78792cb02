"""Told at once that a file was renamed into a folder, as a published policy is: inotify(7)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
from pathlib import Path
from typing import Self

IN_MOVED_TO = 0x80  # linux/inotify.h
EVENT_BYTES = 4096


class FolderWatch:
    """Watches one folder. Use as a context manager.

    A hint and no more: where the system cannot tell (another one than Linux, a network disk, too many watches), nothing is
    told. So whoever waits here looks into the folder after every wait, and waits for a bounded time.

    Args:
        folder: made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.fd = -1
        """Readable while there is something to tell; -1 when nothing ever will be."""

    def open(self) -> None:
        """Begin to watch."""
        # AttributeError: a C library without these calls.
        with contextlib.suppress(OSError, AttributeError):
            self._folder.mkdir(parents=True, exist_ok=True)
            libc = ctypes.CDLL(None)
            self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self.fd >= 0 and libc.inotify_add_watch(self.fd, os.fsencode(self._folder), IN_MOVED_TO) < 0:
                self.close()

    def close(self) -> None:
        """Let go; idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, timeout_s: float) -> None:
        """Until something has been renamed into the folder since the last call; at most ``timeout_s``."""
        # No descriptor at all is waited for as long.
        told = select.select([self.fd] if self.fd >= 0 else [], [], [], timeout_s)[0]
        if told:
            self.clear()

    def clear(self) -> None:
        """Take note of what has been told; never waits."""
        if self.fd >= 0:
            with contextlib.suppress(BlockingIOError):
                os.read(self.fd, EVENT_BYTES)  # more than that is told again
