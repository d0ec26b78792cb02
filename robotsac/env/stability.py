"""Whether a joint's gains suit the bus rate and its limits, on the inertia that the MJCF gives it.

The guard's torque is made from the state of the bus round before: a sampled PD loop on a double integrator, with one period
of delay. With a = d·dt/I (damping d, period dt, inertia I) and b = k·dt²/I (stiffness k) its characteristic polynomial is

    z³ − 2 z² + (1 + a + b/2) z + b/2 − a

and by Jury's criterion its roots are inside the unit circle where 0 < e < 1 and b < e (1 − e), with e = a − b/2. So no
damping makes b ≥ 1/4 stable, and no stiffness a ≥ 1. The joint's own friction comes on top and is left out.

Before a soft limit the guard lets a joint lag behind its speed bound by a·T, T = I/d, so that damping slows it by a =
``ddq_brake`` (``guard.limits.position``). The bound is 0 from a·T²/2 before the limit on; what is left of the speed then, a·T,
carries the joint a·T·T further. So it comes to rest a·T²/2 beyond its soft limit, or dq_max·T − a·T²/2 where a·T is more than
all its speed; with T too large that is beyond the hard limit, where the guard can only give up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from robotsac.config.schema import JointConfig, RobotConfig
from robotsac.dynamics import RigidBody, Vector
from robotsac.errors import ConfigError

DAMPING_MAX, STIFFNESS_MAX = 1.0, 0.25
"""a and b from which on nothing makes the loop stable."""
REFUSED_FROM = 2.0
"""Times those: the inertia is a model's, often without what the rotor adds behind its gearbox."""
GAIN_MARGIN = 2.0
"""A sound loop is stable still when its gains are raised by this factor."""

POSES = 64
"""Random poses within the limits; of their inertias the largest counts for braking."""
OVERSHOOT_SHARE = 0.5
"""Of the margin between soft and hard limit: what a joint at full speed may need of it without a word."""


def stable(a: float, b: float) -> bool:
    """Whether the loop of the module docstring is; with ``b`` 0, damping alone."""
    if b == 0:
        return 0.0 <= a < DAMPING_MAX
    e = a - 0.5 * b
    return 0.0 < e < 1.0 and b < e * (1.0 - e)


def check_gains(robot: RobotConfig, body: RigidBody, heaviest: Vector) -> list[str]:
    """What an operator should know about the gains, one sentence each; empty when they suit bus rate and limits.

    Args:
        robot: whose gains.
        body: its model.
        heaviest: :func:`largest_inertias` of it.

    Raises:
        ConfigError: a gain is unstable even with twice the inertia, or too weak to stop the joint before its hard limit;
            names joint, key, value and limit.
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
        warnings += _check_braking(where, joint, float(heaviest[index]))
    return warnings


def largest_inertias(robot: RobotConfig, body: RigidBody) -> Vector:
    """Largest inertia that each joint's motor faces (n,), kg·m², over home and random poses, the same ones each time."""
    low, high = (np.array([getattr(joint, key) for joint in robot.joints]) for key in ("q_min_rad", "q_max_rad"))
    poses = np.random.default_rng(0).uniform(low, high, (POSES, len(low)))
    largest: Vector = np.max([body.inertia(pose) for pose in (np.array(robot.home_rad), *poses)], axis=0)
    return largest


def overshoot_rad(joint: JointConfig, inertia: float) -> float:
    """How far, rad, a joint that comes at ``dq_max`` gets beyond its soft limit; ``inertia`` in kg·m²."""
    lag_s, ddq = inertia / joint.damping_nm_s_rad, joint.ddq_brake_rad_s2
    return max(0.0, min(ddq * lag_s, joint.dq_max_rad_s) * lag_s - 0.5 * ddq * lag_s**2)


def _check_braking(where: str, joint: JointConfig, inertia: float) -> list[str]:
    overshoot, margin = overshoot_rad(joint, inertia), joint.hard_margin_rad
    if inertia * joint.ddq_brake_rad_s2 > joint.tau_max_nm:
        raise ConfigError(
            f"{where}: ddq_brake_rad_s2 {joint.ddq_brake_rad_s2:g} needs {inertia * joint.ddq_brake_rad_s2:.3g} N·m > "
            f"tau_max_nm {joint.tau_max_nm:g}",
            reason=f"the model's inertia is up to {inertia:.3g} kg·m²",
            command=f"--set robot.joints.{joint.name}.ddq_brake_rad_s2={joint.tau_max_nm / inertia / 2:.2g}",
        )
    if overshoot <= OVERSHOOT_SHARE * margin:
        return []
    enough = _rounded_up(joint.damping_nm_s_rad * math.sqrt(overshoot / (OVERSHOOT_SHARE * margin)))
    what = (
        f"{where}: at full speed damping_nm_s_rad {joint.damping_nm_s_rad:g} N·m·s/rad stops it {overshoot:.2g} rad beyond its "
        f"soft limit"
    )
    why = f"the model's inertia is up to {inertia:.3g} kg·m², ddq_brake_rad_s2 is {joint.ddq_brake_rad_s2:g}"
    command = f"--set robot.joints.{joint.name}.damping_nm_s_rad={enough:g}"
    if overshoot > margin:
        raise ConfigError(f"{what}, and the hard limit is at {margin:g} rad", reason=why, command=command)
    return [f"{what} of the {margin:g} rad to the hard limit; {why}; {command}"]


def _rounded_up(value: float) -> float:
    """To two digits."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / step) * step


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
