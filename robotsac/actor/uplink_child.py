"""The uplink as the supervisor sees it: start it, start it again when it dies or hangs, and account for every record."""

from __future__ import annotations

import shlex
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess

from robotsac.actor.actor_child import POLL_S, make_end
from robotsac.actor.uplink import uplink_main
from robotsac.actor.uplink_block import UplinkArgs
from robotsac.errors import StorageError
from robotsac.shared import RecordRing, SharedBlock
from robotsac.signals import signals_held
from robotsac.silence import Silence
from robotsac.spool import Spool

# Starts within a window: one that ends or hangs once in a while, in a run of days, is started again for ever.
UPLINK_STARTS_MAX = 4
UPLINK_WINDOW_S = 600.0
# Shown to the operator from then on; a slow SD card does that.
SILENCE_TOLD_S = 3.0
# A round takes tens of ms, a commit on a bad disk seconds; at 50 Hz the ring has room for minutes.
SILENCE_MAX_S = 20.0
# Imports, and opening a large spool, on a small or a busy machine.
START_SILENCE_MAX_S = 60.0
# At the end: its own deadlines (``UplinkArgs``) add up to 10 s, a successor has to be imported first.
UPLINK_PATIENCE_S = 20.0
KILL_PATIENCE_S = 3.0


class UplinkChild:
    """See module docstring.

    Args:
        spawn: starts it.
        args: it is given.
        block: ``UPLINK_FIELDS``; the uplink attaches to it by name.
        ring: of records, likewise.

    Attributes:
        starts: how often it was started.
        silent_s: how long it has given no sign of life; 0 as long as that is nothing to tell.
    """

    def __init__(self, spawn: SpawnContext, args: UplinkArgs, block: SharedBlock, ring: RecordRing) -> None:
        self._spawn = spawn
        self._args = args
        self._block = block
        self._ring = ring
        self._process: BaseProcess | None = None
        self._silence = Silence(time.monotonic())
        self._recent: deque[float] = deque()
        self.starts = 0
        self.silent_s = 0.0

    def start(self) -> None:
        """What a predecessor had not stored is still in the ring."""
        self._block["beat_ns"] = 0
        self._silence, self.silent_s = Silence(time.monotonic()), 0.0
        self._process = self._spawn.Process(target=uplink_main, args=(self._args,), name="uplink")
        with signals_held():
            self._process.start()
        self.starts += 1
        self._recent.append(time.monotonic())

    def mend(self) -> str:
        """Start it again when it has ended or hangs. Returns what was done, in words; ``""`` while it is well.

        Raises:
            StorageError: that was tried too often, it ended because it could not go on, or it cannot be ended.
        """
        process = self._process
        if process is None:
            return ""
        what = "ended unexpectedly"
        if process.is_alive():
            if self._look() <= self._silence_max_s():
                return ""
            what = f"gave no sign of life for {self._silence.seconds:.0f} s"
            self._kill(process)
        while self._recent and time.monotonic() - self._recent[0] > UPLINK_WINDOW_S:
            self._recent.popleft()
        if len(self._recent) >= UPLINK_STARTS_MAX or self._block["error"]:
            raise StorageError(
                f"the uplink process {what}",
                reason=f"it was started {len(self._recent)} times within {UPLINK_WINDOW_S:.0f} s",
                command=shlex.join(("cat", str(self._args.status_path))),
            )
        told = process.exitcode == 0  # by a SIGTERM to everybody; the actor still parks
        self.start()
        return "" if told else f"the uplink process {what}; started it again, no record is lost"

    def end(self, while_waiting: Callable[[], None]) -> None:
        """Let it store and deliver what it can, and in the end make it go. One that went without having stored
        everything has a successor, once."""
        if self._process is None:
            return
        self._block["stop"] = 1
        self._await_end(self._process, while_waiting)
        # One that says itself that it cannot store more has tried for long enough.
        gave_up = self._process.exitcode == StorageError.exit_code
        if self._ring.fill and self._process.exitcode is not None and not gave_up:
            self.start()
            self._await_end(self._process, while_waiting)

    def account(self) -> tuple[int, int]:
        """After :meth:`end`: records of all boots that wait in the spool for a learner, and records that are lost."""
        unsent, fill, process = self._block["unsent"], self._ring.fill, self._process
        if process is None or process.exitcode in (None, 0):
            return unsent, fill
        # Killed, it told neither what it had stored last nor what had been delivered.
        try:
            with Spool(self._args.spool_path, self._args.spool) as spool:
                stored = max((info.last_seq for info in spool.boots() if info.boot == self._args.boot), default=-1)
                return spool.unacked(), int((self._ring.peek(fill)["seq"].astype("i8") > stored).sum())
        except StorageError:
            return unsent, fill

    def _look(self) -> float:
        silent_s = self._silence.look(self._block["beat_ns"], time.monotonic())
        self.silent_s = silent_s if silent_s > SILENCE_TOLD_S and self._block["beat_ns"] else 0.0
        return silent_s

    def _silence_max_s(self) -> float:
        return SILENCE_MAX_S if self._block["beat_ns"] else START_SILENCE_MAX_S

    def _kill(self, process: BaseProcess) -> None:
        # No SIGTERM: that asks for what it does not do, and the arm waits meanwhile.
        process.kill()
        process.join(KILL_PATIENCE_S)
        if process.is_alive():
            raise StorageError(
                "the uplink process hangs and does not end, not even when killed",
                reason="the disk does not answer; records wait in memory",
                command=shlex.join(("df", "-h", str(self._args.spool_path.parent))),
            )

    def _await_end(self, process: BaseProcess, while_waiting: Callable[[], None]) -> None:
        deadline_s = time.monotonic() + UPLINK_PATIENCE_S
        while process.is_alive() and time.monotonic() < deadline_s and self._look() <= self._silence_max_s():
            process.join(POLL_S)
            while_waiting()
        make_end(process, KILL_PATIENCE_S)
        self.silent_s = 0.0
