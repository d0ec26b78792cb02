"""The limits: pure functions from an asked torque to an admitted one.

Applied in this order, once per bus tick; each takes the result of the one before.

    finite        a value that is not finite is a fault, never clipped
    torque        |tau| <= tau_max
    temperature   torque beyond gravity compensation shrinks over the last 10 °C below temp_max, to nothing
    velocity      no torque that drives a joint faster than dq_max; damping against what is too fast
    position      the same with a bound that shrinks toward the soft limit: v <= sqrt(2 a d) - lag; none outward at the limit
    rate          |tau - previous| <= dtau_max dt
    torque        once more, so that nothing above can lift it

Torque outward at a soft limit means torque *beyond gravity compensation*: holding the arm up there stays allowed.
Arrays are (n,) float64, SI.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from robotsac.arm import ArmSpec, JointState, LimitedTorque, Vector
from robotsac.errors import FaultCode, GuardFault
from robotsac.records import Flag

DERATE_SPAN_C = 10.0
# Beyond a soft limit a joint is asked back at this speed per radian of excess, at most RETURN_DQ_MAX.
RETURN_RATE_1_S = 4.0
RETURN_DQ_MAX = 0.4

# Plain integers: an IntFlag's | costs more than all the arithmetic of a limit.
_TORQUE, _RATE = int(Flag.LIMIT_TORQUE), int(Flag.LIMIT_RATE)
_VELOCITY, _POSITION = int(Flag.LIMIT_VELOCITY), int(Flag.LIMIT_POSITION)
_TEMPERATURE = int(Flag.LIMIT_TEMPERATURE)


@dataclass(frozen=True, slots=True)
class Limits:
    """A spec's limits, with what the functions would otherwise compute every tick.

    Args:
        spec: the arm's.
        dt_s: bus period, s.
        velocity_fault_factor: a joint faster than this times ``dq_max`` is a fault.
        inertia: largest that each joint's motor faces (n,), kg·m²; zeros where nobody knows, and braking is that much later.
    """

    spec: ArmSpec
    dt_s: float
    velocity_fault_factor: float = 2.0
    inertia: Vector | None = None
    brake_lag: Vector = field(init=False)
    tau_max: Vector = field(init=False)
    dtau_tick: Vector = field(init=False)
    derate_c: Vector = field(init=False)
    velocity_reach: Vector = field(init=False)
    q_middle: Vector = field(init=False)
    q_half_free: Vector = field(init=False)
    q_half_hard: Vector = field(init=False)
    dq_fault: Vector = field(init=False)
    per_joint: tuple[tuple[float, ...], ...] = field(init=False)
    hard_per_joint: tuple[tuple[float, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        spec = self.spec
        inertia = np.zeros(spec.n) if self.inertia is None else self.inertia
        # What a joint is behind a falling speed bound when damping alone has to slow it by ddq_brake, rad/s.
        brake_lag = inertia * spec.ddq_brake / spec.damping
        derived = {
            "brake_lag": brake_lag,
            "tau_max": spec.tau_max,
            "dtau_tick": spec.dtau_max * self.dt_s,
            "derate_c": spec.temp_max - DERATE_SPAN_C,
            "velocity_reach": spec.damping * spec.dq_max,
            "q_middle": 0.5 * (spec.q_min + spec.q_max),
            # Within this half-range a joint at dq_max can still brake before its soft limit.
            "q_half_free": 0.5 * (spec.q_max - spec.q_min) - (spec.dq_max + brake_lag) ** 2 / (2.0 * spec.ddq_brake),
            "q_half_hard": 0.5 * (spec.q_max - spec.q_min) + spec.hard_margin,
            "dq_fault": self.velocity_fault_factor * spec.dq_max,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        columns = (
            self.tau_max,
            self.dtau_tick,
            spec.damping,
            self.velocity_reach,
            self.q_middle,
            self.q_half_free,
            self.derate_c,
        )
        hard = (self.q_middle, self.q_half_hard, self.dq_fault, spec.temp_max)
        object.__setattr__(self, "per_joint", _by_joint(columns))
        object.__setattr__(self, "hard_per_joint", _by_joint(hard))

    def room(self, q: Vector) -> Vector:
        """Distance to the upper and to the lower soft limit, (2, n), rad; negative beyond."""
        return np.stack((self.spec.q_max - q, q - self.spec.q_min))


@dataclass(frozen=True, slots=True)
class Admission:
    """What :func:`admit` decided: the torque for the bus, and which limits changed it (bits of ``Flag``)."""

    torque: LimitedTorque
    flags: int


def admit(tau: Vector, previous: Vector, state: JointState, gravity: Vector, limits: Limits) -> Admission:
    """Every limit, in order.

    Args:
        tau: asked torque (n,), N·m, gravity compensation included.
        previous: torque of the last bus tick (n,), N·m.
        state: newest joint state.
        gravity: gravity compensation at ``state.q`` (n,), N·m; zeros when switched off.

    Raises:
        GuardFault: ``tau`` has the wrong shape or a value that is not finite.
    """
    if nothing_binds(tau, previous, state, gravity, limits):
        return Admission(LimitedTorque(tau.copy()), 0)
    finite(tau, limits.spec)
    bounded = torque(tau, limits)
    derated = temperature(bounded, gravity, state.temp_c, limits)
    slowed = velocity(derated, state.dq, gravity, limits)
    fenced = position(slowed, state.q, state.dq, gravity, limits)
    ramped = rate(fenced, previous, limits)
    final = torque(ramped, limits)
    flags = 0
    if not _all(final == tau):
        stages = (tau, bounded, derated, slowed, fenced, ramped)
        names = (_TORQUE, _TEMPERATURE, _VELOCITY, _POSITION, _RATE)
        for before, after, flag in zip(stages, stages[1:], names, strict=False):
            if after is not before and not _all(after == before):
                flags |= flag
    return Admission(LimitedTorque(final), flags)


def nothing_binds(tau: Vector, previous: Vector, state: JointState, gravity: Vector, limits: Limits) -> bool:
    """Whether every limit would leave ``tau`` as it is; the usual case, told apart in a fifth of the time.

    Plain floats: on six joints numpy spends its time on being called. A value that is not finite fails some comparison
    and takes the long way. That the short way never differs from it is a property test.
    """
    if tau.shape != previous.shape:
        return False
    rows = zip(
        tau.tolist(),
        previous.tolist(),
        gravity.tolist(),
        state.q.tolist(),
        state.dq.tolist(),
        state.temp_c.tolist(),
        limits.per_joint,
        strict=True,
    )
    for t, before, g, q, dq, temp_c, (tau_max, dtau, damping, reach, q_middle, q_half_free, derate_c) in rows:
        beyond = t - g + damping * dq
        if not (
            -tau_max <= t <= tau_max
            and -dtau <= t - before <= dtau
            and -reach <= beyond <= reach
            and -q_half_free <= q - q_middle <= q_half_free
            and temp_c <= derate_c
        ):
            return False
    return True


def finite(tau: Vector, spec: ArmSpec) -> None:
    """Refuse a torque of the wrong shape or with a NaN or infinity in it.

    Raises:
        GuardFault: naming the joint.
    """
    if tau.shape != (spec.n,):
        raise GuardFault(FaultCode.WRONG_SHAPE, detail=f"torque has shape {tau.shape}, the arm has {spec.n} joints")
    ok = np.isfinite(tau)
    if not _all(ok):
        joint = int(np.argmin(ok))
        raise GuardFault(
            FaultCode.NOT_FINITE, joint=joint, name=spec.joint_names[joint], detail=f"asked torque is {tau[joint]} N·m"
        )


def torque(tau: Vector, limits: Limits) -> Vector:
    """``tau`` within ± ``tau_max``."""
    return _within(tau, -limits.tau_max, limits.tau_max)


def temperature(tau: Vector, gravity: Vector, temp_c: Vector, limits: Limits) -> Vector:
    """Torque beyond gravity compensation, scaled from 1 at ``temp_max`` − 10 °C to 0 at ``temp_max``."""
    if _all(temp_c <= limits.derate_c):
        return tau
    share = _within((limits.spec.temp_max - temp_c) / DERATE_SPAN_C, 0.0, 1.0)
    return gravity + (tau - gravity) * share


def velocity(tau: Vector, dq: Vector, gravity: Vector, limits: Limits) -> Vector:
    """One-sided: torque beyond gravity compensation at most ``damping`` · (room left to ± ``dq_max``).

    A joint faster than its limit gets a torque against its motion; one slower is untouched until it comes near.
    """
    base = gravity - limits.spec.damping * dq
    return _within(tau, base - limits.velocity_reach, base + limits.velocity_reach)


def position(tau: Vector, q: Vector, dq: Vector, gravity: Vector, limits: Limits) -> Vector:
    """The velocity bound with a speed that the joint can still brake from before its soft limit.

    With a = ``ddq_brake`` and d the distance to the limit, √(2·a·d) is the speed from which constant deceleration a comes
    to rest at the limit. The bound is less by a·I/``damping``: so much faster than the bound a joint of inertia I must be
    for its damping to slow it by a, and it is then at just that speed. Beyond the limit the bound turns inward.
    """
    if _all(np.abs(q - limits.q_middle) <= limits.q_half_free):
        return tau  # far from every limit the braking speed is dq_max, and velocity() has seen to that
    damping = limits.spec.damping
    base = gravity - damping * dq
    up, down = damping * braking_speed(limits.room(q), limits)
    lower = base - down
    return _within(tau, lower, np.maximum(lower, base + up))


def braking_speed(room: Vector, limits: Limits) -> Vector:
    """Highest speed toward a soft limit at distance ``room`` (…, n), rad; negative (back) beyond it, rad/s."""
    spec = limits.spec
    inside = np.maximum(np.sqrt(2.0 * spec.ddq_brake * np.maximum(room, 0.0)) - limits.brake_lag, 0.0)
    back = np.minimum(np.maximum(-RETURN_RATE_1_S * room, 0.0), RETURN_DQ_MAX)
    bound: Vector = np.minimum(inside, spec.dq_max) - back
    return bound


def rate(tau: Vector, previous: Vector, limits: Limits) -> Vector:
    """``tau`` within ± ``dtau_max``·dt of ``previous``."""
    return _within(tau, previous - limits.dtau_tick, previous + limits.dtau_tick)


def check_state(state: JointState, limits: Limits) -> None:
    """Refuse a state in which no torque is right.

    Raises:
        GuardFault: a value is not finite, a joint is beyond its hard limit, far too fast, or too hot.
    """
    # Written so that a NaN fails: a comparison with one is never true.
    rows = zip(state.q.tolist(), state.dq.tolist(), state.temp_c.tolist(), limits.hard_per_joint, strict=True)
    for q, dq, temp_c, (q_middle, q_half_hard, dq_fault, temp_max) in rows:
        if not (
            -q_half_hard <= q - q_middle <= q_half_hard
            and -dq_fault <= dq <= dq_fault
            and -math.inf < temp_c < temp_max
        ):
            break
    else:
        return
    check_finite(state)
    raise _diagnose(state, limits)


def check_finite(state: JointState) -> None:
    """Refuse a state with a NaN or infinity in position, velocity or temperature. Raises GuardFault."""
    for name, values, unit in (("q", state.q, "rad"), ("dq", state.dq, "rad/s"), ("temp_c", state.temp_c, "°C")):
        if not np.isfinite(values).all():
            raise GuardFault(FaultCode.NOT_FINITE, detail=f"joint state {name} is {values} {unit}")


def _diagnose(state: JointState, limits: Limits) -> GuardFault:
    spec = limits.spec
    beyond = np.abs(state.q - limits.q_middle) - limits.q_half_hard
    if beyond.max() > 0:
        joint = int(np.argmax(beyond))
        side = np.sign(state.q[joint] - limits.q_middle[joint])
        limit = limits.q_middle[joint] + side * limits.q_half_hard[joint]
        return _fault(FaultCode.POSITION, joint, spec, state.q[joint], limit, "rad")
    excess = np.abs(state.dq) - limits.dq_fault
    if excess.max() > 0:
        joint = int(np.argmax(excess))
        threshold = f"{limits.velocity_fault_factor:g} times dq_max_rad_s {spec.dq_max[joint]:g}"
        return _fault(FaultCode.VELOCITY, joint, spec, state.dq[joint], limits.dq_fault[joint], "rad/s", threshold)
    joint = int(np.argmax(state.temp_c - spec.temp_max))
    return _fault(FaultCode.TEMPERATURE, joint, spec, state.temp_c[joint], spec.temp_max[joint], "°C")


def _fault(
    code: FaultCode, joint: int, spec: ArmSpec, value: float, limit: float, unit: str, reason: str = ""
) -> GuardFault:
    name = spec.joint_names[joint]
    return GuardFault(code, joint=joint, name=name, value=float(value), limit=float(limit), unit=unit, reason=reason)


def _by_joint(columns: tuple[Vector, ...]) -> tuple[tuple[float, ...], ...]:
    return tuple(zip(*(column.tolist() for column in columns), strict=True))


def _within(value: Vector, low: Vector | float, high: Vector | float) -> Vector:
    """``np.clip`` without its overhead, which is three times its work on six numbers."""
    bounded: Vector = np.minimum(np.maximum(value, low), high)
    return bounded


def _all(claims: NDArray[np.bool_]) -> bool:
    """``claims.all()`` without its overhead, which is ten times its work on six of them."""
    return bool(np.count_nonzero(claims) == claims.size)
