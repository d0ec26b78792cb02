"""The Dynamixel driver against a twin that misbehaves while it starts, stops, or does anything at all."""

from __future__ import annotations

import numpy as np
import pytest
from dynamixel_rig import Rig, robot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robotsac.arm import ArmState
from robotsac.errors import (
    ArmError,
    ArmStateError,
    RobotsacError,
)
from robotsac_sim.twin.faults import (
    Babble,
    BrownOut,
    CorruptReply,
    DelayReply,
    DropReply,
    Fault,
    HardwareError,
    Mute,
    RebootServo,
    TruncateReply,
)
from robotsac_sim.twin.protocol import Cause

MS = 1_000_000
REPLY_BYTES = 8 + 6 * 22


# ---- stop and energize when things go wrong ------------------------------------------------------------------------------


def test_stop_is_bounded_and_honest_when_a_servo_does_not_answer() -> None:
    rig = Rig().energized()
    rig.round(1.0)
    rig.inject(Mute(id=3))
    start_ns = rig.clock.now_ns()
    rig.arm.stop()
    assert rig.clock.now_ns() - start_ns <= 320 * MS
    assert not rig.arm.torque_is_off()
    assert not rig.any_torque(), "the others, and the mute one, were switched off all the same"


@pytest.mark.parametrize("lost", range(8))
def test_stop_survives_lost_replies(lost: int) -> None:
    rig = Rig().energized()
    rig.round(1.0)
    rig.inject(DropReply(nth=lost, count=3))
    rig.arm.stop()
    assert rig.arm.torque_is_off()
    assert not rig.any_torque()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(at_ms=st.integers(0, 70), dxl_id=st.integers(1, 6), rebooted=st.booleans())
def test_an_energize_that_fails_anywhere_leaves_torque_off(at_ms: int, dxl_id: int, rebooted: bool) -> None:
    rig = Rig()
    rig.arm.connect()
    at_ns = rig.clock.now_ns() + at_ms * MS
    rig.inject(RebootServo(id=dxl_id, at_ns=at_ns) if rebooted else Mute(id=dxl_id, at_ns=at_ns))
    try:
        rig.arm.energize()
    except RobotsacError:
        assert rig.arm.state is ArmState.IDLE
        assert not rig.any_torque()
    else:
        assert rig.arm.state is ArmState.ENERGIZED
    rig.arm.close()
    assert not rig.any_torque()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(at_ms=st.integers(0, 70), dxl_id=st.integers(1, 6))
def test_a_connect_that_fails_anywhere_leaves_the_port_closed_and_torque_off(at_ms: int, dxl_id: int) -> None:
    rig = Rig()
    rig.inject(Mute(id=dxl_id, at_ns=at_ms * MS))
    try:
        rig.arm.connect()
    except RobotsacError:
        assert rig.arm.state is ArmState.DISCONNECTED
    rig.arm.close()
    assert not rig.any_torque()
    with pytest.raises(ArmStateError):
        rig.arm.read()


@pytest.mark.parametrize("nth", range(0, 210, 5))
def test_an_answer_that_comes_after_the_question_was_repeated_is_not_taken_for_another(nth: int) -> None:
    rig = Rig()
    rig.inject(DelayReply(nth=nth, delay_ns=60 * MS + 200_000))
    rig.arm.connect()
    assert rig.arm.state is ArmState.IDLE


# ---- anything at all -----------------------------------------------------------------------------------------------------

DURATIONS = st.integers(1, 40).map(lambda ms: ms * MS)
FAULTS = st.one_of(
    st.builds(DropReply, nth=st.integers(0, 10), count=st.integers(1, 3)),
    st.builds(CorruptReply, nth=st.integers(0, 10), index=st.integers(0, REPLY_BYTES - 1), mask=st.integers(1, 255)),
    st.builds(DelayReply, nth=st.integers(0, 10), delay_ns=DURATIONS),
    st.builds(TruncateReply, nth=st.integers(0, 10), devices=st.integers(0, 6)),
    st.builds(Mute, id=st.integers(1, 6), duration_ns=DURATIONS),
    st.builds(RebootServo, id=st.integers(1, 6)),
    st.builds(HardwareError, id=st.integers(1, 6), causes=st.sampled_from([Cause.OVERLOAD, Cause.ELECTRICAL_SHOCK])),
    st.builds(Babble, size=st.integers(1, 200), seed=st.integers(0, 1000)),
    st.builds(BrownOut, volt_v=st.just(3.0), duration_ns=DURATIONS),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plan=st.lists(FAULTS, max_size=4), fast=st.booleans(), deadline_ms=st.sampled_from([2.5, 12.0]))
def test_under_any_faults_a_fresh_value_is_a_true_value_and_nothing_else_than_arm_errors_is_raised(
    plan: list[Fault], fast: bool, deadline_ms: float
) -> None:
    rig = Rig(robot(driver={"fast_sync_read": fast, "read_deadline_ms": deadline_ms})).energized()
    rig.inject(*plan)
    for k in range(40):
        before = rig.physics.q
        try:
            state = rig.round(0.5 * np.sin(0.3 * k))
        except ArmError:
            continue
        after = rig.physics.q
        low, high = np.minimum(before, after) - 0.004, np.maximum(before, after) + 0.004
        assert ((low <= state.q) & (state.q <= high))[state.fresh].all()
    start_ns = rig.clock.now_ns()
    rig.arm.stop()
    assert rig.clock.now_ns() - start_ns <= 320 * MS
    if rig.arm.torque_is_off():
        assert not rig.any_torque()
