"""How long another process has given no sign of life, as the one that watches it saw."""

from __future__ import annotations

from typing import NamedTuple

# A watcher that did not look for longer did not run itself (Ctrl-Z and fg, a machine that swaps): then it saw nothing.
LOOK_MAX_S = 1.0


class Bound(NamedTuple):
    """Silence that the operator is told of, and silence after which the process is ended, s."""

    told_s: float
    max_s: float


class Silence:
    """Time since a sign of life last changed, s. Only time in which the watcher looked counts.

    Args:
        now_s: monotonic time, s.
    """

    def __init__(self, now_s: float) -> None:
        self.seconds = 0.0
        self._sign: object = None
        self._looked_s = now_s

    def look(self, sign: object, now_s: float) -> float:
        """Returns the silence, s. ``sign`` differs from the last one while the process lives; call it all the time."""
        lasted_s, self._looked_s = now_s - self._looked_s, now_s
        self.seconds = 0.0 if sign != self._sign else self.seconds + min(lasted_s, LOOK_MAX_S)
        self._sign = sign
        return self.seconds
