"""From shaft angle to counts: direction, zero, turns, the filter of Present Velocity."""

from __future__ import annotations

import math

COUNTS_PER_TURN = 4096
COUNTS_PER_RAD = COUNTS_PER_TURN / (2.0 * math.pi)
# 0.229 rev/min per count of velocity.
RAD_S_PER_COUNT = 0.229 * 2.0 * math.pi / 60.0


class Encoder:
    """The absolute encoder of one servo on one joint.

    Args:
        reversed_mount: joint angle and counts run against each other.
        zero_count: count at joint angle zero.
        filter_s: time constant of Present Velocity.

    Attributes:
        direction: -1 where Drive Mode bit 0 reverses the servo's own positive sense.
        homing_offset: counts added to what is shown.
        stuck: fault: the reading is frozen.
    """

    def __init__(self, *, reversed_mount: bool, zero_count: int, filter_s: float) -> None:
        self._mount = -1.0 if reversed_mount else 1.0
        self._zero = zero_count
        self._filter_s = filter_s
        self._raw = float(zero_count)
        self._turns = 0
        self._filtered = 0.0
        self._shaft_velocity = 0.0
        self.direction = 1
        self.homing_offset = 0
        self.stuck = False

    @property
    def to_servo(self) -> float:
        """Sign between a joint quantity and the servo's own: multiply in either direction."""
        return self._mount * self.direction

    @property
    def omega(self) -> float:
        """Shaft velocity in the servo's sense, rad/s, unfiltered."""
        return self._shaft_velocity * self.direction

    @property
    def position(self) -> int:
        """Present Position, counts."""
        return self._count() + self._turns * COUNTS_PER_TURN + self.homing_offset

    @property
    def velocity(self) -> int:
        """Present Velocity, counts of 0.229 rpm: filtered, then cut to whole counts (rounding assumed)."""
        return round(self._filtered * self.direction / RAD_S_PER_COUNT)

    def sense(self, q: float, dq: float, dt_s: float) -> None:
        """Take the joint's angle, rad, and velocity, rad/s, ``dt_s`` after the last time."""
        if self.stuck:
            dq = 0.0
        else:
            self._raw = self._zero + self._mount * q * COUNTS_PER_RAD
        self._shaft_velocity = self._mount * dq
        gain = 1.0 - math.exp(-dt_s / self._filter_s) if self._filter_s > 0.0 else 1.0
        self._filtered += gain * (self._shaft_velocity - self._filtered)

    def fold(self) -> None:
        """Forget whole turns: what is shown, before the homing offset, lies in 0-4095 again."""
        self._turns = -(self._count() // COUNTS_PER_TURN)

    def restart(self) -> None:
        """Power came back: turns and filter start anew."""
        self._filtered = self._shaft_velocity
        self.fold()

    def _count(self) -> int:
        return self.direction * round(self._raw)
