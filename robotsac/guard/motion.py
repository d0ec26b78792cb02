"""Point-to-point motion that the guard runs by itself: resets, parking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robotsac.arm import ArmSpec, Vector

# Peak of a minimum-jerk profile's speed over its mean.
PEAK_OVER_MEAN = 1.875
# Share of dq_max that a move may use at its fastest.
SPEED_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class MinimumJerk:
    """A straight line in joint space with a minimum-jerk profile, 10 s³ − 15 s⁴ + 6 s⁵ (Flash and Hogan 1985, eq. 4).

    Args:
        start, goal: (n,), rad.
        duration_s: > 0.
    """

    start: Vector
    goal: Vector
    duration_s: float

    def at(self, t_s: float) -> tuple[Vector, Vector]:
        """Reference position (n,), rad, and velocity (n,), rad/s, at ``t_s`` after the start."""
        s = min(max(t_s / self.duration_s, 0.0), 1.0)
        shape = s * s * s * (10.0 + s * (6.0 * s - 15.0))
        slope = 30.0 * s * s * (1.0 - s) * (1.0 - s) / self.duration_s
        path = self.goal - self.start
        return self.start + shape * path, slope * path


def plan(start: Vector, goal: Vector, duration_s: float, spec: ArmSpec) -> MinimumJerk:
    """A move in ``duration_s``, or longer where a joint would exceed 60 % of its velocity limit."""
    needed_s = float(np.max(PEAK_OVER_MEAN * np.abs(goal - start) / (SPEED_SHARE * spec.dq_max)))
    return MinimumJerk(start.copy(), goal.copy(), max(duration_s, needed_s, 1e-3))


def tracking(reference: tuple[Vector, Vector], q: Vector, dq: Vector, spec: ArmSpec) -> Vector:
    """PD torque (n,), N·m, toward a reference position and velocity; gravity compensation comes on top."""
    q_ref, dq_ref = reference
    return spec.hold_stiffness * (q_ref - q) + spec.damping * (dq_ref - dq)
