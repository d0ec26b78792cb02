"""Whether stiffness and damping suit the bus rate, on the inertia that the MJCF gives each joint at home.

The guard's torque is made from the state of the bus round before: a sampled PD loop on a double integrator, with one period
of delay. With a = d·dt/I (damping d, period dt, inertia I) and b = k·dt²/I (stiffness k) its characteristic polynomial is

    z³ − 2 z² + (1 + a + b/2) z + b/2 − a

and by Jury's criterion its roots are inside the unit circle where 0 < e < 1 and b < e (1 − e), with e = a − b/2. So no
damping makes b ≥ 1/4 stable, and no stiffness a ≥ 1. The joint's own friction comes on top and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robotsac.config.schema import JointConfig, RobotConfig
from robotsac.dynamics import RigidBody
from robotsac.errors import ConfigError

DAMPING_MAX, STIFFNESS_MAX = 1.0, 0.25
"""a and b from which on nothing makes the loop stable."""
REFUSED_FROM = 2.0
"""Times those: the inertia is a model's, often without what the rotor adds behind its gearbox."""
GAIN_MARGIN = 2.0
"""A sound loop is stable still when its gains are raised by this factor."""


def stable(a: float, b: float) -> bool:
    """Whether the loop of the module docstring is; with ``b`` 0, damping alone."""
    if b == 0:
        return 0.0 <= a < DAMPING_MAX
    e = a - 0.5 * b
    return 0.0 < e < 1.0 and b < e * (1.0 - e)


def check_gains(robot: RobotConfig, body: RigidBody) -> list[str]:
    """What an operator should know about the gains, one sentence each; empty when they suit the bus rate.

    Raises:
        ConfigError: a gain is unstable even with twice the inertia; names joint, key, value and limit.
    """
    inertias = body.inertia(np.array(robot.home_rad)).tolist()
    dt_s = 1.0 / robot.bus_rate_hz
    warnings = []
    for index, (joint, inertia) in enumerate(zip(robot.joints, inertias, strict=True)):
        where = f"joint {index} ({joint.name})"
        why = f"the bus runs at {robot.bus_rate_hz} Hz and the model's inertia at home is {inertia:.3g} kg·m²"
        for key, value, limit, unit in _gains(joint, inertia, dt_s):
            if value > REFUSED_FROM * limit:
                raise ConfigError(
                    f"{where}: {key} {value:g} {unit} > {float(f'{limit:.3g}'):g} {unit}, from where on it is unstable",
                    reason=why,
                )
        warnings += [f"{where}: {what}; {why}" for what in _weak(joint, inertia, dt_s)]
    return warnings


def _gains(joint: JointConfig, inertia: float, dt_s: float) -> Iterator[tuple[str, float, float, str]]:
    """Key, value, the limit from which on nothing makes it stable, unit."""
    damping_max, stiffness_max = DAMPING_MAX * inertia / dt_s, STIFFNESS_MAX * inertia / dt_s**2
    yield "hold_stiffness_nm_rad", joint.hold_stiffness_nm_rad, stiffness_max, "N·m/rad"
    yield "damping_nm_s_rad", joint.damping_nm_s_rad, damping_max, "N·m·s/rad"
    yield "policy_damping_nm_s_rad", joint.policy_damping_nm_s_rad, damping_max, "N·m·s/rad"


def _weak(joint: JointConfig, inertia: float, dt_s: float) -> Iterator[str]:
    """Loops that are unstable, or would be with gains :data:`GAIN_MARGIN` times as high."""
    k, d, policy_d = joint.hold_stiffness_nm_rad, joint.damping_nm_s_rad, joint.policy_damping_nm_s_rad
    a, b = dt_s / inertia, dt_s**2 / inertia
    loops = (
        (f"hold_stiffness_nm_rad {k:g} with damping_nm_s_rad {d:g}", a * d, b * k),
        (f"policy_damping_nm_s_rad {policy_d:g}", a * policy_d, 0.0),
    )
    for what, a_loop, b_loop in loops:
        if not stable(a_loop, b_loop):
            yield f"{what} is unstable"
        elif not stable(GAIN_MARGIN * a_loop, GAIN_MARGIN * b_loop):
            yield f"{what} would be unstable at {GAIN_MARGIN:g} times that"
