"""Joint velocity from quantised positions.

The servo's own velocity register is filtered with about 30 ms of lag and has a quantum of 0.024 rad/s. Differencing two
positions has no lag but at 250 Hz a quantum of 0.38 rad/s. A least-squares line through the last W positions lies between.
For W samples, period T and position quantum c (uniform error, standard deviation c/√12):

    delay       (W − 1)·T / 2
    noise       c/√12 · √(12 / (W·(W² − 1))) / T          standard deviation
    one step    3·c·W / (2·(W² − 1)) / T                  largest reading of a joint at rest that moves by one count (W even)

    W    delay at 250 Hz    noise          one step
    6    10 ms              0.026 rad/s    0.099 rad/s
    8    14 ms              0.017 rad/s    0.073 rad/s     (default: below the guard's rest threshold of 0.08 rad/s)

All servos sample on the same request, so a round has one time for all joints. It is the host's, corrected by the servos':
between two rounds each servo's millisecond tick tells the truth to ±1 ms; the host tells it finely, unless it was preempted
between reading its clock and writing. So the host's difference is used, clipped to what every tick allows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robotsac.arm import Vector

TICK_S = 1e-3
# With fewer samples a line says less than the servo's own register.
SAMPLES_MIN = 4
# Rounds closer together than this (s², of all of them) hold no slope.
SPREAD_MIN_S2 = 1e-12


def round_distance(host_s: float, tick_ms_min: int, tick_ms_max: int) -> float:
    """Time between two rounds, s.

    Args:
        host_s: by the host's clock, s.
        tick_ms_min, tick_ms_max: by the servos' ticks, ms: the smallest and the largest of those that answered both times.
    """
    low, high = (tick_ms_max - 1) * TICK_S, (tick_ms_min + 1) * TICK_S
    if low > high:  # the servos contradict each other: no correction from them
        return host_s
    return min(max(host_s, low), high)


class SlopeVelocity:
    """Least-squares slope over the newest rounds, all joints at once.

    A joint that did not answer keeps its velocity; when it answers again, the samples it missed are put on the line to its
    last one. Rounds older than ``age_max_s`` do not count, so after a gap the estimate starts anew instead of
    averaging over it.

    Args:
        n: joints.
        window: rounds W, ≥ 4.
        age_max_s: age from which a round does not count.
    """

    def __init__(self, n: int, window: int, age_max_s: float) -> None:
        if window < SAMPLES_MIN:
            raise ValueError(f"velocity window {window} < {SAMPLES_MIN} samples")
        self._window = window
        self._age_max_s = age_max_s
        self._age = [0.0] * window
        self._q = np.zeros((window, n))
        self._missed = [0] * n
        self._dq = np.zeros(n)
        self._count = 0
        self._next = 0

    def update(self, q: Vector, distance_s: float, fresh: NDArray[np.bool_], otherwise: Vector) -> Vector:
        """Take one round; return velocities (n,), rad/s, in a new array.

        Args:
            q: positions (n,), rad.
            distance_s: time since the previous round, s.
            fresh: joints that answered (n,).
            otherwise: velocities (n,), rad/s, to use while fewer than 4 rounds count.
        """
        row = self._next
        self._age = [age + distance_s for age in self._age]
        self._age[row] = 0.0
        self._q[row] = q
        self._next = (row + 1) % self._window
        self._count = min(self._count + 1, self._window)
        complete = bool(np.logical_and.reduce(fresh))
        if not complete or any(self._missed):
            self._bridge(row, fresh, otherwise)
        dq = self._slope(otherwise)
        self._dq = dq if complete else np.where(fresh, dq, self._dq)
        return self._dq

    def _slope(self, otherwise: Vector) -> Vector:
        """Σ (mean age − age)·q / Σ (age − mean age)², over the rounds that count. Ages count backwards, hence the sign."""
        age, count = self._age[: self._count], self._count
        limit = self._age_max_s
        if age[self._next % count] > limit:  # the oldest
            count = sum(one <= limit for one in age)
        if count < SAMPLES_MIN:
            return otherwise
        mean = sum(one for one in age if one <= limit) / count
        weights = [mean - one if one <= limit else 0.0 for one in age]
        spread = sum(weight * weight for weight in weights)
        if spread < SPREAD_MIN_S2:
            return otherwise
        slope: Vector = np.array([weight / spread for weight in weights]) @ self._q[: self._count]
        return slope

    def _bridge(self, row: int, fresh: NDArray[np.bool_], otherwise: Vector) -> None:
        for joint, answered in enumerate(fresh.tolist()):
            if not answered:
                self._missed[joint] += 1
            elif self._missed[joint]:
                self._fill(joint, row, self._missed[joint], float(otherwise[joint]))
                self._missed[joint] = 0

    def _fill(self, joint: int, row: int, missed: int, otherwise: float) -> None:
        """Put the ``missed`` samples before ``row`` on the line to the last real one; when that has left the window, on a
        line with the slope ``otherwise``."""
        newest = self._q[row, joint]
        before = (row - missed - 1) % self._window
        slope = otherwise
        if missed < self._count - 1 and self._age[before] > 0.0:
            slope = (self._q[before, joint] - newest) / -self._age[before]
        for back in range(1, min(missed, self._count - 1) + 1):
            at = (row - back) % self._window
            self._q[at, joint] = newest - slope * self._age[at]
