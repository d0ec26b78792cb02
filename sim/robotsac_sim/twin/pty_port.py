"""The bus on a pseudo-terminal: what a driver opens instead of /dev/ttyUSB0.

A pty takes any baud rate and paces nothing, so the twin reads the rate that the host has set and does the pacing itself. It
keeps its own handle on the slave side: without one, the master reads EIO as soon as the host closes the port.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import tty
from pathlib import Path

from robotsac.errors import ConfigError, path_command

READ_MAX = 65_536
# termios2: four flag words, the line discipline, 19 control characters, input and output speed. Linux.
TERMIOS2 = struct.Struct("=4IB19B2I")
TCGETS2, TCSETS2 = 0x802C542A, 0x402C542B
CFLAG, ISPEED, OSPEED = 2, 24, 25
CBAUD, BOTHER = 0o010017, 0o010000


class PtyPort:
    """A pty in raw mode, both ends held.

    Args:
        baud: bit/s that the slave side starts with.
        link: symbolic link to it, made now and removed by :meth:`close`.

    Raises:
        ConfigError: the link cannot be made.

    Attributes:
        name: device path of the slave, which the host opens.
        fd: master side, non-blocking; -1 once closed.
        lost: bytes that nobody fetched and the kernel would not hold.
    """

    def __init__(self, baud: int, link: Path | None = None) -> None:
        self.fd, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self.fd, False)
        self.name = os.ttyname(self._slave)
        self.lost = 0
        self._link = link
        self._set_baud(baud)
        if link is not None:
            self._make_link(link)

    def read(self) -> bytes:
        """Everything that the host has written; ``b""`` when that is nothing."""
        try:
            return os.read(self.fd, READ_MAX)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return b""

    def write(self, data: bytes) -> None:
        """Hand ``data`` to the host; what the kernel will not hold is lost, as on a wire nobody reads."""
        try:
            sent = os.write(self.fd, data)
        except BlockingIOError:
            sent = 0
        self.lost += len(data) - sent

    def baud(self) -> int | None:
        """Bit/s that the host has set; ``None`` where the system does not tell."""
        try:
            raw = fcntl.ioctl(self._slave, TCGETS2, bytes(TERMIOS2.size))
        except OSError:
            return None
        return int(TERMIOS2.unpack(raw)[OSPEED])

    def close(self) -> None:
        """Take the port away from the host. Idempotent."""
        if self.fd < 0:
            return
        for fd in (self.fd, self._slave):
            os.close(fd)
        self.fd = self._slave = -1
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.unlink()

    def _make_link(self, link: Path) -> None:
        """Replaces an earlier link, never a file."""
        try:
            if link.is_symlink():
                link.unlink()
            link.symlink_to(self.name)
        except OSError as error:
            self._link = None
            self.close()
            raise ConfigError(
                f"--link {link}: cannot be made", reason=str(error), command=path_command(error, link.parent)
            ) from error

    def _set_baud(self, baud: int) -> None:
        """Start at the servos' rate, so that a program that sets none still gets an answer."""
        with contextlib.suppress(OSError):
            values = list(TERMIOS2.unpack(fcntl.ioctl(self._slave, TCGETS2, bytes(TERMIOS2.size))))
            values[CFLAG] = values[CFLAG] & ~CBAUD | BOTHER
            values[ISPEED] = values[OSPEED] = baud
            fcntl.ioctl(self._slave, TCSETS2, TERMIOS2.pack(*values))
