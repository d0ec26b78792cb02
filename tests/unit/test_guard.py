"""The guard's states, stops and faults, on the simulated arm in its own time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from robotsac.arm import ArmState, JointState, LimitedTorque, open_arm
from robotsac.config import Config, load_config
from robotsac.dynamics import RigidBody
from robotsac.env.stability import largest_inertias
from robotsac.errors import POWERED, ArmError, ArmStateError, BusTimeout, FaultCode, GuardFault, JointFault
from robotsac.guard import Guard, GuardState
from robotsac.guard.recorder import FILES_MAX


class TroubledArm:
    """A simulated arm whose bus can fail on demand; everything else is the real one."""

    def __init__(self, config: Config) -> None:
        self._arm = open_arm(config.robot)
        self.trouble: Callable[[], None] = lambda: None
        self.told: list[np.ndarray] = []
        self.stall_ns = 0
        self.silent = False

    def torque_is_off(self) -> bool:
        return not self.silent and self._arm.torque_is_off()

    def __getattr__(self, name: str):
        return getattr(self._arm, name)

    def place(self, q: np.ndarray) -> JointState:
        return self._arm.place(q)

    def exchange(self, torque: LimitedTorque) -> JointState:
        self.trouble()
        self.told.append(np.array(torque))
        if self.stall_ns:
            self.clock.sleep_until(self.clock.now_ns() + self.stall_ns)
        return self._arm.exchange(torque)


@pytest.fixture
def arm(config: Config) -> TroubledArm:
    return TroubledArm(config)


@pytest.fixture
def config() -> Config:
    return load_config("arm0-sim")


@pytest.fixture
def guard(arm: TroubledArm, config: Config, tmp_path) -> Iterator[Guard]:
    robot = config.robot
    body = RigidBody(robot.model, tuple(joint.name for joint in robot.joints), robot.tip_site)
    guard = Guard(arm, body.gravity, robot.guard, tmp_path / "faults", largest_inertias(robot, body))
    yield guard
    guard.close()


def started(guard: Guard) -> Guard:
    guard.start()
    guard.settle(guard.spec.home)
    return guard


def test_it_comes_up_disarmed_and_refuses_to_move(guard):
    assert guard.state is GuardState.DISARMED
    for call in (lambda: guard.step(np.zeros(6)), guard.idle, guard.activate, lambda: guard.move_to(guard.spec.home)):
        with pytest.raises(ArmStateError):
            call()
    assert guard.arm.told == []


def test_the_first_torque_on_the_bus_is_zero(guard, arm):
    guard.start()
    np.testing.assert_array_equal(arm.told[0], np.zeros(6))


def test_policy_torque_needs_active(guard):
    started(guard)
    with pytest.raises(ArmStateError):
        guard.step(np.zeros(6))
    guard.activate()
    guard.step(np.zeros(6))


def test_hold_keeps_the_pose_against_gravity(guard):
    started(guard)
    for _ in range(100):
        guard.idle()
    np.testing.assert_allclose(guard.joints.q, guard.spec.home, atol=0.02)


def test_applied_policy_torque_is_what_the_joints_got_less_gravity_and_damping(guard):
    started(guard)
    guard.activate()
    asked = 0.05 * guard.spec.action_scale
    tick = guard.step(asked)
    np.testing.assert_allclose(tick.tau_policy, asked, atol=1e-9)


def test_one_control_tick_is_the_configured_number_of_bus_ticks(guard, arm):
    started(guard)
    before, t_ns = len(arm.told), arm.clock.now_ns()
    guard.idle()
    assert len(arm.told) - before == 5
    assert arm.clock.now_ns() - t_ns == 20_000_000


def test_move_to_arrives_and_stays_within_the_velocity_limit(guard):
    started(guard)
    goal = guard.spec.park
    fastest = 0.0
    begin = guard.counters.ticks
    guard.move_to(goal)
    assert guard.counters.ticks > begin
    for _ in range(25):
        guard.idle()
        fastest = max(fastest, float(np.abs(guard.joints.dq / guard.spec.dq_max).max()))
    np.testing.assert_allclose(guard.joints.q, goal, atol=0.03)
    assert fastest < 1.0


def test_move_to_refuses_a_goal_outside_the_soft_limits(guard):
    started(guard)
    with pytest.raises(ValueError, match="soft limits"):
        guard.move_to(guard.spec.q_max + 0.1)


def test_a_constant_push_stops_at_the_soft_limits(guard):
    """Bang-bang and constant full actions, ten seconds each: the braking distance holds, well short of the stops."""
    rng = np.random.default_rng(0)
    started(guard)
    guard.activate()
    for policy in (lambda: np.ones(6), lambda: -np.ones(6), lambda: rng.choice((-1.0, 1.0), 6)):
        for _ in range(500):
            guard.step(policy() * guard.spec.action_scale)
            q = guard.joints.q
            assert (q < guard.spec.q_max + 0.03).all()
            assert (q > guard.spec.q_min - 0.03).all()
    assert guard.state is GuardState.ACTIVE


def test_stop_damps_to_rest_and_ends_with_torque_off(guard, arm):
    started(guard)
    guard.activate()
    for _ in range(20):
        guard.step(guard.spec.action_scale)
    assert np.abs(guard.joints.dq).max() > 0.5
    guard.stop()
    assert np.abs(guard.joints.dq).max() < guard._config.rest_dq_rad_s
    assert arm.state is ArmState.IDLE
    assert arm.torque_is_off()
    assert guard.state is GuardState.DISARMED


def test_stop_is_idempotent_and_legal_before_start(guard):
    guard.stop()
    guard.stop()
    assert guard.state is GuardState.DISARMED


def test_an_exception_inside_the_guards_context_ends_with_torque_off(guard, arm):
    with pytest.raises(KeyboardInterrupt), guard:
        started(guard)
        guard.activate()
        guard.step(guard.spec.action_scale)
        raise KeyboardInterrupt
    assert arm.torque_is_off()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_torque_that_is_not_finite_is_a_latched_fault(guard, arm, bad):
    started(guard)
    guard.activate()
    torque = np.zeros(6)
    torque[2] = bad
    with pytest.raises(GuardFault) as caught:
        guard.step(torque)
    assert caught.value.code is FaultCode.NOT_FINITE
    assert guard.state is GuardState.FAULT
    assert arm.torque_is_off()
    assert np.isfinite(arm.told).all(), "nothing that is not finite may reach the bus"


def test_a_latched_fault_needs_an_operator(guard):
    started(guard)
    guard.activate()
    with pytest.raises(GuardFault):
        guard.step(np.full(6, np.nan))
    for call in (guard.start, guard.activate, guard.idle):
        with pytest.raises(ArmStateError):
            call()
    guard.stop()
    assert guard.state is GuardState.FAULT
    guard.clear_fault()
    assert guard.state is GuardState.DISARMED
    guard.start()


def test_lost_rounds_while_the_arm_comes_up_are_survived_with_zero_torque(guard, arm):
    failures = iter([True] * (guard._config.lost_rounds_max - 1))
    began_ns = arm.clock.now_ns()

    def trouble() -> None:
        if next(failures, False):
            raise BusTimeout("no reply")

    arm.trouble = trouble
    guard.start()
    lost = guard.counters.lost_rounds
    assert (guard.state, lost) == (GuardState.HOLD, guard._config.lost_rounds_max - 1)
    np.testing.assert_array_equal(arm.told, np.zeros((1, 6)))
    assert arm.clock.now_ns() - began_ns >= lost * 1e9 / guard.spec.bus_rate_hz, "one round in each tick"


def test_an_arm_that_says_nothing_while_it_comes_up_ends_with_torque_off(guard, arm):
    def trouble() -> None:
        raise BusTimeout("no reply")

    arm.trouble = trouble
    with pytest.raises(BusTimeout):
        guard.start()
    assert guard.counters.lost_rounds == guard._config.lost_rounds_max
    assert guard.state is GuardState.DISARMED
    assert arm.torque_is_off()


def test_lost_rounds_below_the_limit_are_counted_and_survived(guard, arm):
    started(guard)
    guard.activate()
    failures = iter([True] * (guard._config.lost_rounds_max - 1))

    def trouble() -> None:
        if next(failures, False):
            raise BusTimeout("no reply")

    arm.trouble = trouble
    guard.step(np.zeros(6))
    assert guard.counters.lost_rounds == guard._config.lost_rounds_max - 1
    assert guard.state is GuardState.ACTIVE


def test_lost_rounds_at_the_limit_stop_the_arm(guard, arm):
    started(guard)
    guard.activate()

    def trouble() -> None:
        raise BusTimeout("no reply")

    arm.trouble = trouble
    with pytest.raises(GuardFault) as caught:
        guard.step(np.zeros(6))
    assert caught.value.code is FaultCode.BUS
    assert guard.counters.lost_rounds >= guard._config.lost_rounds_max
    assert arm.torque_is_off()


def test_a_joint_fault_stops_at_once_and_names_the_joint(guard, arm):
    started(guard)
    guard.activate()

    def trouble() -> None:
        raise JointFault(3, "forearm_roll", "overheating", 0x04)

    arm.trouble = trouble
    with pytest.raises(GuardFault) as caught:
        guard.step(np.zeros(6))
    assert caught.value.code is FaultCode.JOINT
    assert caught.value.joint == 3
    assert "overheating" in str(caught.value)
    assert arm.torque_is_off()


def test_a_missed_deadline_holds_the_arm_and_does_not_latch(guard, arm):
    started(guard)
    guard.activate()
    guard.step(np.zeros(6))
    arm.clock.sleep_until(arm.clock.now_ns() + 80_000_000)
    with pytest.raises(GuardFault) as caught:
        guard.step(np.zeros(6))
    assert caught.value.code is FaultCode.DEADLINE
    assert not caught.value.latched
    assert guard.state is GuardState.HOLD
    guard.activate()
    guard.step(np.zeros(6))


def test_overruns_are_skipped_and_counted_never_caught_up(guard, arm):
    started(guard)
    guard.activate()
    guard.step(np.zeros(6))
    arm.stall_ns = 9_000_000
    before, told = guard.counters.overruns, len(arm.told)
    guard.step(np.zeros(6))
    assert len(arm.told) - told == 5, "one exchange per tick, however late"
    assert guard.counters.overruns > before


def test_a_fault_writes_the_last_ticks_to_disk(guard, tmp_path):
    started(guard)
    guard.activate()
    for _ in range(10):
        guard.step(0.1 * guard.spec.action_scale)
    with pytest.raises(GuardFault):
        guard.step(np.full(6, np.nan))
    report = next((tmp_path / "faults").glob("*.json"))
    words = json.loads(report.read_text())
    assert words["code"] == "NOT_FINITE"
    ticks = np.load(report.parent / words["ticks"])
    assert len(ticks) >= 50
    assert (np.diff(ticks["t_ns"]) > 0).all()


def test_park_lays_the_arm_down_before_torque_goes_off(guard, arm):
    started(guard)
    guard.park()
    np.testing.assert_allclose(guard.joints.q, guard.spec.park, atol=0.05)
    assert arm.torque_is_off()
    assert guard.state is GuardState.DISARMED


def test_a_move_that_is_interrupted_brakes_and_holds_where_it_came_to_rest(guard):
    started(guard)
    asked = []

    def should_stop() -> bool:
        asked.append(guard.clock.now_ns())
        return len(asked) > 10

    goal = guard.spec.park
    before = guard.joints.q
    guard.move_to(goal, duration_s=4.0, should_stop=should_stop)
    assert guard.state is GuardState.HOLD
    assert len(asked) == 11, "asked at every control tick, no more once it said so"
    assert np.abs(guard.joints.dq).max() < 0.05
    assert np.abs(guard.joints.q - goal).max() > 0.5 * np.abs(before - goal).max(), "far from the goal still"
    held = guard.joints.q
    for _ in range(25):
        guard.idle()
    np.testing.assert_allclose(guard.joints.q, held, atol=0.02)


def test_parking_that_is_interrupted_ends_with_torque_off_at_once(guard, arm):
    started(guard)
    began_ns = guard.clock.now_ns()
    guard.park(should_stop=lambda: guard.clock.now_ns() - began_ns > 100_000_000)
    assert guard.state is GuardState.DISARMED
    assert arm.torque_is_off()
    assert guard.clock.now_ns() - began_ns < 1_000_000_000


def test_a_fault_on_the_way_to_the_park_pose_is_told_in_the_end(guard, arm):
    guard.require_off()
    started(guard)

    def trouble() -> None:
        raise BusTimeout("no reply")

    arm.trouble = trouble
    guard.park()
    guard.close()
    assert arm.torque_is_off()
    with pytest.raises(GuardFault) as caught:
        guard.require_off()
    assert caught.value.code is FaultCode.BUS and POWERED not in caught.value.reason
    assert caught.value.command.startswith("robotsac fault show ")


@pytest.mark.parametrize("faulted", [False, True])
def test_torque_that_is_not_read_back_as_off_is_an_error(guard, arm, faulted):
    started(guard)
    arm.silent = True
    if faulted:
        guard.activate()
        with pytest.raises(GuardFault):
            guard.step(np.full(6, np.nan))
    guard.close()
    with pytest.raises(ArmError) as caught:
        guard.require_off()
    assert POWERED in str(caught.value) and isinstance(caught.value, GuardFault) == faulted


def test_the_disk_comes_after_torque_off(guard, arm, tmp_path):
    """A slow disk must not keep the last torque on silent servos."""
    started(guard)
    guard.activate()
    off_when_written = []
    write = guard._recorder.write
    guard._recorder.write = lambda *args: (off_when_written.append(arm.torque_is_off()), write(*args))[1]
    for _ in range(5):
        guard.step(np.zeros(6))
    with pytest.raises(GuardFault) as caught:
        guard.step(np.full(6, np.nan))
    assert off_when_written == [True]
    (report,) = (tmp_path / "faults").glob("fault-*.json")
    assert report.name in str(caught.value) + caught.value.command
    ticks = np.load(report.with_suffix(".npy"))
    fault_ns = json.loads(report.read_text())["t_ns"]
    assert (ticks["t_ns"] <= fault_ns).any() and (ticks["t_ns"] > fault_ns).any(), "what led to it, and the stop"
    assert (np.diff(ticks["t_ns"]) > 0).all()


def test_only_the_newest_faults_stay_on_disk(guard, tmp_path):
    for n in range(FILES_MAX + 5):
        guard._recorder.write(GuardFault(FaultCode.BUS, detail=str(n)), n * 1_000_000, ())
    kept = sorted(
        json.loads(path.read_text())["t_ns"] // 1_000_000 for path in (tmp_path / "faults").glob("fault-*.json")
    )
    assert kept == list(range(5, FILES_MAX + 5))
    assert len(list((tmp_path / "faults").glob("fault-*.npy"))) == FILES_MAX
