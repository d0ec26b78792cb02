"""The Dynamixel driver against the twin: the arm port's promises, start-up and what goes over the wire."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dynamixel_rig import Rig, robot

from robotsac.arm import Arm, ArmState, LimitedTorque
from robotsac.errors import ArmError, ArmSetupError
from robotsac.testing import ArmContract
from robotsac_hardware import frames
from robotsac_sim.twin.memory_port import MemoryPort
from robotsac_sim.twin.table import Reg

PLAIN = {"fast_sync_read": False}


class TestDynamixelOnTwin(ArmContract):
    def make_arm(self) -> Arm:
        return Rig().arm


class TestDynamixelOnTwinBySyncRead(ArmContract):
    def make_arm(self) -> Arm:
        return Rig(robot(driver=PLAIN)).arm


class TestDynamixelOnTwinByteByByte(ArmContract):
    def make_arm(self) -> Arm:
        return Rig(byte_by_byte=True).arm


# ---- start-up ----------------------------------------------------------------------------------------------------------


def test_connect_leaves_every_servo_as_the_driver_needs_it_whatever_it_was_before() -> None:
    before = {"operating_mode": 3, "return_delay_time": 250, "drive_mode": 9, "current_limit": 2047}
    rig = Rig(robot(sim={0: {"registers": before}}))
    rig.arm.connect()
    get = rig.servo(0).registers.get
    assert [get(reg) for reg in (Reg.OPERATING_MODE, Reg.RETURN_DELAY_TIME, Reg.DRIVE_MODE)] == [0, 0, 0]
    assert get(Reg.CURRENT_LIMIT) == int(3.0 / 2.69e-3)
    assert get(Reg.GOAL_CURRENT) == 0
    assert get(Reg.STATUS_RETURN_LEVEL) == 2
    assert not rig.any_torque()
    assert not rig.torque_on


def test_connecting_again_writes_no_eeprom() -> None:
    rig = Rig()
    rig.arm.connect()
    rig.arm.close()
    rig.writes.clear()
    rig.arm.connect()
    assert [address for _, address, _ in rig.writes if address < 64] == []


@pytest.mark.parametrize(
    ("registers", "words"),
    [
        ({"secondary_id": 3}, "register Secondary ID is 3"),
        ({"homing_offset": -100}, "register Homing Offset is -100, wanted is 0"),
        ({"temperature_limit": 60}, "register Temperature Limit is 60"),
        ({"temperature_limit": 95}, "register Temperature Limit is 95"),
        ({"startup_configuration": 1}, "register Startup Configuration is 1, wanted is 0"),
        ({"shutdown": 0x30}, "register Shutdown is 48"),
        ({"drive_mode": 2}, "register Drive Mode is 2: a follower"),
    ],
)
def test_a_servo_set_up_for_something_else_is_refused_by_name(registers: dict[str, int], words: str) -> None:
    rig = Rig(robot(sim={2: {"registers": registers}}))
    with pytest.raises(ArmSetupError, match=r"joint 2 \(elbow_pitch, id 3\)") as caught:
        rig.arm.connect()
    assert words in caught.value.message
    assert rig.arm.state is ArmState.DISCONNECTED
    assert not rig.torque_on


@pytest.mark.parametrize(
    ("sim", "words"),
    [
        ({4: {"model": "XM540-W270"}}, "joint 4 (wrist_pitch, id 5): found XM540-W270, the config says XM430-W350"),
        ({4: {"id": 50}}, "no answer on memory at 3000000 bit/s from joint 4 (wrist_pitch, id 5)"),
        ({4: {"id": 4}}, "joint 3 (forearm_roll, id 4): the answer to a ping is damaged"),
    ],
)
def test_strangers_on_the_bus_are_refused_and_left_alone(sim: dict[int, dict[str, Any]], words: str) -> None:
    rig = Rig(robot(sim=sim))
    with pytest.raises(ArmSetupError) as caught:
        rig.arm.connect()
    assert words in caught.value.message
    assert rig.writes == []
    assert rig.arm.state is ArmState.DISCONNECTED


def test_old_firmware_is_refused() -> None:
    with pytest.raises(ArmSetupError, match="firmware 46 < 99"):
        Rig(robot(driver={"firmware_min": 99})).arm.connect()


@pytest.mark.parametrize("level", [0, 1])
def test_servos_that_acknowledge_nothing_are_brought_to_answer(level: int) -> None:
    rig = Rig()
    port = MemoryPort(rig.bus, rig.clock)
    for dxl_id in range(1, 7):
        port.write(frames.write(dxl_id, Reg.STATUS_RETURN_LEVEL, bytes([level])))
        rig.clock.advance(1_000_000)
    rig.arm.connect()
    assert rig.arm.state is ArmState.IDLE


def test_servos_that_a_crashed_program_left_on_are_off_before_their_watchdog_is_cleared() -> None:
    rig = Rig().energized()
    rig.round(1.0)
    rig.clock.advance(200_000_000)  # the program died; the watchdogs ran out
    assert rig.servo(0).watchdog.expired
    rig.writes.clear()
    again = rig.new_arm()
    again.connect()
    assert again.torque_is_off()
    of_first = [address for dxl_id, address, _ in rig.writes if dxl_id == 1]
    assert of_first.index(Reg.TORQUE_ENABLE) < of_first.index(Reg.BUS_WATCHDOG)
    rig.rest()
    again.energize()


# ---- energize ----------------------------------------------------------------------------------------------------------


def test_torque_goes_on_only_with_zero_goal_current_mode_and_no_drive_mode_bits() -> None:
    rig = Rig()
    for _ in range(3):
        rig.energized()
        rig.round(0.5)
        rig.arm.close()
        rig.rest()
    assert rig.torque_on == [(0, 0, 0)] * 18


def test_a_goal_that_somebody_else_left_behind_is_zeroed_before_torque_goes_on() -> None:
    rig = Rig()
    rig.arm.connect()
    port = MemoryPort(rig.bus, rig.clock)
    port.write(frames.write(2, Reg.GOAL_CURRENT, (300).to_bytes(2, "little")))
    rig.clock.advance(1_000_000)
    assert rig.servo(1).registers.get(Reg.GOAL_CURRENT) == 300
    rig.arm.energize()
    assert rig.torque_on == [(0, 0, 0)] * 6


def test_the_watchdog_is_armed_with_the_configured_period() -> None:
    rig = Rig().energized()
    assert [servo.registers.get(Reg.BUS_WATCHDOG) for servo in rig.bus.servos] == [5] * 6


@pytest.mark.parametrize(
    ("q", "dq", "words"),
    [
        (1.30, 0.0, r"position 1\.\d+ rad is outside the hard limits \[-1\.620, 1\.220\]"),
        (-1.70, 0.0, "outside the hard limits"),
        (3.20, 0.0, "encoder count -38 is outside one turn"),
        (0.0, 0.5, r"moves at 0\.\d+ rad/s"),
    ],
)
def test_a_pose_outside_limits_beyond_a_turn_or_moving_is_refused(q: float, dq: float, words: str) -> None:
    rig = Rig()
    rig.arm.connect()
    rig.physics.place(np.array([0, 0, q, 0, 0, 0]), np.array([0, 0, dq, 0, 0, 0]))
    rig.clock.advance(1_000_000)
    with pytest.raises(ArmSetupError, match=words) as caught:
        rig.arm.energize()
    assert "elbow_pitch" in caught.value.message
    assert rig.arm.state is ArmState.IDLE
    assert rig.torque_on == []


# ---- rounds ------------------------------------------------------------------------------------------------------------


def test_told_torque_is_what_the_servo_registers_were_given_round_for_round() -> None:
    rig = Rig().energized()
    rig.writes.clear()
    generator = np.random.default_rng(0)
    told = [rig.round(generator.uniform(-1, 1, 6) * rig.arm.spec.tau_max).tau_cmd for _ in range(50)]
    for joint, servo in enumerate(rig.config.driver.params()["servos"]):
        sign = -1 if servo["reversed"] else 1
        registers = np.array(rig.goals(joint)) * sign * 2.69e-3 * servo["torque_constant_nm_a"]
        np.testing.assert_allclose([tau[joint] for tau in told], registers, atol=1e-12)


def test_no_torque_gets_past_the_configured_current() -> None:
    rig = Rig().energized()
    for tau in (1e6, -1e6):
        rig.round(tau)
    for joint, servo in enumerate(rig.config.driver.params()["servos"]):
        assert max(abs(goal) for goal in rig.goals(joint)) == int(servo["current_max_a"] / 2.69e-3)
    assert rig.bus.counters.refused_writes == 0


@pytest.mark.parametrize("joint", range(6))
def test_positive_torque_turns_each_joint_and_only_it_in_its_positive_direction(joint: int) -> None:
    rig = Rig().energized()
    tau = np.zeros(6)
    tau[joint] = 1.0
    for _ in range(100):
        state = rig.round(tau)
    assert state.q[joint] > 0.05
    assert state.dq[joint] > 0.1
    assert state.tau[joint] == pytest.approx(1.0, abs=0.01)
    others = np.arange(6) != joint
    assert (np.abs(state.q[others]) < 0.002).all()
    np.testing.assert_allclose(state.q, rig.physics.q, atol=0.002)


@pytest.mark.parametrize("driver", [{}, PLAIN])
def test_velocity_follows_the_joint_with_the_documented_delay(driver: dict[str, Any]) -> None:
    rig = Rig(robot(driver=driver)).energized()
    true, seen = [], []
    for k in range(250):
        seen.append(rig.round(2.0 * np.sin(2 * np.pi * 1.0 * k * 0.004)).dq)
        true.append(rig.physics.dq)
    delay_rounds = 3.5
    late = np.array([true[k - 4] + (true[k - 3] - true[k - 4]) * (4 - delay_rounds) for k in range(20, 250)])
    assert np.max(np.abs(np.array(seen[20:]) - late)) < 0.08
    assert np.std(np.array(seen[20:]) - late) < 0.03


def test_a_healthy_bus_needs_no_retry() -> None:
    rig = Rig().energized()
    rig.writes.clear()
    for _ in range(250):
        assert rig.round().fresh.all()
    counters = rig.arm.counters
    assert (counters.retries, counters.timeouts, counters.corrupt, counters.stale_joints) == (0, 0, 0, 0)
    assert rig.bus.wire.collisions == 0


def test_a_round_takes_what_the_arithmetic_says() -> None:
    """192 bytes at 3 Mbit/s are 0.64 ms; the twin's devices add 20 µs."""
    rig = Rig().energized()
    start_ns = rig.clock.now_ns()
    rig.arm.exchange(LimitedTorque(np.zeros(6)))
    assert (rig.clock.now_ns() - start_ns) * 1e-6 == pytest.approx(0.66, abs=0.02)


def test_joints_at_rest_whose_readings_need_stuffing_are_read_by_plain_sync_read() -> None:
    """Current −1 and velocity −3 are FF FF FD on the wire."""
    rig = Rig(robot(driver=PLAIN)).energized()
    for _ in range(400):
        assert rig.round(-0.006).fresh.all()
    assert rig.arm.counters.retries == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_torque_that_is_not_finite_never_reaches_the_wire(wrong: float) -> None:
    rig = Rig().energized()
    rig.writes.clear()
    tau = np.zeros(6)
    tau[3] = wrong
    with pytest.raises(ArmError, match="not finite"):
        rig.round(tau)
    assert rig.writes == []


def test_stop_takes_torque_off_within_a_few_milliseconds() -> None:
    rig = Rig().energized()
    rig.round(1.0)
    start_ns = rig.clock.now_ns()
    rig.arm.stop()
    assert rig.arm.torque_is_off()
    assert not rig.any_torque()
    assert rig.clock.now_ns() - start_ns < 5_000_000
