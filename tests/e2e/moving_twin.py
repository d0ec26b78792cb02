"""A twin of its own, as hardware would be, and a collector that moves it."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

from processes import Command, children_of, running, wait_for

# For tests that last, on machines that do other things too: the arm must not fault because a bus round was late.
PATIENT = ("robot.guard.lost_rounds_max=50", "robot.driver.watchdog_ms=2000")


def actors(collector: int) -> list[int]:
    """The actor is the child that keeps the serial port open."""
    found = []
    for pid in children_of(collector):
        with contextlib.suppress(OSError):
            if any("/dev/pts/" in str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()):
                found.append(pid)
    return found


@contextlib.contextmanager
def collecting_on_a_twin(
    tmp_path: Path, terminal: int | None = None, more: tuple[str, ...] = ()
) -> Iterator[tuple[Command, Command]]:
    """(collect, twin), the arm moving; ``more`` settings for the collector."""
    with running(tmp_path, "twin", "twin", "--robot", "arm0", "--json") as twin:
        wait_for(lambda: "port" in twin.output(), "the port", twin)
        port = json.loads(twin.output().splitlines()[0])["port"]
        arguments = ["collect", "--robot", "arm0", "--run", "bot", "--offline", "--json"]
        settings = [f"robot.driver.port='{port}'", "robot.driver.read_deadline_ms=12.0", *more]
        extra = [word for setting in settings for word in ("--set", setting)]
        with running(tmp_path, "collect", *arguments, *extra, terminal=terminal) as collect:
            wait_for(lambda: stored(tmp_path) > 20, "20 records of a moving arm", collect)
            yield collect, twin


def stored(tmp_path: Path) -> int:
    """Records in the spool, as the uplink tells."""
    try:
        spool = json.loads((tmp_path / "runs/bot/uplink-status.json").read_text())["spool"]
        return sum(committed for committed, _, _ in spool.values())
    except (OSError, ValueError, KeyError):
        return 0


def last_words(twin: Command) -> dict:
    """The twin's own account of what happened on its bus."""
    twin.process.send_signal(signal.SIGTERM)
    assert twin.wait() == 0
    return twin.result()
