"""What a servo does by itself: torque, modes, watchdog, protection, encoder."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin_world import MS, XM430, XM540, Bench, word

from robotsac_sim.motors import MOTORS
from robotsac_sim.twin.assumed import Assumptions
from robotsac_sim.twin.encoder import COUNTS_PER_RAD, RAD_S_PER_COUNT
from robotsac_sim.twin.protocol import CLEAR_MULTI_TURN, Cause, ErrorCode, Op
from robotsac_sim.twin.table import Reg

UNIT_A = 0.00269
LATCHED_ALERT = 0x80


# -- current mode


@pytest.mark.parametrize("model", [XM430, XM540])
@pytest.mark.parametrize("reversed_mount", [False, True])
def test_current_mode_gives_torque_constant_times_current(model, reversed_mount: bool) -> None:  # type: ignore[no-untyped-def]
    bench = Bench(model, reversed_mount=reversed_mount)
    bench.torque_mode(current=123)
    bench.sleep(10)
    sign = -1.0 if reversed_mount else 1.0
    expected = sign * 123 * UNIT_A * MOTORS[model.name].torque_constant_nm_a
    assert bench.physics.tau[0] == pytest.approx(expected, rel=1e-12)
    assert bench.read(Reg.PRESENT_CURRENT) == 123


def test_without_torque_enable_no_goal_moves_anything() -> None:
    bench = Bench(inertia=0.01)
    bench.set(operating_mode=0, goal_current=500)
    bench.sleep(100)
    assert bench.physics.tau[0] == 0.0
    assert bench.physics.q[0] == 0.0
    assert bench.read(Reg.PRESENT_CURRENT) == 0


def test_torque_off_takes_the_torque_away() -> None:
    bench = Bench()
    bench.torque_mode(current=100)
    bench.sleep(5)
    bench.set(torque_enable=0)
    bench.sleep(5)
    assert bench.physics.tau[0] == 0.0


def test_torque_on_in_current_mode_kicks_with_the_current_limit() -> None:
    """The trap that a driver must step around: mode change sets Goal Current to the limit."""
    bench = Bench()
    bench.set(operating_mode=0, torque_enable=1)
    bench.sleep(5)
    assert bench.read(Reg.PRESENT_CURRENT) == 1193


def test_position_and_velocity_limits_do_not_act_in_current_mode() -> None:
    bench = Bench(inertia=0.01)
    bench.set(velocity_limit=10, min_position_limit=2000, max_position_limit=2100)
    bench.torque_mode(current=300)
    bench.sleep(300)
    assert bench.read(Reg.PRESENT_POSITION) > 2100
    assert bench.read(Reg.PRESENT_VELOCITY) > 10


def test_in_free_motion_the_goal_current_is_not_reached() -> None:
    bench = Bench(inertia=0.01, saturate=True)
    bench.torque_mode(current=1193)
    bench.sleep(2000)
    no_load = 12.0 / MOTORS["XM430-W350"].back_emf_v_s_rad
    assert bench.physics.dq[0] == pytest.approx(no_load, rel=0.02)
    assert abs(bench.read(Reg.PRESENT_CURRENT)) < 60
    assert bench.read(Reg.PRESENT_PWM) > 850


def test_pwm_limit_acts_in_current_mode() -> None:
    bench = Bench(presets={Reg.PWM_LIMIT: 100})
    bench.set(operating_mode=0, goal_current=1193, torque_enable=1)
    bench.sleep(10)
    stalled = 100 / 885 * 12.0 / MOTORS["XM430-W350"].resistance_ohm / UNIT_A
    assert bench.read(Reg.PRESENT_CURRENT) == pytest.approx(stalled, abs=2)


@given(st.integers(-1193, 1193))
@settings(max_examples=30, deadline=None)
def test_present_current_is_the_goal_on_a_held_shaft(goal: int) -> None:
    bench = Bench()
    bench.torque_mode(current=goal)
    bench.sleep(2)
    assert bench.read(Reg.PRESENT_CURRENT) == goal


# -- the other modes


@pytest.mark.parametrize("mode", [3, 4, 5])
@pytest.mark.parametrize("goal", [1500, 2600])
def test_position_modes_reach_their_goal(mode: int, goal: int) -> None:
    bench = Bench(inertia=0.02, saturate=True)
    bench.set(operating_mode=mode, torque_enable=1, goal_position=goal)
    bench.sleep(2000)
    assert bench.read(Reg.PRESENT_POSITION) == pytest.approx(goal, abs=3)
    assert bench.read(Reg.MOVING) == 0
    assert bench.read(Reg.MOVING_STATUS) & 1 == 1


def test_torque_on_in_position_mode_stays_where_it_is() -> None:
    bench = Bench(inertia=0.02, q=0.7)
    bench.set(goal_position=100, torque_enable=1)
    bench.sleep(500)
    assert bench.physics.q[0] == pytest.approx(0.7, abs=0.002)


def test_profile_velocity_limits_the_way() -> None:
    bench = Bench(inertia=0.02, saturate=True)
    bench.set(torque_enable=1, profile_velocity=20, goal_position=3000)
    bench.sleep(1000)
    assert bench.read(Reg.PRESENT_VELOCITY) == pytest.approx(20, abs=3)
    assert bench.read(Reg.MOVING) == 1
    assert bench.read(Reg.MOVING_STATUS) & 2 == 2


def test_current_based_position_never_exceeds_goal_current() -> None:
    bench = Bench()
    bench.set(operating_mode=5, goal_current=50, torque_enable=1, goal_position=3000)
    bench.sleep(100)
    assert bench.read(Reg.PRESENT_CURRENT) == 50


@pytest.mark.parametrize("goal", [-100, 100])
def test_velocity_mode_reaches_its_goal(goal: int) -> None:
    bench = Bench(inertia=0.02, saturate=True)
    bench.set(operating_mode=1, torque_enable=1, goal_velocity=goal)
    bench.sleep(3000)
    assert bench.read(Reg.PRESENT_VELOCITY) == pytest.approx(goal, abs=2)


def test_pwm_mode_on_a_held_shaft_is_ohms_law() -> None:
    bench = Bench()
    bench.set(operating_mode=16, goal_pwm=-200, torque_enable=1)
    bench.sleep(5)
    expected = -200 / 885 * 12.0 / MOTORS["XM430-W350"].resistance_ohm / UNIT_A
    assert bench.read(Reg.PRESENT_CURRENT) == pytest.approx(expected, rel=0.03)


def test_torque_on_by_goal_update() -> None:
    bench = Bench(presets={Reg.DRIVE_MODE: 8, Reg.OPERATING_MODE: 0})
    assert bench.read(Reg.TORQUE_ENABLE) == 0
    bench.set(goal_current=40)
    bench.sleep(5)
    assert bench.read(Reg.TORQUE_ENABLE) == 1
    assert bench.read(Reg.PRESENT_CURRENT) == 40


# -- encoder


@pytest.mark.parametrize(
    ("q", "reversed_mount", "zero", "drive", "counts"),
    [
        (0.0, False, 2048, 0, 2048),
        (0.5, False, 2048, 0, 2048 + 326),
        (0.5, True, 2048, 0, 2048 - 326),
        (0.5, False, 1000, 0, 1326),
        (0.5, False, 2048, 1, 2048 - 326),
        (0.5, True, 2048, 1, 2048 + 326),
        (-4.0, False, 2048, 0, (2048 - 2608) % 4096),
    ],
)
def test_counts_follow_mount_zero_and_direction(
    q: float, reversed_mount: bool, zero: int, drive: int, counts: int
) -> None:
    bench = Bench(q=q, reversed_mount=reversed_mount, zero_count=zero)
    bench.set(drive_mode=drive)
    assert bench.read(Reg.PRESENT_POSITION) == counts


def test_drive_mode_reverse_also_turns_current_and_velocity() -> None:
    bench = Bench(presets={Reg.DRIVE_MODE: 1})
    bench.torque_mode(current=100)
    bench.physics.place(np.zeros(1), np.array([1.0]))
    bench.sleep(300)
    assert bench.physics.tau[0] < 0.0
    assert bench.read(Reg.PRESENT_CURRENT) == 100
    assert bench.read(Reg.PRESENT_VELOCITY) == -round(1.0 / RAD_S_PER_COUNT)


def test_homing_offset_is_added_and_held_to_a_quarter_turn_in_position_mode() -> None:
    bench = Bench()
    bench.set(homing_offset=2000)
    assert bench.read(Reg.PRESENT_POSITION) == 2048 + 1024
    bench.set(operating_mode=4)
    assert bench.read(Reg.PRESENT_POSITION) == 2048 + 2000


def test_position_runs_on_past_a_turn_and_a_reboot_folds_it_back() -> None:
    bench = Bench(presets={Reg.OPERATING_MODE: 0})
    bench.physics.place(np.array([5.0]))
    bench.sleep(1)
    counts = round(2048 + 5.0 * COUNTS_PER_RAD)
    assert bench.read(Reg.PRESENT_POSITION) == counts > 4095
    bench.one(1, Op.REBOOT)
    bench.sleep(400)
    assert bench.read(Reg.PRESENT_POSITION) == counts - 4096


def test_clear_folds_turns_only_at_rest() -> None:
    bench = Bench(presets={Reg.OPERATING_MODE: 4})
    bench.physics.place(np.array([5.0]), np.array([0.5]))
    bench.sleep(200)
    assert bench.one(1, Op.CLEAR, CLEAR_MULTI_TURN).error == ErrorCode.RESULT_FAIL
    bench.physics.place(np.array([5.0]))
    bench.sleep(500)
    assert bench.one(1, Op.CLEAR, CLEAR_MULTI_TURN).error == 0
    assert 0 <= bench.read(Reg.PRESENT_POSITION) <= 4095


def test_present_velocity_is_filtered_and_cut_to_whole_counts() -> None:
    bench = Bench()
    bench.physics.place(np.zeros(1), np.array([1.0]))
    bench.sleep(30)
    # One time constant on: 63 % of the way.
    assert bench.read(Reg.PRESENT_VELOCITY) == pytest.approx((1 - math.exp(-1)) / RAD_S_PER_COUNT, rel=0.1)
    bench.sleep(500)
    assert bench.read(Reg.PRESENT_VELOCITY) == round(1.0 / RAD_S_PER_COUNT)


# -- bus watchdog


def test_watchdog_stops_the_servo_when_the_bus_falls_silent() -> None:
    bench = Bench()
    bench.torque_mode(current=100)
    bench.set(bus_watchdog=5)
    fed_ns = bench.bus.t_ns
    bench.clock.sleep_until(fed_ns + 90 * MS)
    assert bench.physics.tau[0] > 0.0
    bench.clock.sleep_until(fed_ns + 101 * MS)
    assert bench.bus.world.watchdog_expiries == 1
    assert bench.servo.watchdog.expired
    bench.sleep(2)
    assert bench.physics.tau[0] == 0.0
    assert bench.read(Reg.BUS_WATCHDOG) == 0xFF
    assert bench.read(Reg.TORQUE_ENABLE) == 1


def test_expiry_is_on_time_however_coarsely_time_is_advanced() -> None:
    for pieces in (1, 7, 1000):
        bench = Bench(inertia=0.01)
        bench.torque_mode(current=10)
        bench.set(bus_watchdog=1)
        start_ns = bench.bus.t_ns
        for k in range(1, pieces + 1):
            bench.clock.sleep_until(start_ns + 200 * MS * k // pieces)
        # The torque acted for 20 ms and what was left of the write's own time, no more.
        moved = 10 * UNIT_A * MOTORS["XM430-W350"].torque_constant_nm_a / 0.01
        assert bench.physics.dq[0] == pytest.approx(moved * 0.022, abs=moved * 0.006)


@pytest.mark.parametrize("device_id", [1, 2, 77])
def test_any_packet_to_anyone_feeds_the_watchdog(device_id: int) -> None:
    bench = Bench(XM430, XM430)
    bench.torque_mode(current=10)
    bench.set(bus_watchdog=2)
    for _ in range(20):
        bench.ask(device_id, Op.PING, wait_ms=30)
    assert bench.bus.world.watchdog_expiries == 0


def test_watchdog_does_not_run_with_torque_off() -> None:
    bench = Bench()
    bench.set(bus_watchdog=1)
    bench.sleep(500)
    assert bench.read(Reg.BUS_WATCHDOG) == 1
    bench.set(torque_enable=1)
    bench.sleep(500)
    assert bench.read(Reg.BUS_WATCHDOG) == 0xFF


def test_after_expiry_goals_are_refused_until_zero_clears_it() -> None:
    bench = Bench()
    bench.torque_mode(current=100)
    bench.set(bus_watchdog=1)
    bench.sleep(50)
    assert bench.write(Reg.GOAL_CURRENT, 5) == ErrorCode.DATA_RANGE
    assert bench.write(Reg.BUS_WATCHDOG, 5) == ErrorCode.DATA_RANGE
    bench.sync_write(Reg.GOAL_CURRENT, {1: 5})
    assert bench.read(Reg.GOAL_CURRENT) == 0
    assert bench.bus.counters.refused_writes == 3
    bench.set(bus_watchdog=0, goal_current=5)
    bench.sleep(5)
    assert bench.read(Reg.PRESENT_CURRENT) == 5


def test_a_reboot_disarms_the_watchdog() -> None:
    bench = Bench()
    bench.set(torque_enable=1, bus_watchdog=3)
    bench.one(1, Op.REBOOT)
    bench.sleep(1000)
    assert bench.read(Reg.BUS_WATCHDOG) == 0


# -- protection


def test_a_masked_in_cause_shuts_down_alerts_and_stays() -> None:
    bench = Bench()
    bench.torque_mode(current=100)
    bench.servo.raise_fault(Cause.OVERLOAD, bench.bus.t_ns)
    bench.sleep(5)
    assert bench.physics.tau[0] == 0.0
    assert bench.one(1, Op.READ, word(Reg.HARDWARE_ERROR_STATUS) + word(1)).error == LATCHED_ALERT
    assert bench.read(Reg.HARDWARE_ERROR_STATUS) == Cause.OVERLOAD
    # Acknowledged, without effect.
    assert bench.write(Reg.TORQUE_ENABLE, 1) == LATCHED_ALERT
    assert bench.read(Reg.TORQUE_ENABLE) == 0
    assert bench.one(1, Op.PING).error == LATCHED_ALERT


def test_a_masked_out_cause_shows_but_leaves_the_motor_on() -> None:
    bench = Bench()
    bench.torque_mode(current=100)
    bench.servo.raise_fault(Cause.ENCODER, bench.bus.t_ns)
    bench.sleep(5)
    assert bench.physics.tau[0] > 0.0
    assert bench.read(Reg.HARDWARE_ERROR_STATUS) == Cause.ENCODER
    assert bench.write(Reg.LED, 1) == LATCHED_ALERT


def test_reboot_clears_a_fault_after_a_silence() -> None:
    bench = Bench(assumed=Assumptions(boot_ns=200 * MS))
    bench.servo.raise_fault(Cause.OVERHEATING, 0)
    assert bench.one(1, Op.REBOOT).error == 0
    assert bench.ask(1, Op.PING, wait_ms=190) == []
    bench.sleep(10)
    assert bench.one(1, Op.PING).error == 0
    assert bench.read(Reg.HARDWARE_ERROR_STATUS) == 0
    bench.set(torque_enable=1)
    assert bench.read(Reg.TORQUE_ENABLE) == 1


def test_a_stalled_motor_heats_up_and_shuts_down() -> None:
    bench = Bench(saturate=True)
    bench.torque_mode(current=700)
    assert bench.read(Reg.PRESENT_TEMPERATURE) == 25
    for _ in range(600):
        bench.sleep(500)
        if not bench.servo.torque:
            break
    assert bench.read(Reg.PRESENT_TEMPERATURE) == 80
    assert bench.read(Reg.HARDWARE_ERROR_STATUS) == Cause.OVERHEATING
    assert bench.read(Reg.TORQUE_ENABLE) == 0


def test_stall_current_for_long_is_an_overload() -> None:
    bench = Bench(saturate=True)
    bench.torque_mode(current=1193)
    bench.sleep(1400)
    assert bench.read(Reg.HARDWARE_ERROR_STATUS) == 0
    bench.sleep(300)
    assert bench.read(Reg.HARDWARE_ERROR_STATUS) == Cause.OVERLOAD
    assert bench.read(Reg.TORQUE_ENABLE) == 0


def test_load_makes_the_supply_sag() -> None:
    bench = Bench(XM540, XM540, saturate=True, assumed=Assumptions(supply_resistance_ohm=0.5))
    for device_id in (1, 2):
        bench.torque_mode(current=1500, device_id=device_id)
    bench.sleep(5)
    assert bench.read(Reg.PRESENT_INPUT_VOLTAGE) < 100


def test_voltage_outside_its_limits_is_reported() -> None:
    bench = Bench(supply_v=9.0)
    bench.sleep(20)
    assert bench.read(Reg.HARDWARE_ERROR_STATUS) == Cause.INPUT_VOLTAGE
    # Not in the default shutdown mask.
    bench.set(torque_enable=1)
    assert bench.read(Reg.TORQUE_ENABLE) == 1


def test_moving_compares_with_the_threshold() -> None:
    bench = Bench()
    bench.physics.place(np.zeros(1), np.array([11 * RAD_S_PER_COUNT]))
    bench.sleep(500)
    assert bench.read(Reg.MOVING) == 1
    bench.set(moving_threshold=11)
    assert bench.read(Reg.MOVING) == 0
