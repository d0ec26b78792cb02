"""The guard: owns the arm at bus rate, and is the only thing that makes a torque.

    DISARMED ──start()──► HOLD ◄──hold()── ACTIVE          stop(): damp to rest, torque off, DISARMED
                           └───activate()───►              a fault: the same, then FAULT, latched

Every bus tick is: wait for the grid, decide a target by state, admit it through the limits, one ``Arm.exchange``. The
policy has no other way to move the arm than :meth:`Guard.step`. Nothing that comes from a network reaches this file.

In simulation and, for now, on hardware, the guard runs inline in the actor; :class:`ControlTick` and the five verbs are
what crosses a process border later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np

from robotsac.arm import Arm, ArmState, JointState, PlaceableArm, Vector
from robotsac.clock import NS_PER_S
from robotsac.config.schema import GuardConfig
from robotsac.errors import POWERED, ArmError, ArmStateError, FaultCode, GuardFault, JointFault, RobotsacError
from robotsac.guard.bus_loop import BusLoop, GuardCounters, Tally, Target
from robotsac.guard.motion import plan, tracking
from robotsac.guard.recorder import FlightRecorder
from robotsac.guard.state import ControlTick, GuardState
from robotsac.records import Flag

# Rest is called after this many bus ticks in a row below rest_dq_rad_s.
REST_TICKS = 10


def never() -> bool:
    """The answer of one who does not interrupt."""
    return False


class Guard:
    """See module docstring. A context manager: leaving it, by whatever way, ends in torque off.

    Args:
        arm: disconnected; the guard connects and owns it.
        gravity: q (n,) → gravity torque (n,), N·m.
        config: counts and times.
        faults_folder: where faults are written, if anywhere.
        inertia: largest that each joint's motor faces (n,), kg·m², for the braking distance; ``None`` = not known.

    Attributes:
        energized: torque has been switched on, or that was tried, since this guard was made.
    """

    def __init__(
        self,
        arm: Arm,
        gravity: Callable[[Vector], Vector],
        config: GuardConfig,
        faults_folder: Path | None = None,
        inertia: Vector | None = None,
    ) -> None:
        self.arm = arm
        self.spec = arm.spec
        self.clock = arm.clock
        self.state = GuardState.DISARMED
        self.fault: GuardFault | None = None
        self.counters = GuardCounters()
        self.bus_ticks = self.spec.bus_rate_hz // self.spec.control_rate_hz
        self._config = config
        self._zero = np.zeros(self.spec.n)
        ticks = int(config.flight_recorder_s * self.spec.bus_rate_hz)
        self._recorder = FlightRecorder(self.spec, ticks, faults_folder)
        self._bus = BusLoop(arm, gravity, config, self._recorder, self.counters, inertia)
        self._hold_q = self._zero
        self.energized = False

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
            self.energized = True
            self.arm.energize()
            joints = self._bus.begin()
        except BaseException:
            self.arm.stop()
            raise
        self._hold_q = joints.q
        self.state = GuardState.HOLD
        return joints

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

    def park(self, should_stop: Callable[[], bool] = never) -> None:
        """HOLD or ACTIVE: move to the park pose, then :meth:`stop`. Torque-off lets most arms drop; this arm is down
        already. Whatever goes wrong on the way, and ``should_stop``, ends in the same torque off. Never raises."""
        try:
            self.hold()
            self.move_to(self.spec.park, should_stop=should_stop)
        except RobotsacError:
            pass
        finally:
            self.stop()

    def close(self) -> None:
        """Stop, and let the arm go. Idempotent; never raises."""
        self.stop()
        self.arm.close()

    def require_off(self) -> None:
        """After :meth:`close`, which never raises: that the arm came down without a fault, and torque is off, read back.

        Raises:
            GuardFault: it has a latched fault.
            ArmError: torque was switched on and not read back as off.
        """
        powered = self.energized and not self.arm.torque_is_off()
        if self.fault is not None:
            if powered:
                self.fault.reason = f"{POWERED}; {self.fault.reason}"
            raise self.fault
        if powered:
            raise ArmError(POWERED, reason="the arm gave no answer while it was being stopped")

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
        return self._bus.joints

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

    def move_to(
        self, q: Vector, duration_s: float | None = None, should_stop: Callable[[], bool] = never
    ) -> JointState:
        """HOLD: minimum-jerk move to ``q`` (n,), rad, through the same limits, then hold there.

        Args:
            q: goal, within the soft limits.
            duration_s: at least; slower where a joint needs it. Default: the config's.
            should_stop: asked at every control tick; when it says so, the arm brakes and is held where it came to rest.

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
            if should_stop():
                self._brake()
                return self.joints
            self._control_tick(along)
        self._hold_q = goal
        return self.joints

    def settle(self, q: Vector, should_stop: Callable[[], bool] = never) -> JointState:
        """HOLD: be at ``q`` (n,), rad, at rest. A world that can place the arm does; elsewhere it moves there.

        ``should_stop`` and what is raised are :meth:`move_to`'s.
        """
        self._require("settle", GuardState.HOLD)
        if not isinstance(self.arm, PlaceableArm):
            return self.move_to(q, should_stop=should_stop)
        state = self.arm.place(np.asarray(q, dtype=np.float64))
        self._bus.placed(state)
        self._hold_q = state.q
        return state

    # ---- targets and stopping --------------------------------------------------------------------------------------

    def _control_tick(self, target: Target) -> ControlTick:
        tally = Tally.empty(self.spec.n)
        active = self.state is GuardState.ACTIVE
        try:
            for _ in range(self.bus_ticks):
                self._bus.tick(target, tally, strict_deadline=active, stopping=False)
        except GuardFault as fault:
            self._stop_for(fault)
            raise
        except JointFault as error:
            joint_fault = GuardFault(
                FaultCode.JOINT, joint=error.joint, name=error.name, detail=error.what, reason=error.reason
            )
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

    def _brake(self) -> None:
        """HOLD: damping until the arm is slow, for at most ``stop_timeout_s``; then hold where it is."""
        end_ns = self.clock.now_ns() + int(self._config.stop_timeout_s * NS_PER_S)
        while np.abs(self.joints.dq).max() >= self._config.rest_dq_rad_s and self.clock.now_ns() < end_ns:
            self._control_tick(self._damping)
        self._hold_q = self.joints.q

    def _holding(self, state: JointState, gravity: Vector) -> Vector:
        return gravity + tracking((self._hold_q, self._zero), state.q, state.dq, self.spec)

    def _damping(self, state: JointState, gravity: Vector) -> Vector:
        return gravity - self.spec.damping * state.dq

    def _stop_for(self, fault: GuardFault) -> None:
        """Damp to rest. A missed deadline alone leaves the arm held; everything else is torque off and latched.

        The disk comes last: it may be slow, and the last torque stays on the servos while the bus is silent.
        """
        before, t_ns = self._recorder.snapshot(), self.clock.now_ns()
        self.counters.faults += 1
        self.state = GuardState.STOPPING
        reachable = fault.code is not FaultCode.JOINT
        came_to_rest = reachable and self._damp_to_rest()
        if fault.code is FaultCode.DEADLINE and came_to_rest:
            fault.latched = False
            self._hold_q = self.joints.q
            self.state = GuardState.HOLD
            self._recorder.write_aside(fault, t_ns, before)
            return
        self.fault = fault
        self.arm.stop()
        self.state = GuardState.FAULT
        self._recorder.write(fault, t_ns, before)

    def _damp_to_rest(self) -> bool:
        """Damping and gravity compensation until the arm rests. Bounded in time; True when it came to rest."""
        tally = Tally.empty(self.spec.n)
        end_ns = self.clock.now_ns() + int(self._config.stop_timeout_s * NS_PER_S)
        at_rest = 0
        while at_rest < REST_TICKS:
            if self.clock.now_ns() >= end_ns:
                return False
            try:
                self._bus.tick(self._damping, tally, strict_deadline=False, stopping=True)
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
