"""A twin of its own, as hardware would be, and a collector that moves it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from collections.abc import Callable, Iterator
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


STARTS = 3


@contextlib.contextmanager
def collecting_on_a_twin(
    folder: Path, terminal: Callable[[], int] | None = None, more: tuple[str, ...] = ()
) -> Iterator[tuple[Command, Command]]:
    """(collect, twin), the arm moving; ``more`` settings for the collector, on a new ``terminal`` for each start.

    Where the machine stood still for longer than the servos wait for a word (their watchdog, 100 ms unless ``more`` says
    otherwise), before the arm has moved, both start anew. Nothing else that ends a start is forgiven: the actor has lived to
    tell of it.
    """
    for starts_left in reversed(range(STARTS)):
        with running(folder, "twin", "twin", "--robot", "arm0", "--json") as twin:
            wait_for(lambda: "port" in twin.output(), "the port", twin)
            port = json.loads(twin.output().splitlines()[0])["port"]
            arguments = ["collect", "--robot", "arm0", "--run", "bot", "--offline", "--json"]
            settings = [f"robot.driver.port='{port}'", "robot.driver.read_deadline_ms=12.0", *more]
            extra = [word for setting in settings for word in ("--set", setting)]
            with running(folder, "collect", *arguments, *extra, terminal=terminal and terminal()) as collect:
                wait_for(lambda: stored(folder) > 20 or collect.ended(), "20 records of a moving arm", collect)
                if not collect.ended():
                    yield collect, twin
                    return
                last_words(twin)
                assert starts_left and _stood_still(folder), f"it ended before the arm had moved:\n{collect.output()}"
        _forget(folder)


def _stood_still(folder: Path) -> bool:
    """Whether the collector's one fault is that the servos' watchdog has expired."""
    faults = [json.loads(path.read_text()) for path in (folder / "runs/bot/faults").glob("*.json")]
    return len(faults) == 1 and "watchdog expired" in json.dumps(faults[0])


def _forget(folder: Path) -> None:
    """As before the first start."""
    shutil.rmtree(folder / "runs")
    for log in ("twin.log", "collect.log"):
        (folder / log).unlink()


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
