"""``collect``: the supervisor next to the arm. It starts the actor and the uplink, watches them, and reports.

It is the only process of the three that listens to the terminal. Ctrl-C, SIGTERM or a closed terminal once: the actor parks the arm and
switches torque off, the uplink delivers what it can; twice: no parking. A child that dies is noticed within a tick of
this loop, one that hangs within seconds: without the uplink, records wait in shared memory and it is started again;
without the actor nothing moves, because the servos' own watchdog has stopped the arm. From the first order to stop on,
everything has a deadline.
"""

from __future__ import annotations

import os
import secrets
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from robotsac.actor.actor import ERROR_FILE, RECENT_EPISODES
from robotsac.actor.actor_child import POLL_S
from robotsac.actor.board import Phase, Stop
from robotsac.actor.children import Children
from robotsac.actor.contract import robot_contract
from robotsac.actor.folder import CONFIG_FILE, only_one, take_away, writable
from robotsac.actor.report import CollectReport, Ended, report_json
from robotsac.actor.status import CollectStatus, LinkWatch
from robotsac.actor.uplink_block import LinkPhase, lost_words
from robotsac.clock import NS_PER_S
from robotsac.config import Config
from robotsac.errors import ArmError, RobotsacError, StorageError
from robotsac.signals import SignalCount, counted_signals

__all__ = ["CollectOptions", "CollectReport", "Ended", "collect", "report_json", "writable"]

HINT_AFTER_S = 4.0


@dataclass(frozen=True, slots=True)
class CollectOptions:
    """What the command line adds to the configuration.

    Args:
        folder: run folder of this robot; the spool in it outlives the run.
        steps: control steps to collect; 0 = until stopped.
        until_success: stop early once the success rate over a full window of episodes reaches this; ``None`` = never.
        offline: do not wait for a learner.
        hint: say how to start a learner when none answers.
        seed: of exploration noise; ``None`` draws one.
        should_stop: asked all the time; True ends the run as Ctrl-C would.
    """

    folder: Path
    steps: int = 0
    until_success: float | None = None
    offline: bool = False
    hint: bool = True
    seed: int | None = None
    should_stop: Callable[[], bool] = lambda: False


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
    with only_one(folder):
        with writable(folder):
            (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2), encoding="utf-8")
        seed = options.seed if options.seed is not None else secrets.randbits(32)
        children = Children(config, folder, contract, seed=seed, steps=options.steps, offline=options.offline)
        try:
            return _Supervisor(config, options, children, on_status, on_event).run()
        finally:
            children.release()
            if folder in made and not children.uplink.starts:
                take_away(made)


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
        self._silence_told = False
        self._moved_ns = 0
        self._stop_reason: Ended | None = None

    def run(self) -> CollectReport:
        """Start, watch, end."""
        self._begin_s = time.monotonic()
        for stale in (ERROR_FILE, "uplink-status.json", "realtime.txt"):
            (self._options.folder / stale).unlink(missing_ok=True)
        error: RobotsacError | None = None
        with counted_signals() as self._signals:
            try:
                self._children.actor.start()
                error = self._watch()
            finally:
                error = self._children.end(self._while_waiting) or error
            return self._report(error)

    def _report(self, error: RobotsacError | None) -> CollectReport:
        unsent, lost = self._children.uplink.account()
        error = self._worst(error, lost)
        status = replace(self._status(), unsent=unsent)
        self._on_status(status)
        return CollectReport(
            status=status,
            seconds=time.monotonic() - self._begin_s,
            moving_seconds=self._moving_s(),
            ended=self._ended(error),
            interrupted=self._signals.count > 0,
            energized=bool(self._children.actor_board["energized"]),
            torque_off=bool(self._children.actor_board["torque_off"]),
            unsent=unsent,
            refused=min(unsent, self._children.uplink_board["refused"]),
            error=error,
        )

    def _worst(self, error: RobotsacError | None, lost: int) -> RobotsacError | None:
        """Of what went wrong, what the operator must know first; records that are lost, always."""
        told = self._link_watch.error()
        if told is not None and (error is None or error.exit_code != ArmError.exit_code):
            error = told  # the actor, which the uplink stopped, does not know why
        if not lost or (error is not None and error.message == lost_words(lost)):
            return error
        return StorageError(
            lost_words(lost),
            reason=str(error) if error is not None else "the uplink process hung, or was killed, before it took them",
            command=shlex.join(("df", "-h", str(self._options.folder))),
        )

    def _ended(self, error: RobotsacError | None) -> Ended:
        if error is not None:
            return Ended.ERROR
        done = 0 < self._options.steps <= self._children.actor_board["steps"]
        # A signal while the arm parks ends nothing that was not over.
        if done and self._stop_reason is not Ended.SUCCESS:
            return Ended.STEPS
        return self._stop_reason or Ended.SIGNAL

    def _moving_s(self) -> float:
        board = self._children.actor_board
        since_ns, until_ns = board["moving_since_ns"], self._moved_ns
        if not since_ns:
            return 0.0
        # A run shorter than a look was not seen to move.
        return ((until_ns if until_ns > since_ns else board["beat_ns"]) - since_ns) / NS_PER_S

    def _watch(self) -> RobotsacError | None:
        """Until the actor ends, or must be ended. Returns an error of the uplink, if that is what ended the run."""
        children = self._children
        while children.actor.runs(POLL_S) and not children.actor.overdue():
            children.start_uplink_when_connected()
            self._hint()
            self._tell_news()
            self._while_waiting()
            try:
                mended = children.uplink.mend()
            except StorageError as error:
                return self._link_watch.error() or error
            if mended:
                self._on_event(mended)
        self._tell_news()
        return None

    def _hint(self) -> None:
        """Said once, when waiting has begun to look like hanging."""
        refused = self._children.uplink_board["link_state"] == LinkPhase.REFUSED
        waiting = self._children.actor_board["phase"] == Phase.WAITING_FOR_LEARNER and not refused
        if (
            waiting
            and self._options.hint
            and not self._options.offline
            and not self._hinted
            and time.monotonic() - self._begin_s > HINT_AFTER_S
        ):
            self._hinted = True
            start = self._link.learn_command()
            self._on_event(f"no learner answers yet (collect --offline does without); start one with: {start}")

    def _while_waiting(self) -> None:
        actor = self._children.actor_board
        if actor["phase"] < Phase.PARKING:
            self._moved_ns = actor["beat_ns"]
        self._tell_silence()
        self._on_status(self._status())
        self._order_stop()

    def _tell_silence(self) -> None:
        """When the actor falls silent, and when it speaks again: each once."""
        actor = self._children.actor
        if bool(actor.silent_s) != self._silence_told:
            self._silence_told = not self._silence_told
            self._on_event(actor.silence_words() if self._silence_told else "the actor goes on")

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
        if board["stop"] == Stop.NO:
            self._stop_reason = self._reason_to_stop()
            if self._stop_reason is not None:
                board["stop"] = Stop.PARK

    def _reason_to_stop(self) -> Ended | None:
        if self._signals.count > 0 or self._options.should_stop():
            return Ended.SIGNAL
        if self._children.uplink_board["error"]:
            return Ended.ERROR
        return Ended.SUCCESS if self._learned_enough() else None

    def _learned_enough(self) -> bool:
        goal, board = self._options.until_success, self._children.actor_board
        recent = board["recent_episodes"]
        return goal is not None and recent >= RECENT_EPISODES and board["recent_successes"] >= goal * recent

    def _status(self) -> CollectStatus:
        children = self._children
        return CollectStatus.read(
            self._robot,
            time.monotonic() - self._begin_s,
            children.actor_board,
            children.uplink_board,
            actor_silent_s=children.actor.silent_s,
            uplink_silent_s=children.uplink.silent_s,
        )
