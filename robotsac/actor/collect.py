"""``collect``: the supervisor next to the arm. It starts the actor and the uplink, watches them, and reports.

It is the only process of the three that listens to the terminal. Ctrl-C or SIGTERM once: the actor parks the arm and
switches torque off, the uplink delivers what it can; twice: no parking. A child that dies is noticed within a tick of
this loop: without the uplink, records wait in shared memory and it is started again; without the actor nothing moves,
because the servos' own watchdog has stopped the arm.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import IO

from robotsac.actor.actor import RECENT_EPISODES, ActorArgs, actor_main
from robotsac.actor.board import ACTOR_FIELDS, Phase, Stop
from robotsac.actor.contract import robot_contract
from robotsac.actor.outcome import read_outcome
from robotsac.actor.status import CollectStatus, LinkWatch
from robotsac.actor.uplink import UPLINK_FIELDS, UplinkArgs, uplink_main
from robotsac.config import Config
from robotsac.contract import Contract
from robotsac.errors import ArmError, RobotsacError, StorageError
from robotsac.records import record_dtype
from robotsac.shared import RecordRing, SharedBlock

POLL_S = 0.05
# Parking may take a long move; after that the actor is ended, and the servos' watchdog is what is left.
STOP_PATIENCE_S = 20.0
KILL_PATIENCE_S = 3.0
UPLINK_PATIENCE_S = 15.0
UPLINK_STARTS_MAX = 4


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
    """What a run of ``collect`` amounted to."""

    status: CollectStatus
    seconds: float
    torque_off: bool
    unsent: int
    error: RobotsacError | None
    events: tuple[str, ...]


def collect(
    config: Config,
    options: CollectOptions,
    on_status: Callable[[CollectStatus], None],
    on_event: Callable[[str], None],
) -> CollectReport:
    """Run until the steps are done, a signal arrives or something fails; always ends with the arm stopped.

    Raises:
        ConfigError, StorageError: before anything started.
    """
    options.folder.mkdir(parents=True, exist_ok=True)
    with _only_one(options.folder):
        contract = robot_contract(config)
        (options.folder / "config.json").write_text(config.model_dump_json(indent=2), encoding="utf-8")
        supervisor = _Supervisor(config, options, contract, on_status, on_event)
        try:
            return supervisor.run()
        finally:
            supervisor.release()


class _Supervisor:
    def __init__(
        self,
        config: Config,
        options: CollectOptions,
        contract: Contract,
        on_status: Callable[[CollectStatus], None],
        on_event: Callable[[str], None],
    ) -> None:
        self._config = config
        self._options = options
        self._contract = contract
        self._on_status = on_status
        self._on_event = on_event
        self._spawn = multiprocessing.get_context("spawn")
        self._boot = secrets.token_hex(8)
        self._seed = options.seed if options.seed is not None else secrets.randbits(32)
        dtype = record_dtype(contract.obs_dim, contract.act_dim)
        self._ring = RecordRing.create(dtype, config.collect.ring_records)
        self._actor_board = SharedBlock.create(ACTOR_FIELDS)
        self._uplink_board = SharedBlock.create(UPLINK_FIELDS)
        self._link_watch = LinkWatch(options.folder / "uplink-status.json")
        self._actor: BaseProcess | None = None
        self._uplink: BaseProcess | None = None
        self._uplink_starts = 0
        self._signals = 0
        self._begin_s = 0.0

    def run(self) -> CollectReport:
        """Start, watch, end."""
        self._begin_s = time.monotonic()
        for stale in ("actor-outcome.json", "uplink-status.json", "realtime.txt"):
            (self._options.folder / stale).unlink(missing_ok=True)
        error: RobotsacError | None = None
        with self._signals_counted():
            try:
                self._start_uplink()
                self._start_actor()
                error = self._watch()
            finally:
                error = self._end_actor() or error
                self._end_uplink()
        status = self._status()
        self._on_status(status)
        return CollectReport(
            status=status,
            seconds=time.monotonic() - self._begin_s,
            torque_off=bool(self._actor_board["torque_off"]),
            unsent=int(self._uplink_board["unsent"]),
            error=self._link_watch.error() or error,
            events=tuple(self._link_watch.events),
        )

    def release(self) -> None:
        """Give the shared memory back."""
        for part in (self._ring, self._actor_board, self._uplink_board):
            part.close()
            part.unlink()

    # ---- watching --------------------------------------------------------------------------------------------------

    def _watch(self) -> RobotsacError | None:
        """Until the actor ends. Returns an error of the uplink, if that is what ended the run."""
        said: set[str] = set()
        while self._actor is not None and self._actor.is_alive():
            for line in self._news():
                if line not in said or "link" in line:
                    self._on_event(line)
                said.add(line)
            self._on_status(self._status())
            self._order_stop()
            if self._uplink is not None and not self._uplink.is_alive():
                if failure := self._restart_uplink():
                    return failure
            self._actor.join(POLL_S)
        return None

    def _news(self) -> Iterator[str]:
        yield from self._link_watch.news()
        realtime = self._options.folder / "realtime.txt"
        if realtime.exists():
            yield f"real-time set-up: {realtime.read_text(encoding='utf-8').strip()}"

    def _order_stop(self) -> None:
        """Turn signals, a refused link and a reached success rate into the actor's ``stop`` field."""
        board = self._actor_board
        if self._signals >= 2:
            board["stop"] = Stop.NOW
        elif board["stop"] == Stop.NO and self._has_reason_to_stop():
            board["stop"] = Stop.PARK

    def _has_reason_to_stop(self) -> bool:
        told = self._signals > 0 or self._options.should_stop()
        return told or bool(self._uplink_board["error"]) or self._learned_enough()

    def _learned_enough(self) -> bool:
        goal, board = self._options.until_success, self._actor_board
        recent = board["recent_episodes"]
        return goal is not None and recent >= RECENT_EPISODES and board["recent_successes"] >= goal * recent

    def _status(self) -> CollectStatus:
        return CollectStatus.read(
            self._config.robot.name, time.monotonic() - self._begin_s, self._actor_board, self._uplink_board
        )

    # ---- children --------------------------------------------------------------------------------------------------

    def _start_actor(self) -> None:
        args = ActorArgs(
            config=self._config,
            folder=self._options.folder,
            seed=self._seed,
            steps=self._options.steps,
            offline=self._options.offline,
            ring_name=self._ring.name,
            board_name=self._actor_board.name,
            uplink_board_name=self._uplink_board.name,
        )
        self._actor = self._spawn.Process(target=actor_main, args=(args,), name="actor")
        self._actor.start()

    def _start_uplink(self) -> None:
        config, folder = self._config, self._options.folder
        args = UplinkArgs(
            robot=config.robot.name,
            boot=self._boot,
            contract_json=self._contract.to_json(),
            link=config.link,
            spool=config.spool,
            spool_path=folder / "spool.db",
            policies=folder / "policies",
            ring_name=self._ring.name,
            ring_capacity=config.collect.ring_records,
            obs_dim=self._contract.obs_dim,
            act_dim=self._contract.act_dim,
            block_name=self._uplink_board.name,
            status_path=folder / "uplink-status.json",
        )
        self._uplink = self._spawn.Process(target=uplink_main, args=(args,), name="uplink")
        self._uplink.start()
        self._uplink_starts += 1

    def _restart_uplink(self) -> RobotsacError | None:
        if self._uplink_starts < UPLINK_STARTS_MAX and not self._uplink_board["error"]:
            self._on_event("the uplink process ended unexpectedly; started it again, no record is lost")
            self._start_uplink()
            return None
        self._actor_board["stop"] = Stop.PARK
        return self._link_watch.error() or StorageError(
            "the uplink process keeps ending", reason=f"it was started {self._uplink_starts} times"
        )

    def _end_actor(self) -> RobotsacError | None:
        actor = self._actor
        if actor is None:
            return None
        if actor.is_alive() and self._actor_board["stop"] == Stop.NO:
            self._actor_board["stop"] = Stop.PARK
        deadline_s = time.monotonic() + STOP_PATIENCE_S
        while actor.is_alive() and time.monotonic() < deadline_s:
            self._order_stop()
            self._on_status(self._status())
            actor.join(POLL_S)
        for end in (actor.terminate, actor.kill):
            if actor.is_alive():
                end()
                actor.join(KILL_PATIENCE_S)
        if actor.exitcode == 0:
            return None
        return read_outcome(self._options.folder / "actor-outcome.json") or ArmError(
            f"the actor process ended with exit code {actor.exitcode}",
            reason="torque was not read back as off; the servos' own bus watchdog has stopped the arm"
            if not self._actor_board["torque_off"]
            else "torque was read back as off",
            command=f"ls {self._options.folder}/faults",
        )

    def _end_uplink(self) -> None:
        uplink = self._uplink
        if uplink is None:
            return
        self._uplink_board["stop"] = 1
        uplink.join(UPLINK_PATIENCE_S)
        for end in (uplink.terminate, uplink.kill):
            if uplink.is_alive():
                end()
                uplink.join(KILL_PATIENCE_S)

    # ---- signals ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _signals_counted(self) -> Iterator[None]:
        """SIGINT and SIGTERM become a count that the watch loop reads; the old handlers come back afterwards."""

        def count(_signal: int, _frame: FrameType | None) -> None:
            self._signals += 1

        old = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """One collector per run folder: two would mix their records in one spool.

    Raises:
        StorageError: another one holds it.
    """
    lock: IO[str] = (folder / ".lock").open("a+", encoding="utf-8")
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise StorageError(
                f"another collector uses {folder}",
                reason=f"process {owner} holds its lock",
                command="robotsac collect --run ANOTHER_NAME …",
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
    finally:
        lock.close()


def report_json(report: CollectReport) -> str:
    """The report as one JSON line."""
    body = {
        **report.status.to_dict(),
        "seconds": round(report.seconds, 3),
        "torque_off": report.torque_off,
        "unsent": report.unsent,
        "error": str(report.error) if report.error is not None else None,
        "ended": Phase(report.status.phase).name.lower(),
    }
    return json.dumps(body)
