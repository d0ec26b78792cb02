"""Counts ↔ SI, one value per joint. The only place where both meet.

Torque is current times a torque constant from the config. That is a model: gear friction (a dead band of about 0.13 A on
an XM430) and 20–30 % load-dependent loss lie between the two, and servos of one kind spread by ±18 %. X330 servos measure
supply current, for which torque is not even proportional.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robotsac.arm import Vector
from robotsac_hardware.control_table import MODELS, RAD_PER_COUNT, RAD_S_PER_COUNT, VOLT_PER_COUNT, Counts
from robotsac_hardware.params import ServoParams


class JointUnits:
    """Scales of n joints.

    A joint mounted the other way round has a sign of −1 here; the servo's own reverse bit stays clear, so that what goes
    over the bus means the same for every servo.

    Attributes:
        current_limit: largest goal, counts (n,): the config's ``current_max_a``, rounded down.
        torque_per_count: N·m per count of current (n,), > 0: the quantum of torque.
    """

    def __init__(self, servos: Sequence[ServoParams]) -> None:
        unit_a = np.array([MODELS[servo.model].current_unit_a for servo in servos])
        constant = np.array([servo.torque_constant_nm_a for servo in servos])
        sign = np.array([-1.0 if servo.reversed else 1.0 for servo in servos])
        self.zero = np.array([servo.zero_count for servo in servos], dtype=np.float64)
        self.torque_per_count: Vector = unit_a * constant
        # 1e-9: a limit that is a whole number of counts must not lose one to rounding.
        self.current_limit: Vector = np.floor(np.array([servo.current_max_a for servo in servos]) / unit_a + 1e-9)
        self._torque_scale = self.torque_per_count * sign
        self._counts_per_torque = 1.0 / self._torque_scale
        self._position_scale = RAD_PER_COUNT * sign
        self._velocity_scale = RAD_S_PER_COUNT * sign

    def goal(self, tau: Vector) -> Vector:
        """Goal currents (n,), whole counts, for torques (n,), N·m; clamped to the joint's current limit, because a servo
        ignores a goal beyond it without a word."""
        counts: Vector = np.rint(tau * self._counts_per_torque)
        np.minimum(counts, self.current_limit, out=counts)
        return np.maximum(counts, -self.current_limit, out=counts)

    def torque(self, counts: Counts | Vector) -> Vector:
        """Torque (n,), N·m, of currents (n,), counts."""
        tau: Vector = counts * self._torque_scale
        return tau

    def position(self, counts: Counts) -> Vector:
        """Joint position (n,), rad, of Present Position (n,), counts."""
        q: Vector = (counts - self.zero) * self._position_scale
        return q

    def count_at(self, q: Vector) -> Vector:
        """Inverse of :meth:`position`, not rounded."""
        counts: Vector = q / self._position_scale + self.zero
        return counts

    def velocity(self, counts: Counts) -> Vector:
        """Velocity (n,), rad/s, of Present Velocity (n,), counts."""
        dq: Vector = counts * self._velocity_scale
        return dq

    @staticmethod
    def voltage(counts: Counts) -> Vector:
        """V (n,) of Present Input Voltage (n,), counts."""
        volt: Vector = counts.astype(np.float64) * VOLT_PER_COUNT
        return volt
