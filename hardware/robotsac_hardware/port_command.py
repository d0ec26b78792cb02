"""A program that provides the port: ``port_command`` in ``[robot.driver]``.

The twin is one; a bridge to a bus on another machine could be another. The contract is small:

* it prints one JSON line, ``{"port": "/dev/pts/3", …}``, once the port can be opened, and nothing more on its stdout;
* it ends some time after its stdin does, so it goes away by itself when this process is killed;
* it runs in a session of its own, so Ctrl-C in the terminal ends the driver first, with torque off, and it afterwards.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

from robotsac.clock import NS_PER_S, Clock
from robotsac.errors import DriverUnavailable

START_DEADLINE_S = 20.0
END_DEADLINE_S = 2.0
LINE_SIZE_MAX = 65_536
_STDERR_TAIL = 4096
# For the end of whatever command was typed: its port is provided by a program that is there.
_TWIN = "--robot arm0-twin"


class PortProgram:
    """A running program that provides a port.

    Args:
        command: program and arguments. ``robotsac`` is run with this Python, whether or not it is on the path.
        clock: host time.
        first_line: written to its standard input at once; it may read or leave it.
    """

    def __init__(self, command: Sequence[str], clock: Clock, first_line: bytes = b"") -> None:
        self.command = tuple(command)
        self._first_line_in = first_line
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None

    def start(self, deadline_s: float = START_DEADLINE_S) -> str:
        """Run it and return the port it names.

        Raises:
            DriverUnavailable: it cannot be run, ends, says something else, or says nothing in time; the reason is its last
                line on stderr.
        """
        if self._process is not None:
            raise ValueError("a port program is started once")
        # A file instead of a pipe: a program that complains a lot must not block on it.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        try:
            self._process = subprocess.Popen(
                _runnable(self.command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                start_new_session=True,
            )
            self._tell(self._first_line_in)
            line = self._first_line(deadline_s)
            return _port_of(line)
        except OSError as error:
            self.close()
            raise self._unavailable("cannot be run", str(error), _TWIN) from error
        except _NoPort as error:
            reason = error.reason or self._last_complaint() or "it printed nothing on stderr"
            self.close()
            raise self._unavailable(str(error), reason, shlex.join(self.command)) from None

    def close(self) -> None:
        """End it: stdin closed, asked, waited for, killed. Idempotent; never raises."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    def _tell(self, line: bytes) -> None:
        """A pipe holds 64 kB, far more than a robot's configuration; a program that has ended already says so itself."""
        assert self._process is not None and self._process.stdin is not None
        fd = self._process.stdin.fileno()
        os.set_blocking(fd, False)
        with suppress(BrokenPipeError, BlockingIOError):
            os.write(fd, line)

    def _first_line(self, deadline_s: float) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        fd = self._process.stdout.fileno()
        deadline_ns = self._clock.now_ns() + int(deadline_s * NS_PER_S)
        line = b""
        while b"\n" not in line:
            left_s = (deadline_ns - self._clock.now_ns()) / NS_PER_S
            ready, _, _ = select.select((fd,), (), (), max(left_s, 0.0))
            if not ready:
                raise _NoPort(f"named no port within {deadline_s:g} s")
            chunk = os.read(fd, LINE_SIZE_MAX)
            if not chunk:
                raise _NoPort("ended without naming a port")
            line += chunk
            if len(line) > LINE_SIZE_MAX:
                raise _NoPort("printed something else than one line with a port")
        return line.split(b"\n", 1)[0]

    def _last_complaint(self) -> str:
        assert self._stderr is not None
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_TAIL))
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        said = [index for index, line in enumerate(lines) if line.startswith("robotsac: ")]
        if said:
            # One of ours: the sentence and its reason, without their labels.
            words = [line.strip().removeprefix("robotsac: ").removeprefix("why: ") for line in lines[said[-1] :][:2]]
            return ": ".join(words)
        return lines[-1].strip() if lines else ""

    def _unavailable(self, what: str, reason: str, command: str) -> DriverUnavailable:
        words = " ".join(self.command)
        return DriverUnavailable(f"robot.driver.port_command: {words!r} {what}", reason=reason, command=command)


class _NoPort(Exception):
    """Why a program did not provide a port; ``reason`` where it said one itself."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def _runnable(command: Sequence[str]) -> list[str]:
    if command[0] == "robotsac":
        return [sys.executable, "-m", "robotsac", *command[1:]]
    return list(command)


def _port_of(line: bytes) -> str:
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if isinstance(said, dict) and isinstance(said.get("error"), dict):
        raise _NoPort(f"gave up: {said['error'].get('message', '')}", str(said["error"].get("reason", "")))
    port = said.get("port") if isinstance(said, dict) else None
    if not isinstance(port, str) or not port:
        raise _NoPort(f"printed {line[:80].decode('utf-8', 'replace')!r} where a port was expected")
    return port


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        # Its session is its own, so this reaches it and what it started, and nothing else. It may be gone already.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        try:
            process.wait(END_DEADLINE_S)
            return
        except subprocess.TimeoutExpired:
            continue
