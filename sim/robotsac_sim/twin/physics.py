"""The world behind the servos, as far as the twin sees it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robotsac_sim.motors import MotorBank

Vector = NDArray[np.float64]


class Physics(Protocol):
    """What moves. Arrays are float64 (n,) in config joint order, signs of the MJCF; ``robotsac_sim.plant.Plant`` is one."""

    @property
    def q(self) -> Vector:
        """Joint positions, rad."""
        ...

    @property
    def dq(self) -> Vector:
        """Joint velocities, rad/s."""
        ...

    @property
    def tau(self) -> Vector:
        """Torque delivered in the last step, N·m."""
        ...

    @property
    def current(self) -> Vector:
        """Phase current that goes with it, A."""
        ...

    def set_torque(self, tau: Vector) -> None:
        """Ask the motors for ``tau``, N·m, from now on."""
        ...

    def advance_to(self, t_ns: int) -> None:
        """Run up to ``t_ns``."""
        ...


class FreeInertia:
    """One free inertia per joint, with viscous friction: physics a unit test can check by hand.

    Args:
        inertia: kg·m², (n,). Very large holds the shaft.
        torque_constant: N·m/A, (n,).
        damping: N·m·s/rad, (n,).
        q: start positions, rad, (n,).
        motors: voltage saturation; ``None`` for ideal torque sources.
        step_ns: integration step.
    """

    def __init__(
        self,
        inertia: Vector,
        torque_constant: Vector,
        *,
        damping: Vector | None = None,
        q: Vector | None = None,
        motors: MotorBank | None = None,
        step_ns: int = 1_000_000,
    ) -> None:
        n = len(inertia)
        self._inertia = inertia
        self._torque_constant = torque_constant
        self._damping = np.zeros(n) if damping is None else damping
        self._motors = motors
        self._step_ns = step_ns
        self._command = np.zeros(n)
        self._delivered = np.zeros(n)
        self._q = np.zeros(n) if q is None else np.array(q, dtype=np.float64)
        self._dq = np.zeros(n)
        self.t_ns = 0

    @property
    def q(self) -> Vector:
        """Joint positions, rad; a copy."""
        return self._q.copy()

    @property
    def dq(self) -> Vector:
        """Joint velocities, rad/s; a copy."""
        return self._dq.copy()

    @property
    def tau(self) -> Vector:
        """Torque delivered in the last step, N·m; a copy."""
        return self._delivered.copy()

    @property
    def current(self) -> Vector:
        """Phase current that goes with it by the torque constant, A."""
        return self._delivered / self._torque_constant

    def set_torque(self, tau: Vector) -> None:
        """Ask for ``tau`` (n,), N·m, from the next step on."""
        self._command[:] = tau

    def place(self, q: Vector, dq: Vector | None = None) -> None:
        """Put the joints at ``q`` (n,), rad, moving at ``dq`` (n,), rad/s."""
        self._q[:] = q
        self._dq[:] = 0.0 if dq is None else dq

    def advance_to(self, t_ns: int) -> None:
        """Whole steps, none beyond ``t_ns``; semi-implicit Euler."""
        dt = self._step_ns * 1e-9
        while t_ns - self.t_ns >= self._step_ns:
            self._delivered = (
                self._command.copy() if self._motors is None else self._motors.deliver(self._command, self._dq)
            )
            self._dq += (self._delivered - self._damping * self._dq) / self._inertia * dt
            self._q += self._dq * dt
            self.t_ns += self._step_ns
