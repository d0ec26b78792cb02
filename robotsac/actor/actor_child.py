"""The actor as the supervisor sees it: start it, notice that it hangs, tell it to end, and in the end make it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess

from robotsac.actor.actor import ERROR_FILE, ActorArgs, actor_main
from robotsac.actor.board import Phase, Stop
from robotsac.child_error import read_child_error
from robotsac.errors import AGAIN, POWERED, ArmError, RobotsacError
from robotsac.shared import SharedBlock
from robotsac.signals import signals_held
from robotsac.silence import Bound, Silence

POLL_S = 0.05
# Parking may take a long move; after that the actor is ended, and the servos' watchdog is what is left.
STOP_PATIENCE_S = 20.0
# Told to end without parking, it has to read torque back as off; bringing the arm to rest comes on top.
NOW_PATIENCE_S = 8.0
# Between SIGTERM and SIGKILL. SIGTERM too tells it to damp the arm where it is and to switch torque off.
KILL_PATIENCE_S = 5.0


# It beats at every control tick: 3 s are some 150 beats at 50 Hz, far more than a loaded machine holds it up.
BEATING = Bound(3.0, 10.0)
# Switching torque on and off are exchanges of bounded length, without beats.
SILENT_WORK = Bound(15.0, 60.0)
# Imports and a driver that looks for its servos, or starts a twin, on a small or a busy machine. There is no torque yet.
BEFORE_TORQUE = Bound(30.0, 120.0)


class ActorChild:
    """See module docstring.

    Args:
        spawn: starts it.
        args: it is given.
        board: ``ACTOR_FIELDS``; the actor attaches to it by name.

    Attributes:
        silent_s: how long it has given no sign of life; 0 as long as that is nothing to tell.
    """

    def __init__(self, spawn: SpawnContext, args: ActorArgs, board: SharedBlock) -> None:
        self._spawn = spawn
        self._args = args
        self._board = board
        self._process: BaseProcess | None = None
        self._silence = Silence(time.monotonic())
        self._phase, self._phase_beat_ns, self._beats = int(Phase.STARTING), 0, False
        # The longest work between two beats: the guard brings the arm to rest.
        self._damping_s = args.config.robot.guard.stop_timeout_s
        self._deadline_s = float("inf")
        self._ordered = int(Stop.NO)
        self.silent_s = 0.0

    def start(self) -> None:
        """It connects to the arm, torque off, and then waits for the uplink."""
        self._process = self._spawn.Process(target=actor_main, args=(self._args,), name="actor")
        with signals_held():
            self._process.start()

    def runs(self, wait_s: float = 0.0) -> bool:
        """Whether it is alive after at most ``wait_s``. Call it all the time: its sign of life is looked at here."""
        if self._process is None:
            return False
        self._process.join(wait_s)
        self._look()
        return self._process.is_alive()

    def overdue(self) -> str:
        """Why it has to be ended by force, in words; ``""`` while it may go on."""
        limit_s = self._bound().max_s
        if self._silence.seconds > limit_s:
            return f"gave no sign of life for {self._silence.seconds:.0f} s, the limit is {limit_s:g} s"
        if time.monotonic() > self._deadline_s:
            return f"did not end within {self._patience_s():.0f} s of being told to"
        return ""

    def end(self, while_waiting: Callable[[], None]) -> RobotsacError | None:
        """Ask it to park unless that was done, wait, and in the end make it. Returns what it failed with."""
        if self._process is None:
            return None
        if self._board["stop"] == Stop.NO:
            self._board["stop"] = Stop.PARK
        while self.runs(POLL_S) and not self.overdue():
            while_waiting()
        forced = self.overdue() if self._process.is_alive() else ""
        make_end(self._process, KILL_PATIENCE_S)
        code = self._process.exitcode
        if code == 0 and self._board["phase"] == Phase.ENDED:
            return None
        return read_child_error(self._args.folder / ERROR_FILE) or self._failure(code, forced)

    def torque_words(self) -> str:
        """What is known about torque."""
        if self._board["torque_off"]:
            return "torque was read back as off"
        if not self._board["energized"]:
            return "torque was never switched on"
        return POWERED

    def silence_words(self) -> str:
        """What an operator should know while it is silent."""
        seconds = f"no sign of life from the actor for {self.silent_s:.0f} s"
        if not self._board["energized"]:
            return f"{seconds}; torque was never switched on"
        watchdog_ms = self._args.config.robot.driver.params().get("watchdog_ms")
        if watchdog_ms is None:
            return f"{seconds}; what the arm does meanwhile is not known"
        return f"{seconds}; the servos' own watchdog stops an arm that nobody has spoken to for {watchdog_ms} ms"

    def _look(self) -> None:
        phase, beat_ns, ordered = self._board["phase"], self._board["beat_ns"], self._board["stop"]
        if phase != self._phase:
            self._phase, self._phase_beat_ns, self._beats = phase, beat_ns, False
        # What has begun to beat is expected to go on.
        self._beats = self._beats or beat_ns != self._phase_beat_ns
        now_s = time.monotonic()
        silent_s = self._silence.look((phase, beat_ns), now_s)
        self.silent_s = silent_s if silent_s > self._bound().told_s else 0.0
        if ordered != self._ordered:
            self._ordered = ordered
            self._deadline_s = min(self._deadline_s, now_s + self._patience_s())

    def _patience_s(self) -> float:
        return NOW_PATIENCE_S + 2 * self._damping_s if self._ordered == Stop.NOW else STOP_PATIENCE_S

    def _bound(self) -> Bound:
        if self._beats:
            return Bound(BEATING.told_s, BEATING.max_s + self._damping_s)
        return BEFORE_TORQUE if self._phase < Phase.ENERGIZING else SILENT_WORK

    def _failure(self, code: int | None, forced: str) -> ArmError:
        if forced:
            gone = "and was ended" if code is not None else "and does not end, not even when killed"
            return ArmError(f"the actor process {forced}, {gone}", reason=self.torque_words(), command=AGAIN)
        folder = str(self._args.folder)
        early = " before it was done" if code == 0 else ""
        return ArmError(
            f"the actor process ended{early}, with exit code {code}",
            reason=self.torque_words(),
            # A folder that holds nothing yet is taken away again.
            command=AGAIN if self._board["phase"] < Phase.ENERGIZING else shlex.join(("ls", "-la", folder)),
        )


def make_end(process: BaseProcess, patience_s: float) -> bool:
    """SIGTERM, and after ``patience_s`` SIGKILL, which ends a stopped process too. Whether it is gone."""
    for end in (process.terminate, process.kill):
        if process.is_alive():
            end()
            process.join(patience_s)
    return not process.is_alive()
