"""A twin of its own, as hardware would be, and a collector that moves it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    """(collect, twin), the arm moving; ``more`` settings for the collector, on a new ``terminal`` for each start."""
    moving = Begun("20 records of a moving arm", lambda _: stored(folder) > 20)
    with started_on_a_twin(folder, moving, terminal, more) as both:
        yield both


@dataclass(frozen=True)
class Begun:
    """What a test waits for before it does anything, in words and as a look at the collector."""

    what: str
    so: Callable[[Command], bool]


@contextlib.contextmanager
def started_on_a_twin(
    folder: Path, begun: Begun, terminal: Callable[[], int] | None = None, more: tuple[str, ...] = ()
) -> Iterator[tuple[Command, Command]]:
    """(collect, twin), once the collector has ``begun``; the rest as in ``collecting_on_a_twin``.

    Where the machine stood still for longer than the servos wait for a word (their watchdog, 100 ms unless ``more`` says
    otherwise) or the guard for their answers, before the arm has moved, both start anew. Nothing else that ends a start is
    forgiven: the actor has lived to tell of it.
    """
    for starts_left in reversed(range(STARTS)):
        with running(folder, "twin", "twin", "--robot", "arm0", "--json") as twin:
            wait_for(lambda: "port" in twin.output(), "the port", twin)
            port = json.loads(twin.output().splitlines()[0])["port"]
            arguments = ["collect", "--robot", "arm0", "--run", "bot", "--offline", "--json"]
            settings = [f"robot.driver.port='{port}'", "robot.driver.read_deadline_ms=12.0", *more]
            extra = [word for setting in settings for word in ("--set", setting)]
            with running(folder, "collect", *arguments, *extra, terminal=terminal and terminal()) as collect:
                wait_for(lambda: begun.so(collect) or collect.ended(), begun.what, collect)
                if not collect.ended():
                    yield collect, twin
                    return
                last_words(twin)
                assert starts_left and _stood_still(folder), f"it ended before {begun.what}:\n{collect.output()}"
        _forget(folder)


def _stood_still(folder: Path) -> bool:
    """Whether all that the collector's guard has to tell of is silence: its own, or the servos'."""
    faults = [json.loads(path.read_text()) for path in (folder / "runs/bot/faults").glob("*.json")]
    silent = [fault["code"] in ("DEADLINE", "BUS") or "watchdog expired" in fault["message"] for fault in faults]
    return bool(faults) and all(silent)


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
