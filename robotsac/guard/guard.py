"""The guard: owns the arm at bus rate, and is the only thing that makes a torque.

    DISARMED ──start()──► HOLD ◄──hold()── ACTIVE          stop(): damp to rest, torque off, DISARMED
                           └───activate()───►              a fault: the same, then FAULT, latched

Every bus tick is: wait for the grid, decide a target by state, admit it through the limits, one ``Arm.exchange``. The
policy has no other way to move the arm than :meth:`Guard.step`. Nothing that comes from a network reaches this file.

In simulation and, for now, on hardware, the guard runs inline in the actor; :class:`ControlTick` and the five verbs are
what crosses a process border later.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from robotsac.arm import Arm, ArmState, JointState, LimitedTorque, PlaceableArm, Vector
from robotsac.clock import NS_PER_S, Pacer
from robotsac.config.schema import GuardConfig
from robotsac.errors import ArmStateError, BusError, FaultCode, GuardFault, JointFault, RobotsacError
from robotsac.guard import limits as limit
from robotsac.guard.motion import plan, tracking
from robotsac.guard.recorder import FlightRecorder
from robotsac.records import Flag

Target = Callable[[JointState, Vector], Vector]
# Rest is called after this many bus ticks in a row below rest_dq_rad_s.
REST_TICKS = 10


class GuardState(enum.Enum):
    """What the guard is doing with the arm."""

    DISARMED = "disarmed"
    HOLD = "hold"
    ACTIVE = "active"
    STOPPING = "stopping"
    FAULT = "fault"


@dataclass(slots=True)
class GuardCounters:
    """Events since the guard was made."""

    ticks: int = 0
    overruns: int = 0  # bus ticks skipped because the grid point had passed
    lost_rounds: int = 0
    stops: int = 0
    faults: int = 0


@dataclass(frozen=True, slots=True)
class ControlTick:
    """What one control period brought.

    Attributes:
        state: joint state at its end.
        tau_policy: policy torque that was really applied (n,), N·m: mean over the bus ticks of what the joints were told,
            with gravity compensation and policy damping taken off.
        flags: every limit that acted, and LATE / STALE.
        admit_ns, exchange_ns: time spent in limits and dynamics, and on the bus.
        done_ns: ``time.perf_counter_ns`` when the last bus round was complete.
    """

    state: JointState
    tau_policy: Vector
    flags: Flag
    admit_ns: int
    exchange_ns: int
    done_ns: int


@dataclass(slots=True)
class _Tally:
    """What a control period adds up."""

    applied: Vector
    ticks: int = 0
    flags: int = 0
    admit_ns: int = 0
    exchange_ns: int = 0


@dataclass(slots=True)
class _Watch:
    """Consecutive failures."""

    lost: int = 0
    stale: Vector = field(default_factory=lambda: np.zeros(0))


class Guard:
    """See module docstring. A context manager: leaving it, by whatever way, ends in torque off.

    Args:
        arm: disconnected; the guard connects and owns it.
        gravity: q (n,) → gravity torque (n,), N·m.
        config: counts and times.
        faults_folder: where faults are written, if anywhere.
    """

    def __init__(
        self, arm: Arm, gravity: Callable[[Vector], Vector], config: GuardConfig, faults_folder: Path | None = None
    ) -> None:
        self.arm = arm
        self.spec = arm.spec
        self.clock = arm.clock
        self.state = GuardState.DISARMED
        self.fault: GuardFault | None = None
        self.counters = GuardCounters()
        self.bus_ticks = self.spec.bus_rate_hz // self.spec.control_rate_hz
        self._config = config
        self._period_ns = NS_PER_S // self.spec.bus_rate_hz
        self._limits = limit.Limits(self.spec, self._period_ns / NS_PER_S, config.velocity_fault_factor)
        self._zero = np.zeros(self.spec.n)
        self._gravity = gravity if config.gravity_compensation else lambda q: self._zero
        self._recorder = FlightRecorder(self.spec, int(config.flight_recorder_s * self.spec.bus_rate_hz), faults_folder)
        self._pacer = Pacer(self.clock, self._period_ns)
        self._joints: JointState | None = None
        self._previous = self._zero
        self._hold_q = self._zero
        self._watch = _Watch(stale=np.zeros(self.spec.n, dtype=np.int64))

    # ---- lifecycle -------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> JointState:
        """DISARMED → HOLD: connect, energize, hold the pose found.

        Raises:
            ArmStateError: not DISARMED (a latched fault needs :meth:`clear_fault` first).
            RobotsacError: whatever the driver raised; torque is off then.
        """
        self._require("start", GuardState.DISARMED)
        try:
            if self.arm.state is ArmState.DISCONNECTED:
                self.arm.connect()
            self.arm.energize()
            self._previous = self._zero
            self._watch = _Watch(stale=np.zeros(self.spec.n, dtype=np.int64))
            self._pacer.restart()
            # The first round carries zero torque and brings the first state; gravity compensation ramps in from it.
            self._joints = self.arm.exchange(LimitedTorque(self._zero))
            limit.check_state(self._joints, self._limits)
        except BaseException:
            self.arm.stop()
            raise
        self._hold_q = self._joints.q
        self.state = GuardState.HOLD
        return self._joints

    def activate(self) -> None:
        """HOLD → ACTIVE: from now on :meth:`step` applies policy torque."""
        self._require("activate", GuardState.HOLD)
        self.state = GuardState.ACTIVE

    def hold(self) -> None:
        """ACTIVE → HOLD at the present pose. In HOLD, nothing happens."""
        self._require("hold", GuardState.ACTIVE, GuardState.HOLD)
        if self.state is GuardState.ACTIVE:
            self._hold_q = self.joints.q
            self.state = GuardState.HOLD

    def stop(self) -> None:
        """Any state: damp to rest while the bus allows it, then torque off, read back. Idempotent; never raises."""
        if self.state in (GuardState.HOLD, GuardState.ACTIVE, GuardState.STOPPING):
            self.state = GuardState.STOPPING
            self.counters.stops += 1
            self._damp_to_rest()
        self.arm.stop()
        self.state = GuardState.DISARMED if self.fault is None else GuardState.FAULT

    def park(self) -> None:
        """HOLD or ACTIVE: move to the park pose, then :meth:`stop`. Torque-off lets most arms drop; this arm is down
        already. Whatever goes wrong on the way ends in the same torque off. Never raises."""
        try:
            self.hold()
            self.move_to(self.spec.park)
        except RobotsacError:
            pass
        finally:
            self.stop()

    def close(self) -> None:
        """Stop, and let the arm go. Idempotent; never raises."""
        self.stop()
        self.arm.close()

    def clear_fault(self) -> None:
        """FAULT → DISARMED. For an operator; nothing calls it on its own."""
        self._require("clear_fault", GuardState.FAULT)
        self.fault = None
        self.state = GuardState.DISARMED

    @property
    def joints(self) -> JointState:
        """Newest joint state.

        Raises:
            ArmStateError: before :meth:`start`.
        """
        if self._joints is None:
            raise ArmStateError("the guard has no joint state yet", reason="start() brings the first one")
        return self._joints

    # ---- motion ----------------------------------------------------------------------------------------------------

    def step(self, tau_policy: Vector) -> ControlTick:
        """ACTIVE: one control period with ``tau_policy`` (n,), N·m, on top of gravity compensation and policy damping.

        Raises:
            GuardFault: the arm was stopped; ``fault.latched`` tells whether for good.
        """
        self._require("step", GuardState.ACTIVE)
        damping = self.spec.policy_damping
        return self._control_tick(lambda state, gravity: gravity - damping * state.dq + tau_policy)

    def idle(self) -> ControlTick:
        """HOLD: one control period of holding the pose. Raises as :meth:`step`."""
        self._require("idle", GuardState.HOLD)
        return self._control_tick(self._holding)

    def move_to(self, q: Vector, duration_s: float | None = None) -> JointState:
        """HOLD: minimum-jerk move to ``q`` (n,), rad, through the same limits, then hold there.

        Args:
            q: goal, within the soft limits.
            duration_s: at least; slower where a joint needs it. Default: the config's.

        Raises:
            ArmStateError: not in HOLD.
            ValueError: ``q`` outside the soft limits.
            GuardFault: the arm was stopped.
        """
        self._require("move_to", GuardState.HOLD)
        goal = np.asarray(q, dtype=np.float64)
        if goal.shape != (self.spec.n,) or not ((goal >= self.spec.q_min) & (goal <= self.spec.q_max)).all():
            raise ValueError(f"move_to goal {goal} rad is not within the soft limits")
        path = plan(self.joints.q, goal, duration_s or self._config.move_duration_s, self.spec)
        begin_ns = self.clock.now_ns()

        def along(state: JointState, gravity: Vector) -> Vector:
            reference = path.at((self.clock.now_ns() - begin_ns) / NS_PER_S)
            return gravity + tracking(reference, state.q, state.dq, self.spec)

        while (self.clock.now_ns() - begin_ns) / NS_PER_S < path.duration_s:
            self._control_tick(along)
        self._hold_q = goal
        return self.joints

    def settle(self, q: Vector) -> JointState:
        """HOLD: be at ``q`` (n,), rad, at rest. A world that can place the arm does; elsewhere it moves there."""
        self._require("settle", GuardState.HOLD)
        if not isinstance(self.arm, PlaceableArm):
            return self.move_to(q)
        self._joints = self.arm.place(np.asarray(q, dtype=np.float64))
        self._previous = self._gravity(self._joints.q)
        self._hold_q = self._joints.q
        self._pacer.restart()
        return self._joints

    # ---- one tick --------------------------------------------------------------------------------------------------

    def _control_tick(self, target: Target) -> ControlTick:
        tally = _Tally(applied=np.zeros(self.spec.n))
        try:
            for _ in range(self.bus_ticks):
                self._bus_tick(target, tally)
        except GuardFault as fault:
            self._stop_for(fault)
            raise
        except JointFault as error:
            joint_fault = GuardFault(FaultCode.JOINT, joint=error.joint, name=error.name, detail=str(error))
            joint_fault.command = error.command
            self._stop_for(joint_fault)
            raise joint_fault from error
        return ControlTick(
            state=self.joints,
            tau_policy=tally.applied / max(1, tally.ticks),
            flags=Flag(tally.flags),
            admit_ns=tally.admit_ns,
            exchange_ns=tally.exchange_ns,
            done_ns=time.perf_counter_ns(),
        )

    def _bus_tick(self, target: Target, tally: _Tally) -> None:
        self._wait(tally)
        begin_ns = time.perf_counter_ns()
        state = self.joints
        gravity = self._gravity(state.q)
        asked = target(state, gravity)
        admission = limit.admit(asked, self._previous, state, gravity, self._limits)
        admitted_ns = time.perf_counter_ns()
        tally.admit_ns += admitted_ns - begin_ns
        tally.flags |= admission.flags
        self.counters.ticks += 1
        try:
            self._joints = self.arm.exchange(admission.torque)
        except BusError as error:
            self._count_lost(error, tally)
            return
        finally:
            tally.exchange_ns += time.perf_counter_ns() - admitted_ns
        self._previous = admission.torque
        self._watch.lost = 0
        self._recorder.note(asked, self._joints, admission.flags)
        self._count_stale(self._joints, tally)
        if self.state is GuardState.STOPPING:
            # Already stopping for a reason; being beyond a limit must not cut the damping short.
            limit.check_finite(self._joints)
        else:
            limit.check_state(self._joints, self._limits)
        tally.applied += self._joints.tau_cmd - gravity + self.spec.policy_damping * state.dq
        tally.ticks += 1

    def _wait(self, tally: _Tally) -> None:
        missed = self._pacer.wait()
        if missed:
            self.counters.overruns += missed
            tally.flags |= int(Flag.LATE)
            gap_ms = (missed + 1) * self._period_ns / 1e6
            if gap_ms > self._config.gap_max_ms and self.state is GuardState.ACTIVE:
                raise GuardFault(
                    FaultCode.DEADLINE,
                    value=gap_ms,
                    limit=self._config.gap_max_ms,
                    unit="ms",
                    detail="no bus tick for that long; is the computer overloaded?",
                )

    def _count_lost(self, error: BusError, tally: _Tally) -> None:
        self.counters.lost_rounds += 1
        self._watch.lost += 1
        tally.flags |= int(Flag.STALE)
        if self._watch.lost >= self._config.lost_rounds_max:
            raise GuardFault(
                FaultCode.BUS,
                value=self._watch.lost,
                limit=self._config.lost_rounds_max,
                unit="lost rounds in a row",
                detail=str(error),
            ) from error

    def _count_stale(self, state: JointState, tally: _Tally) -> None:
        if state.fresh.all():
            self._watch.stale[:] = 0
            return
        tally.flags |= int(Flag.STALE)
        self._watch.stale[state.fresh] = 0
        self._watch.stale[~state.fresh] += 1
        if self._watch.stale.max() >= self._config.lost_rounds_max:
            joint = int(np.argmax(self._watch.stale))
            raise GuardFault(
                FaultCode.BUS,
                joint=joint,
                name=self.spec.joint_names[joint],
                value=float(self._watch.stale[joint]),
                limit=self._config.lost_rounds_max,
                unit="silent rounds in a row",
            )

    # ---- targets and stopping --------------------------------------------------------------------------------------

    def _holding(self, state: JointState, gravity: Vector) -> Vector:
        return gravity + tracking((self._hold_q, self._zero), state.q, state.dq, self.spec)

    def _damping(self, state: JointState, gravity: Vector) -> Vector:
        return gravity - self.spec.damping * state.dq

    def _stop_for(self, fault: GuardFault) -> None:
        """Damp to rest. A missed deadline alone leaves the arm held; everything else is torque off and latched."""
        self._recorder.write(fault, self.clock.now_ns())
        self.counters.faults += 1
        self.state = GuardState.STOPPING
        reachable = fault.code is not FaultCode.JOINT
        came_to_rest = reachable and self._damp_to_rest()
        if fault.code is FaultCode.DEADLINE and came_to_rest:
            fault.latched = False
            self._hold_q = self.joints.q
            self.state = GuardState.HOLD
            return
        self.fault = fault
        self.arm.stop()
        self.state = GuardState.FAULT

    def _damp_to_rest(self) -> bool:
        """Damping and gravity compensation until the arm rests. Bounded in time; True when it came to rest."""
        tally = _Tally(applied=np.zeros(self.spec.n))
        end_ns = self.clock.now_ns() + int(self._config.stop_timeout_s * NS_PER_S)
        at_rest = 0
        while at_rest < REST_TICKS:
            if self.clock.now_ns() >= end_ns:
                return False
            try:
                self._bus_tick(self._damping, tally)
            except RobotsacError:
                return False
            slow = np.abs(self.joints.dq).max() < self._config.rest_dq_rad_s
            at_rest = at_rest + 1 if slow else 0
        return True

    def _require(self, call: str, *allowed: GuardState) -> None:
        if self.state not in allowed:
            reason = str(self.fault) if self.fault is not None else ""
            raise ArmStateError(
                f"{call}() needs the guard in {' or '.join(s.value for s in allowed)}; it is in {self.state.value}",
                reason=reason,
            )
