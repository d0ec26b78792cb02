"""The limits hold for any input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robotsac.arm import ArmSpec, JointState
from robotsac.config import load_config
from robotsac.env.stability import overshoot_rad
from robotsac.errors import FaultCode, GuardFault
from robotsac.guard import limits as limit
from robotsac.records import Flag

SPEC = ArmSpec.from_config(load_config("arm0").robot)
DT_S = 1.0 / SPEC.bus_rate_hz
N = SPEC.n
INERTIA = np.array([0.15, 0.15, 0.05, 0.013, 0.013, 0.012])
LIMITS = limit.Limits(SPEC, DT_S, inertia=INERTIA)
ZERO = np.zeros(N)

any_float = st.floats(allow_nan=True, allow_infinity=True, width=64)
finite_float = st.floats(allow_nan=False, allow_infinity=False, width=64)
anything = arrays(np.float64, N, elements=any_float)
torques = arrays(np.float64, N, elements=st.floats(-50, 50))
positions = arrays(np.float64, N, elements=st.floats(-4, 4))
speeds = arrays(np.float64, N, elements=st.floats(-30, 30))
gravities = arrays(np.float64, N, elements=st.floats(-3, 3))


def joint_state(q: np.ndarray = ZERO, dq: np.ndarray = ZERO, temp_c: float = 25.0) -> JointState:
    return JointState(
        t_ns=0, seq=1, q=q, dq=dq, tau=ZERO, tau_cmd=ZERO, temp_c=ZERO + temp_c, volt_v=ZERO + 12.0,
        fresh=np.ones(N, dtype=np.bool_), faults=np.zeros(N, dtype=np.uint16),
    )  # fmt: skip


@settings(max_examples=500)
@given(tau=anything, previous=torques, q=positions, dq=speeds, gravity=gravities, temp=st.floats(0, 150))
def test_any_torque_is_admitted_within_limits_or_refused(tau, previous, q, dq, gravity, temp):
    previous = np.clip(previous, -SPEC.tau_max, SPEC.tau_max)
    try:
        admitted = limit.admit(tau, previous, joint_state(q, dq, temp), gravity, LIMITS).torque
    except GuardFault as fault:
        assert fault.code is FaultCode.NOT_FINITE
        assert not np.isfinite(tau).all()
        return
    assert np.isfinite(tau).all(), "a value that is not finite must be refused, not clipped"
    assert (np.abs(admitted) <= SPEC.tau_max).all()
    assert (np.abs(admitted - previous) <= SPEC.dtau_max * DT_S + 1e-9).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("joint", range(N))
def test_a_value_that_is_not_finite_names_its_joint(bad, joint):
    tau = ZERO.copy()
    tau[joint] = bad
    with pytest.raises(GuardFault) as caught:
        limit.admit(tau, ZERO, joint_state(), ZERO, LIMITS)
    assert caught.value.joint == joint
    assert SPEC.joint_names[joint] in str(caught.value)


@pytest.mark.parametrize("shape", [(0,), (N - 1,), (N + 1,), (1, N)])
def test_a_torque_of_the_wrong_shape_is_refused(shape):
    with pytest.raises(GuardFault) as caught:
        limit.admit(np.zeros(shape), ZERO, joint_state(), ZERO, LIMITS)
    assert caught.value.code is FaultCode.WRONG_SHAPE


@given(dq=speeds, gravity=gravities)
def test_a_joint_above_its_velocity_limit_is_braked(dq, gravity):
    for sign in (-1.0, 1.0):
        slowed = limit.velocity(sign * SPEC.tau_max, dq, gravity, LIMITS)
        fast = sign * dq > SPEC.dq_max
        assert (sign * (slowed - gravity)[fast] <= 1e-9).all(), "no torque beyond gravity with the motion"


@given(q=positions, gravity=gravities)
def test_no_torque_outward_at_or_beyond_a_soft_limit(q, gravity):
    admitted = limit.position(SPEC.tau_max, q, ZERO, gravity, LIMITS)
    out = q >= SPEC.q_max
    assert ((admitted - gravity)[out] <= 1e-9).all()
    admitted = limit.position(-SPEC.tau_max, q, ZERO, gravity, LIMITS)
    out = q <= SPEC.q_min
    assert ((admitted - gravity)[out] >= -1e-9).all()


def test_the_braking_speed_is_what_constant_deceleration_can_stop():
    room = np.linspace(0.0, 0.5, 50)[:, None] * np.ones(N)
    massless = limit.Limits(SPEC, DT_S)
    bound = np.array([limit.braking_speed(r, massless) for r in room])
    unlimited = bound < SPEC.dq_max
    np.testing.assert_allclose((bound**2 / (2 * SPEC.ddq_brake))[unlimited], room[unlimited], atol=1e-12)


def test_a_joint_of_known_inertia_is_slowed_by_exactly_the_braking_deceleration():
    """At the speed from which it can stop, not below the bound, damping gives inertia times that deceleration."""
    room = np.linspace(0.05, 0.4, 20)[:, None] * np.ones(N)
    speed = np.sqrt(2 * SPEC.ddq_brake * room)
    bound = np.array([limit.braking_speed(r, LIMITS) for r in room])
    deceleration = SPEC.damping * (speed - bound) / INERTIA
    followed = (bound > 0) & (bound < SPEC.dq_max)
    assert followed.sum() > 20
    np.testing.assert_allclose(deceleration[followed], np.broadcast_to(SPEC.ddq_brake, room.shape)[followed], rtol=1e-9)


@pytest.mark.parametrize("joint", range(N))
def test_a_joint_at_full_speed_pushed_outward_stops_where_the_check_of_gains_says(joint):
    """One joint, its largest inertia, no friction, the policy pushing outward with all its torque; 20 kHz, no bus."""
    config = load_config("arm0").robot.joints[joint]
    lag_s, dt_s = INERTIA[joint] / SPEC.damping[joint], 5e-5
    q, dq = np.zeros(N), np.zeros(N)
    q[joint] = SPEC.q_max[joint] - (SPEC.dq_max[joint] + SPEC.ddq_brake[joint] * lag_s) ** 2 / SPEC.ddq_brake[joint]
    dq[joint] = SPEC.dq_max[joint]
    furthest = q[joint]
    for _ in range(40_000):
        slowed = limit.velocity(SPEC.tau_max, dq, ZERO, LIMITS)
        tau = limit.position(slowed, q, dq, ZERO, LIMITS)
        dq[joint] += tau[joint] / INERTIA[joint] * dt_s
        q[joint] += dq[joint] * dt_s
        furthest = max(furthest, q[joint])
        if dq[joint] <= 0:
            break
    beyond = furthest - SPEC.q_max[joint]
    said = overshoot_rad(config, float(INERTIA[joint]))
    assert beyond <= said * 1.02 + 1e-4
    assert beyond > 0.5 * said
    assert beyond < 0.5 * SPEC.hard_margin[joint]


@given(q=positions, dq=speeds, tau=torques, gravity=gravities)
def test_the_quick_way_out_of_position_changes_nothing(q, dq, tau, gravity):
    """Far from the limits ``position`` returns early; that must equal the full computation after ``velocity``."""
    slowed = limit.velocity(tau, dq, gravity, LIMITS)
    quick = limit.position(slowed, q, dq, gravity, LIMITS)
    base = gravity - SPEC.damping * dq
    upper = base + SPEC.damping * limit.braking_speed(SPEC.q_max - q, LIMITS)
    lower = base - SPEC.damping * limit.braking_speed(q - SPEC.q_min, LIMITS)
    np.testing.assert_allclose(quick, np.clip(slowed, lower, np.maximum(lower, upper)), atol=1e-9)


@settings(max_examples=500)
@given(data=st.data())
def test_the_quick_way_out_of_admit_is_taken_only_when_every_limit_leaves_the_torque_alone(data):
    """Values dense around what a moving arm has, so that both ways are taken."""
    near = {
        "tau": SPEC.tau_max, "dq": SPEC.dq_max, "q": SPEC.q_max, "previous": SPEC.tau_max, "gravity": 0.3 * SPEC.tau_max,
    }  # fmt: skip
    v = {name: scale * data.draw(arrays(np.float64, N, elements=st.floats(-1.1, 1.1))) for name, scale in near.items()}
    tau = v["previous"] + data.draw(st.sampled_from([0.0, 0.5, 1.0, 1.01])) * SPEC.dtau_max * DT_S
    state = joint_state(v["q"], v["dq"], data.draw(st.sampled_from([25.0, 60.0, 60.1, 75.0])))
    quick = limit.nothing_binds(tau, v["previous"], state, v["gravity"], LIMITS)
    stages = [limit.torque(tau, LIMITS)]
    stages.append(limit.temperature(stages[-1], v["gravity"], state.temp_c, LIMITS))
    stages.append(limit.velocity(stages[-1], state.dq, v["gravity"], LIMITS))
    stages.append(limit.position(stages[-1], state.q, state.dq, v["gravity"], LIMITS))
    stages.append(limit.rate(stages[-1], v["previous"], LIMITS))
    if quick:
        for stage in stages:
            np.testing.assert_allclose(stage, tau, atol=1e-12)


def test_the_quick_way_out_of_admit_is_the_usual_one():
    tau = 0.1 * SPEC.tau_max
    assert limit.nothing_binds(tau, tau, joint_state(q=SPEC.home), ZERO, LIMITS)
    for bad in (np.nan, np.inf):
        tau = tau.copy()
        tau[3] = bad
        assert not limit.nothing_binds(tau, tau, joint_state(q=SPEC.home), ZERO, LIMITS)


@pytest.mark.parametrize(("temp", "share"), [(25.0, 1.0), (60.0, 1.0), (65.0, 0.5), (70.0, 0.0), (90.0, 0.0)])
def test_heat_takes_torque_beyond_gravity_away(temp, share):
    gravity = np.linspace(-1, 1, N)
    derated = limit.temperature(gravity + 1.0, gravity, ZERO + temp, LIMITS)
    np.testing.assert_allclose(derated, gravity + share)


@pytest.mark.parametrize(
    ("tau", "state", "previous", "flag"),
    [
        (SPEC.tau_max * 2, joint_state(), SPEC.tau_max, Flag.LIMIT_TORQUE),
        (ZERO + 0.1, joint_state(temp_c=66.0), ZERO + 0.1, Flag.LIMIT_TEMPERATURE),
        (ZERO + 0.1, joint_state(dq=SPEC.dq_max * 1.2), ZERO + 0.1, Flag.LIMIT_VELOCITY),
        (ZERO + 0.1, joint_state(q=SPEC.q_max), ZERO + 0.1, Flag.LIMIT_POSITION),
        (SPEC.tau_max / 2, joint_state(), -SPEC.tau_max / 2, Flag.LIMIT_RATE),
    ],
)
def test_the_flag_says_which_limit_acted(tau, state, previous, flag):
    assert limit.admit(tau, previous, state, ZERO, LIMITS).flags & flag


def test_an_unlimited_torque_passes_unchanged_and_unflagged():
    tau = 0.01 * SPEC.tau_max
    admission = limit.admit(tau, tau, joint_state(), ZERO, LIMITS)
    np.testing.assert_array_equal(admission.torque, tau)
    assert admission.flags == 0


@given(
    joint=st.integers(0, N - 1),
    what=st.sampled_from(["q", "dq", "temp_c"]),
    excess=st.floats(1e-6, 1e6) | st.just(np.inf) | st.just(np.nan),
)
def test_a_state_beyond_any_hard_limit_is_refused(joint, what, excess):
    edge = {
        "q": SPEC.q_max[joint] + SPEC.hard_margin[joint],
        "dq": LIMITS.dq_fault[joint],
        "temp_c": SPEC.temp_max[joint],
    }[what]
    state = joint_state(q=SPEC.home)
    values = getattr(state, what).copy()
    values[joint] = edge + excess
    with pytest.raises(GuardFault) as caught:
        limit.check_state(dataclasses.replace(state, **{what: values}), LIMITS)
    if np.isfinite(excess):
        assert caught.value.joint == joint


def test_a_velocity_fault_says_what_its_threshold_is_made_of():
    slow = limit.Limits(dataclasses.replace(SPEC, dq_max=ZERO + 0.1), 0.004, velocity_fault_factor=2.0)
    dq = ZERO.copy()
    dq[1] = 0.20000004
    with pytest.raises(GuardFault) as caught:
        limit.check_state(joint_state(q=SPEC.home, dq=dq), slow)
    assert "velocity 0.20000004 rad/s is beyond the fault threshold of 0.2 rad/s" in caught.value.message
    assert caught.value.reason == "2 times dq_max_rad_s 0.1"


def test_a_state_inside_its_limits_is_accepted():
    limit.check_state(joint_state(q=SPEC.home, dq=SPEC.dq_max), LIMITS)


def test_the_last_torque_limit_is_not_redundant_when_previous_was_out_of_bounds():
    admission = limit.admit(SPEC.tau_max, SPEC.tau_max * 3, joint_state(), ZERO, LIMITS)
    assert (np.abs(admission.torque) <= SPEC.tau_max).all()
