"""Time: the only place where it passes.

Everything above the arm port takes its time from ``arm.clock``: monotonic host time on hardware and twin, plant time in
MuJoCo, a hand-turned clock in tests. Times are integer nanoseconds on that clock; wall-clock time is for labels only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

NS_PER_S = 1_000_000_000


class Clock(Protocol):
    """What a clock can do.

    Attributes:
        free_running: True when time passes by itself; False when it stands still between calls.
    """

    @property
    def free_running(self) -> bool:
        """Whether time passes by itself."""
        ...

    def now_ns(self) -> int:
        """Present time, ns. Never goes back."""
        ...

    def sleep_until(self, t_ns: int) -> None:
        """Return once ``now_ns() >= t_ns``; at once when that is past."""
        ...

    def idle(self) -> None:
        """Called between polls for something outside this clock's time (a peer, a file).

        A virtual clock yields the processor here and stands still; a real one returns at once.
        """
        ...


class MonotonicClock:
    """Host time, ``CLOCK_MONOTONIC``."""

    free_running = True

    def now_ns(self) -> int:
        """Time since the host was booted, ns."""
        return time.monotonic_ns()

    def sleep_until(self, t_ns: int) -> None:
        """Sleep, again after an early return; the operating system wakes late, never early."""
        while (left_ns := t_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns / NS_PER_S)

    def idle(self) -> None:
        """Nothing to do: host time passes by itself."""
        return


class ManualClock:
    """A clock turned by hand: time passes when somebody sleeps or calls :meth:`advance`.

    Args:
        start_ns: first reading.
        on_advance: called with the new time whenever it moves; what lives in this time (a plant, a twin) follows here.
    """

    free_running = False

    def __init__(self, start_ns: int = 0, on_advance: Callable[[int], None] | None = None) -> None:
        self._now_ns = start_ns
        self._on_advance = on_advance

    def now_ns(self) -> int:
        """Where the clock was last turned to, ns."""
        return self._now_ns

    def sleep_until(self, t_ns: int) -> None:
        """Turn the clock to ``t_ns`` and return at once; never back."""
        if t_ns > self._now_ns:
            self._now_ns = t_ns
            if self._on_advance is not None:
                self._on_advance(t_ns)

    def advance(self, dt_ns: int) -> None:
        """Let ``dt_ns`` pass."""
        self.sleep_until(self._now_ns + dt_ns)

    def idle(self) -> None:
        """Stand still: only sleeping and :meth:`advance` turn this clock."""
        return


class Pacer:
    """A fixed-rate schedule of absolute deadlines.

    A tick that comes too late is skipped and counted: the next one is the next point of the grid, never a burst of
    ticks to catch up, which would put several torques on the bus within one period.

    Args:
        clock: whose time.
        period_ns: distance of the grid points, > 0.
    """

    def __init__(self, clock: Clock, period_ns: int) -> None:
        if period_ns <= 0:
            raise ValueError(f"period_ns must be > 0, not {period_ns}")
        self._clock = clock
        self.period_ns = period_ns
        self.deadline_ns = clock.now_ns()
        self.skipped = 0

    def restart(self) -> None:
        """Put the grid's origin at the present moment."""
        self.deadline_ns = self._clock.now_ns()

    def wait(self) -> int:
        """Sleep to the next grid point.

        Returns:
            How many grid points had already passed and were skipped; 0 when on time.
        """
        target_ns = self.deadline_ns + self.period_ns
        late_ns = self._clock.now_ns() - target_ns
        missed = 0
        if late_ns > 0:
            # A point missed by less than one period is still this tick, only late; whole periods are gone.
            missed = late_ns // self.period_ns
            target_ns += missed * self.period_ns
            self.skipped += missed
        self._clock.sleep_until(target_ns)
        self.deadline_ns = target_ns
        return missed
