"""``collect``: the supervisor next to the arm. It starts the actor and the uplink, watches them, and reports.

It is the only process of the three that listens to the terminal. Ctrl-C, SIGTERM or a closed terminal once: the actor parks the arm and
switches torque off, the uplink delivers what it can; twice: no parking. A child that dies is noticed within a tick of
this loop: without the uplink, records wait in shared memory and it is started again; without the actor nothing moves,
because the servos' own watchdog has stopped the arm.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from robotsac.actor.actor import ERROR_FILE, RECENT_EPISODES
from robotsac.actor.board import Phase, Stop
from robotsac.actor.children import POLL_S, Children
from robotsac.actor.contract import robot_contract
from robotsac.actor.status import CollectStatus, LinkWatch
from robotsac.actor.uplink_block import LinkPhase
from robotsac.clock import NS_PER_S
from robotsac.config import Config
from robotsac.errors import RobotsacError, StorageError, path_command
from robotsac.lock import FileLock
from robotsac.signals import SignalCount, counted_signals

HINT_AFTER_S = 4.0
LOCK_FILE, CONFIG_FILE = ".lock", "config.json"


@dataclass(frozen=True, slots=True)
class CollectOptions:
    """What the command line adds to the configuration.

    Args:
        folder: run folder of this robot; the spool in it outlives the run.
        steps: control steps to collect; 0 = until stopped.
        until_success: stop early once the success rate over a full window of episodes reaches this; ``None`` = never.
        offline: do not wait for a learner.
        seed: of exploration noise; ``None`` draws one.
        should_stop: asked all the time; True ends the run as Ctrl-C would.
    """

    folder: Path
    steps: int = 0
    until_success: float | None = None
    offline: bool = False
    seed: int | None = None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What a run of ``collect`` amounted to.

    ``seconds`` is the whole run, ``moving_seconds`` from the first movement to the last, both on the host's clock;
    ``interrupted`` when a signal ended it.
    """

    status: CollectStatus
    seconds: float
    moving_seconds: float
    interrupted: bool
    torque_off: bool
    unsent: int
    error: RobotsacError | None


def collect(
    config: Config,
    options: CollectOptions,
    on_status: Callable[[CollectStatus], None],
    on_event: Callable[[str], None],
) -> CollectReport:
    """Run until the steps are done, a signal arrives or something fails; always ends with the arm stopped.

    A run folder that this made for an arm that was never reached is taken away again.

    Raises:
        ConfigError, StorageError: before anything started.
    """
    contract, folder = robot_contract(config), options.folder
    made = [path for path in (folder, *folder.parents) if not os.access(path, os.F_OK)]
    with _only_one(folder):
        with writable(folder):
            (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2), encoding="utf-8")
        seed = options.seed if options.seed is not None else secrets.randbits(32)
        children = Children(config, folder, contract, seed=seed, steps=options.steps, offline=options.offline)
        try:
            return _Supervisor(config, options, children, on_status, on_event).run()
        finally:
            children.release()
            if folder in made and not children.uplink_starts:
                _take_away(made)


class _Supervisor:
    def __init__(
        self,
        config: Config,
        options: CollectOptions,
        children: Children,
        on_status: Callable[[CollectStatus], None],
        on_event: Callable[[str], None],
    ) -> None:
        self._robot = config.robot.name
        self._link = config.link
        self._options = options
        self._children = children
        self._on_status = on_status
        self._on_event = on_event
        self._link_watch = LinkWatch(options.folder / "uplink-status.json")
        self._signals = SignalCount()
        self._begin_s = 0.0
        self._hinted = False

    def run(self) -> CollectReport:
        """Start, watch, end."""
        self._begin_s = time.monotonic()
        for stale in (ERROR_FILE, "uplink-status.json", "realtime.txt"):
            (self._options.folder / stale).unlink(missing_ok=True)
        children = self._children
        error: RobotsacError | None = None
        with counted_signals() as self._signals:
            try:
                children.start_actor()
                error = self._watch()
            finally:
                try:
                    error = children.end_actor(self._while_waiting) or error
                finally:
                    children.end_uplink()
        status = self._status()
        self._on_status(status)
        actor = children.actor_board
        return CollectReport(
            status=status,
            seconds=time.monotonic() - self._begin_s,
            moving_seconds=(actor["beat_ns"] - actor["moving_since_ns"]) / NS_PER_S,
            interrupted=self._signals.count > 0,
            torque_off=bool(actor["torque_off"]),
            unsent=int(children.uplink_board["unsent"]),
            error=self._link_watch.error() or error,
        )

    def _watch(self) -> RobotsacError | None:
        """Until the actor ends. Returns an error of the uplink, if that is what ended the run."""
        while self._children.actor_runs(POLL_S):
            self._children.start_uplink_when_connected()
            self._hint()
            self._tell_news()
            self._while_waiting()
            if self._children.uplink_died():
                if not self._children.restart_uplink():
                    return self._link_watch.error() or StorageError(
                        "the uplink process keeps ending",
                        reason=f"it was started {self._children.uplink_starts} times",
                        command=f"cat {shlex.quote(str(self._options.folder / 'uplink-status.json'))}",
                    )
                self._on_event("the uplink process ended unexpectedly; started it again, no record is lost")
        self._tell_news()
        return None

    def _hint(self) -> None:
        """Said once, when waiting has begun to look like hanging."""
        refused = self._children.uplink_board["link_state"] == LinkPhase.REFUSED
        waiting = self._children.actor_board["phase"] == Phase.WAITING_FOR_LEARNER and not refused
        if (
            waiting
            and not self._options.offline
            and not self._hinted
            and time.monotonic() - self._begin_s > HINT_AFTER_S
        ):
            self._hinted = True
            start = self._link.learn_command()
            self._on_event(f"no learner answers yet (collect --offline does without); start one with: {start}")

    def _while_waiting(self) -> None:
        self._on_status(self._status())
        self._order_stop()

    def _tell_news(self) -> None:
        for line in self._link_watch.news():
            self._on_event(line)
        realtime = self._options.folder / "realtime.txt"
        if realtime.exists():
            self._on_event(f"real-time set-up: {realtime.read_text(encoding='utf-8').strip()}")
            realtime.unlink(missing_ok=True)

    def _order_stop(self) -> None:
        """Turn signals, a failed uplink and a reached success rate into the actor's ``stop`` field."""
        board = self._children.actor_board
        if self._signals.count >= 2:
            board["stop"] = Stop.NOW
        elif board["stop"] == Stop.NO and self._has_reason_to_stop():
            board["stop"] = Stop.PARK

    def _has_reason_to_stop(self) -> bool:
        told = self._signals.count > 0 or self._options.should_stop()
        return told or bool(self._children.uplink_board["error"]) or self._learned_enough()

    def _learned_enough(self) -> bool:
        goal, board = self._options.until_success, self._children.actor_board
        recent = board["recent_episodes"]
        return goal is not None and recent >= RECENT_EPISODES and board["recent_successes"] >= goal * recent

    def _status(self) -> CollectStatus:
        boards = self._children.actor_board, self._children.uplink_board
        return CollectStatus.read(self._robot, time.monotonic() - self._begin_s, *boards)


def _take_away(made: list[Path]) -> None:
    """Of the folders ``made``, innermost first, those that hold nothing but what every start writes."""
    for name in (LOCK_FILE, CONFIG_FILE, ERROR_FILE):
        (made[0] / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for folder in made:
            folder.rmdir()


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make ``folder``; whatever the disk refuses in the ``with`` block is said in words.

    Raises:
        StorageError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise StorageError(
            f"run folder {folder} cannot be written", reason=str(error), command=path_command(error, folder)
        ) from error


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """One collector per run folder: two would mix their records in one spool.

    Raises:
        StorageError: another one holds it.
    """
    lock = FileLock(folder / LOCK_FILE)
    with writable(folder):
        free = lock.acquire()
    if not free:
        raise StorageError(
            f"another collector uses {folder}",
            reason=f"process {lock.holder()} holds its lock; end it, or take another run with --run",
            command=f"fuser -v {shlex.quote(str(lock.path))}",
        )
    try:
        yield
    finally:
        lock.release()


def report_json(report: CollectReport) -> str:
    """The report as one JSON line; ``error`` as in every command: message, reason, command, exit_code, or null."""
    body = {
        **report.status.to_dict(),
        "seconds": round(report.seconds, 3),
        "torque_off": report.torque_off,
        "unsent": report.unsent,
        "error": report.error.to_dict() if report.error is not None else None,
        "ended": Phase(report.status.phase).name.lower(),
    }
    return json.dumps(body)
