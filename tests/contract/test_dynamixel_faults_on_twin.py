"""The Dynamixel driver against a twin that misbehaves: what is retried, what is marked stale, what is raised."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from dynamixel_rig import Rig, robot

from robotsac.arm import ArmState
from robotsac.errors import (
    ArmError,
    ArmSetupError,
    BusCorrupt,
    BusError,
    BusLost,
    BusTimeout,
    JointFault,
)
from robotsac_hardware import faults as bits
from robotsac_sim.twin.faults import (
    Babble,
    BrownOut,
    CorruptReply,
    DelayReply,
    DropReply,
    Fault,
    HardwareError,
    Mute,
    Overheat,
    RebootServo,
    TruncateReply,
    Unplug,
)
from robotsac_sim.twin.protocol import Cause
from robotsac_sim.twin.table import Reg

MS = 1_000_000
PLAIN = {"fast_sync_read": False}
REPLY_BYTES = 8 + 6 * 22


# ---- lost and damaged replies --------------------------------------------------------------------------------------------


def test_a_lost_reply_is_retried_inside_the_round() -> None:
    rig = Rig().energized()
    rig.inject(DropReply())
    assert rig.round().fresh.all()
    assert (rig.arm.counters.retries, rig.arm.counters.timeouts) == (1, 1)


def test_without_time_for_a_retry_the_round_times_out_before_the_next_one_is_due() -> None:
    """arm0's own deadline: two silent waits do not fit into 4 ms, so the next tick is the retry."""
    rig = Rig(robot(driver={"read_deadline_ms": 2.5})).energized()
    rig.inject(DropReply())
    with pytest.raises(BusTimeout, match=r"no servo answered within 2\.5 ms"):
        rig.round()
    assert rig.arm.counters.retries == 0
    assert rig.round().fresh.all()


@pytest.mark.parametrize("driver", [{}, {"read_deadline_ms": 2.5}])
def test_a_reply_damaged_in_its_head_is_retried(driver: dict[str, Any]) -> None:
    rig = Rig(robot(driver=driver)).energized()
    rig.inject(CorruptReply(index=2))
    assert rig.round().fresh.all()
    assert (rig.arm.counters.retries, rig.arm.counters.corrupt) == (1, 1)


@pytest.mark.parametrize("index", range(REPLY_BYTES))
def test_damage_anywhere_never_shows_in_a_state(index: int) -> None:
    rig = Rig().energized()
    rig.physics.place(np.linspace(-0.5, 0.5, 6))
    rig.clock.advance(200 * MS // 4)
    truth = rig.round().q
    rig.inject(CorruptReply(index=index, mask=0x10, count=2))
    try:
        state = rig.round()
    except BusCorrupt:
        assert index < 8 + 22
        return
    np.testing.assert_allclose(state.q, truth, atol=1e-9)
    assert state.fresh.tolist() == [8 + 22 * (joint + 1) <= index for joint in range(6)]


@pytest.mark.parametrize("devices", range(1, 6))
def test_devices_before_the_break_are_salvaged(devices: int) -> None:
    rig = Rig().energized()
    rig.inject(TruncateReply(devices=devices, count=2))
    assert rig.round().fresh.tolist() == [joint < devices for joint in range(6)]
    assert rig.arm.counters.stale_joints == 6 - devices
    assert rig.round().fresh.all()


def test_a_silent_servo_is_stale_and_keeps_its_last_values() -> None:
    rig = Rig().energized()
    for _ in range(20):
        before = rig.round(0.5)
    rig.inject(Mute(id=4, duration_ns=30 * MS))
    state = rig.round(0.5)
    assert state.fresh.tolist() == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]  # those behind it in the frame fall silent too
    np.testing.assert_array_equal(state.q[3:], before.q[3:])
    np.testing.assert_array_equal(state.dq[3:], before.dq[3:])
    rig.clock.advance(20 * MS)
    assert rig.round(0.5).fresh.all()


def test_by_plain_sync_read_those_behind_a_silent_servo_depend_on_the_device_only() -> None:
    rig = Rig(robot(driver=PLAIN)).energized()
    rig.inject(Mute(id=6))
    assert rig.round().fresh.tolist() == [True] * 5 + [False]


def test_a_silent_first_servo_silences_the_round() -> None:
    rig = Rig().energized()
    rig.inject(Mute(id=1))
    with pytest.raises(BusTimeout):
        rig.round()


def test_a_reply_that_comes_too_late_is_not_taken_for_the_next_one() -> None:
    rig = Rig(robot(driver={"read_deadline_ms": 2.5})).energized()
    rig.round()
    rig.inject(DelayReply(delay_ns=3 * MS))
    with pytest.raises(BusError):
        rig.round()
    rig.physics.place(np.full(6, 0.02))
    state = rig.round()
    np.testing.assert_allclose(state.q, 0.02, atol=0.002)


def test_a_reading_that_was_refused_does_not_come_back_as_a_last_value() -> None:
    rig = Rig().energized()
    before = rig.round().q
    rig.physics.place(np.array([0, 0, 0, 0, 0, 1.0]))  # 1 rad in one tick: no motor does that
    with pytest.raises(BusCorrupt, match="wrist_roll"):
        rig.round()
    rig.inject(Mute(id=6))
    np.testing.assert_array_equal(rig.round().q, before)


def test_babble_costs_at_most_its_round() -> None:
    rig = Rig().energized()
    rig.inject(Babble(size=200))
    with suppress(BusError):
        rig.round()
    assert rig.round().fresh.all()


def test_an_unplugged_port_is_lost_and_the_watchdogs_stop_the_servos() -> None:
    rig = Rig().energized()
    rig.round(1.0)
    rig.inject(Unplug())
    with pytest.raises(BusLost):
        rig.round(1.0)
    rig.arm.stop()
    assert not rig.arm.torque_is_off()
    assert rig.arm.state is ArmState.IDLE
    rig.arm.close()
    rig.clock.advance(120 * MS)
    assert all(servo.watchdog.expired for servo in rig.bus.servos)
    assert [servo.registers.get(Reg.GOAL_CURRENT) for servo in rig.bus.servos] == [0] * 6


# ---- servos with a fault of their own ------------------------------------------------------------------------------------


def test_an_expired_watchdog_is_seen_in_the_next_round_and_cleared_only_by_energizing() -> None:
    rig = Rig().energized()
    rig.round(1.0)
    rig.clock.advance(101 * MS)
    for _ in range(3):
        with pytest.raises(JointFault, match="bus watchdog expired") as caught:
            rig.round(1.0)
        assert caught.value.bits == bits.WATCHDOG_EXPIRED
    rig.arm.stop()
    assert rig.arm.read().faults.tolist() == [bits.WATCHDOG_EXPIRED] * 6
    rig.rest()
    rig.arm.energize()
    assert rig.round(1.0).fresh.all()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (HardwareError(id=2, causes=Cause.OVERLOAD), "overload"),
        (Overheat(id=2, temperature_c=90.0), "overheating"),
    ],
)
def test_a_hardware_error_of_one_joint_is_a_fault_within_one_round(fault: Fault, words: str) -> None:
    rig = Rig().energized()
    rig.round()
    rig.inject(fault)
    with pytest.raises(JointFault, match=words) as caught:
        for _ in range(3):
            rig.round()
    assert caught.value.joint == 1
    assert "power-cycle" in caught.value.reason
    rig.arm.stop()
    assert rig.arm.torque_is_off()
    with pytest.raises(JointFault, match=words):
        rig.arm.energize()
    rig.arm.close()
    with pytest.raises(JointFault, match=rf"{words}.*latched"):
        rig.arm.connect()
    assert not rig.any_torque()


def test_a_servo_that_reboots_is_never_driven_again_without_a_new_connect() -> None:
    rig = Rig().energized()
    rig.round(0.5)
    rig.inject(RebootServo(id=6))
    seen: list[Exception] = []
    for _ in range(120):
        try:
            rig.round(0.5)
        except (JointFault, BusError) as error:
            seen.append(error)
    faults = [error for error in seen if isinstance(error, JointFault)]
    assert faults, "it came back and was not noticed"
    assert faults[0].joint == 5
    assert not rig.servo(5).torque
    rig.arm.stop()
    with pytest.raises((ArmSetupError, JointFault)):
        rig.arm.energize()
    rig.arm.close()
    rig.rest()
    rig.energized()
    assert rig.round().fresh.all()


def test_a_servo_that_rebooted_while_at_rest_is_found_before_torque_goes_on() -> None:
    rig = Rig()
    rig.arm.connect()
    rig.inject(RebootServo(id=3))
    rig.clock.advance(500 * MS)
    with pytest.raises(ArmSetupError, match=r"elbow_pitch, id 3.*rebooted"):
        rig.arm.energize()
    assert rig.torque_on == []


def test_a_brown_out_of_all_is_silence_then_a_fault() -> None:
    rig = Rig().energized()
    rig.inject(BrownOut(volt_v=3.0, duration_ns=50 * MS))
    kinds = set()
    for _ in range(120):
        try:
            rig.round(0.5)
        except ArmError as error:
            kinds.add(type(error))
    assert kinds == {BusTimeout, JointFault}
    assert not rig.any_torque()
