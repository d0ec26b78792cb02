"""The transport under the driver: bytes out, bytes in before a deadline.

``Port`` is the whole seam. ``SerialPort`` is a serial device; the twin has one in memory.
"""

from __future__ import annotations

import errno
import os
import select
import shlex
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import serial

from robotsac.clock import NS_PER_S, Clock
from robotsac.errors import ArmSetupError, BusLost, BusTimeout, DriverUnavailable

WRITE_TIMEOUT_NS = 50_000_000
# Above this bus rate an FTDI latency timer of more than 1 ms (factory: 16 ms) does not leave time for the reply.
LATENCY_MATTERS_ABOVE_HZ = 50
LATENCY_MAX_MS = 1
USB_SERIAL_FOLDER = Path("/sys/bus/usb-serial/devices")
# For the end of whatever command was typed.
_TWIN = "--robot arm0-twin"
_SERIAL_DEVICES = "find /dev -name 'ttyUSB*' -o -name 'ttyACM*' -o -name 'ttyS*'"


class Port(Protocol):
    """A half-duplex line to the servos. Deadlines are on the arm's clock, ns."""

    name: str

    def write(self, data: bytes) -> None:
        """Hand over all of ``data``. Raises ``BusLost`` or ``BusTimeout``."""
        ...

    def read(self, size_max: int, deadline_ns: int) -> bytes:
        """As soon as there is at least one byte, up to ``size_max`` of them; ``b""`` at the deadline. Raises ``BusLost``."""
        ...

    def discard_input(self) -> None:
        """Forget what has arrived and was not read. Raises ``BusLost``."""
        ...

    def close(self) -> None:
        """Give the port back. Idempotent; never raises."""
        ...


class SerialPort:
    """A serial device, opened, locked and configured by pyserial; read and written without its time-out loops.

    Opened exclusively. The lock is advisory (flock): a program that does not ask for it can still get in.

    Args:
        name: device, e.g. ``/dev/ttyUSB0``.
        baud: bit/s.
        clock: the arm's clock; host time.
        bus_rate_hz: how often it will be used, for judging the adapter's latency timer.
        on_close: called once after closing.
        usb_serial_folder: where the kernel lists USB serial adapters.

    Raises:
        DriverUnavailable: the device is not there, not permitted, or in use.
        ArmSetupError: the adapter holds bytes back for longer than 1 ms.
    """

    def __init__(
        self,
        name: str,
        baud: int,
        clock: Clock,
        bus_rate_hz: int,
        *,
        on_close: Callable[[], None] | None = None,
        usb_serial_folder: Path = USB_SERIAL_FOLDER,
    ) -> None:
        self.name = name
        self._clock = clock
        self._on_close = on_close
        try:
            self._serial = serial.Serial(name, baud, timeout=0, write_timeout=0, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as error:
            raise _refusal(name, error) from error
        self._fd: int = self._serial.fileno()
        try:
            _lower_latency(self._serial)
            _check_latency(name, bus_rate_hz, usb_serial_folder)
        except ArmSetupError:
            self._on_close = None  # whoever provided the device still owns it
            self.close()
            raise

    def write(self, data: bytes) -> None:
        """See :class:`Port`."""
        deadline_ns = 0
        while True:
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise self._lost(error) from error
            if sent == len(data):
                return
            data = data[sent:]
            deadline_ns = deadline_ns or self._clock.now_ns() + WRITE_TIMEOUT_NS
            self._wait_writable(deadline_ns, len(data))

    def read(self, size_max: int, deadline_ns: int) -> bytes:
        """See :class:`Port`."""
        while True:
            left_ns = deadline_ns - self._clock.now_ns()
            try:
                ready, _, _ = select.select((self._fd,), (), (), max(left_ns, 0) / NS_PER_S)
                if ready:
                    data = os.read(self._fd, size_max)
                    if not data:
                        raise self._lost(None)
                    return data
            except BlockingIOError:
                pass
            except (OSError, ValueError) as error:  # ValueError: select on a closed descriptor (−1)
                raise self._lost(error) from error
            if left_ns <= 0:
                return b""

    def discard_input(self) -> None:
        """See :class:`Port`."""
        try:
            termios.tcflush(self._fd, termios.TCIFLUSH)
        except (termios.error, ValueError) as error:  # ValueError: a closed descriptor (−1)
            raise self._lost(error) from error

    def close(self) -> None:
        """See :class:`Port`."""
        with suppress(serial.SerialException, OSError):  # the device may be gone; nothing is left to give back then
            self._serial.close()
        self._fd = -1
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    def _wait_writable(self, deadline_ns: int, size: int) -> None:
        left_ns = deadline_ns - self._clock.now_ns()
        try:
            _, ready, _ = select.select((), (self._fd,), (), max(left_ns, 0) / NS_PER_S)
        except (OSError, ValueError) as error:
            raise self._lost(error) from error
        if not ready:
            raise BusTimeout(
                f"port {self.name} did not take {size} bytes within {WRITE_TIMEOUT_NS // 1_000_000} ms",
                reason="its output buffer is full: nobody drains the other end",
            )

    def _lost(self, error: BaseException | None) -> BusLost:
        return BusLost(
            f"port {self.name} is gone",
            reason=str(error) if error else "the other side closed it",
            command=f"ls -l {shlex.quote(self.name)}",
        )


def _refusal(name: str, error: Exception) -> DriverUnavailable:
    code = getattr(error, "errno", None)
    # os.path: Path.exists() raises where a folder on the way may not be looked into, or is a file.
    if code == errno.ENOENT or not os.path.exists(name):  # noqa: PTH110
        return DriverUnavailable(
            f"port {name} is not there",
            reason="is the adapter plugged in? Without an arm, take the twin",
            command=_TWIN,
        )
    if not Path(name).is_char_device():
        return DriverUnavailable(
            f"port {name} is not a serial device",
            reason="robot.driver.port names a device such as /dev/ttyUSB0; the command lists those there are",
            command=_SERIAL_DEVICES,
        )
    if code in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EBUSY):
        return DriverUnavailable(
            f"port {name} is in use by another program", reason=str(error), command=f"fuser -v {shlex.quote(name)}"
        )
    if code in (errno.EACCES, errno.EPERM):
        return DriverUnavailable(
            f"port {name} may not be opened by this user",
            reason="serial devices belong to the group dialout; log in again after joining it",
            command='sudo usermod -aG dialout "$USER"',
        )
    return DriverUnavailable(f"port {name} cannot be opened", reason=str(error), command=f"ls -l {shlex.quote(name)}")


def _lower_latency(port: serial.Serial) -> None:
    # A pty and some adapters do not know the request; what counts is the timer read back below.
    with suppress(ValueError, OSError, NotImplementedError):
        port.set_low_latency_mode(True)


def _check_latency(name: str, bus_rate_hz: int, folder: Path) -> None:
    """Refuse an adapter that holds bytes back, where the kernel says so."""
    timer = folder / Path(name).resolve().name / "latency_timer"
    try:
        latency_ms = int(timer.read_text())
    except (OSError, ValueError):
        return
    if latency_ms > LATENCY_MAX_MS and bus_rate_hz > LATENCY_MATTERS_ABOVE_HZ:
        raise ArmSetupError(
            f"port {name}: latency timer {latency_ms} ms > {LATENCY_MAX_MS} ms at a bus rate of {bus_rate_hz} Hz",
            reason="the adapter holds a partly filled USB packet back for this long; hardware/README.md has a udev rule",
            command=f"echo {LATENCY_MAX_MS} | sudo tee {shlex.quote(str(timer))}",
        )
