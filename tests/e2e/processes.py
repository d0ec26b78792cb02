"""The real commands as real processes, and the two databases they leave behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from robotsac.config import load_config
from robotsac.learner.replay_log import ReplayLog
from robotsac.spool import Spool

# Machines that run tests are slow and busy; every wait here ends as soon as what it waits for has happened.
PATIENCE_S = 120.0

SMALL = ["--set", "learn.hidden=[32,32]", "--set", "learn.batch_size=32", "--set", "learn.checkpoint_every_s=1"]


def free_address() -> str:
    """A loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def _as_from_a_terminal() -> None:
    """Signals as a shell's foreground job has them: a test run in the background would hand on an ignored SIGINT."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Command:
    """One ``robotsac`` command running in ``folder``, its output in a file or on a ``terminal`` (a pty's slave)."""

    def __init__(self, folder: Path, name: str, *arguments: str, terminal: int | None = None) -> None:
        self.log = folder / f"{name}.log"
        self._file = self.log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "robotsac", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=self._file if terminal is None else terminal,
            stderr=self._file if terminal is None else terminal,
            start_new_session=True,
            preexec_fn=_as_from_a_terminal,
        )

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Its exit code. Fails the test, with its output, when it does not end."""
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise AssertionError(f"it did not end within {patience_s} s:\n{self.output()}") from None

    def ended(self) -> bool:
        """Whether the command has ended, however."""
        return self.process.poll() is not None

    def kill_all(self) -> None:
        """SIGKILL to the whole process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def output(self) -> str:
        """What it printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def result(self) -> dict:
        """The last JSON object it printed."""
        lines = [line for line in self.output().splitlines() if line.startswith("{")]
        return json.loads(lines[-1])

    def close(self) -> None:
        """End it if it still runs."""
        if not self.ended():
            self.kill_all()
        self._file.close()


@contextlib.contextmanager
def running(folder: Path, name: str, *arguments: str, terminal: int | None = None) -> Iterator[Command]:
    """A command for the length of a ``with`` block."""
    command = Command(folder, name, *arguments, terminal=terminal)
    try:
        yield command
    finally:
        command.close()


def wait_for(condition: Callable[[], bool], what: str, command: Command, patience_s: float = PATIENCE_S) -> None:
    """Poll until ``condition``; fails with the command's output."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {patience_s} s:\n{command.output()}"
        time.sleep(0.05)


def replay_seqs(path: Path) -> Counter[tuple[str, int]]:
    """(boot, seq) of every record in a learner's replay log, with how often it is there."""
    seen: Counter[tuple[str, int]] = Counter()
    with ReplayLog(path) as log:
        row = 0
        while batches := log.read_after(row, 100):
            for batch in batches:
                seen.update((batch.boot, int(seq)) for seq in batch.records["seq"])
                row = batch.row
    return seen


def spool_seqs(path: Path) -> Counter[tuple[str, int]]:
    """(boot, seq) of every record in a robot's spool."""
    seen: Counter[tuple[str, int]] = Counter()
    with Spool(path, load_config("arm0-sim").spool) as spool:
        for boot in spool.boots():
            after = -1
            while len(records := spool.pending(boot.boot, after, 1000)):
                seen.update((boot.boot, int(seq)) for seq in records["seq"])
                after = int(records["seq"][-1])
    return seen


def group_members(group: int) -> list[int]:
    """Processes of a process group that still run; the dead that wait to be reaped do not count."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def children_of(pid: int) -> list[int]:
    """Direct children of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == pid:
                found.append(int(stat.parent.name))
    return found
