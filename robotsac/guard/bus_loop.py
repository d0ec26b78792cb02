"""The bus loop: wait for the grid, decide a target, admit it, exchange it, count what went wrong.

The guard decides *what* to ask of the arm; this is *how* a torque gets to it. There is no other caller of
``Arm.exchange``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robotsac.arm import Arm, JointState, LimitedTorque, Vector
from robotsac.clock import NS_PER_S, Pacer
from robotsac.config.schema import GuardConfig
from robotsac.errors import ArmStateError, BusError, FaultCode, GuardFault
from robotsac.guard import limits as limit
from robotsac.guard.recorder import FlightRecorder
from robotsac.records import Flag

Target = Callable[[JointState, Vector], Vector]
"""(newest state, gravity torque (n,)) → asked torque (n,), N·m."""


@dataclass(slots=True)
class GuardCounters:
    """Events since the guard was made."""

    ticks: int = 0
    overruns: int = 0  # bus ticks skipped because the grid point had passed
    lost_rounds: int = 0
    stops: int = 0
    faults: int = 0


@dataclass(slots=True)
class Tally:
    """What a control period adds up: policy torque really applied (n,), bus ticks, ``Flag`` bits, time spent."""

    applied: Vector
    ticks: int = 0
    flags: int = 0
    admit_ns: int = 0
    exchange_ns: int = 0

    @classmethod
    def empty(cls, n: int) -> Tally:
        """For ``n`` joints."""
        return cls(applied=np.zeros(n))


class BusLoop:
    """See module docstring.

    Args:
        arm: energized when :meth:`begin` is called.
        gravity: q (n,) → gravity torque (n,), N·m.
        config: counts and times.
        recorder: takes every tick.
        counters: the guard's.
        inertia: see :class:`robotsac.guard.limits.Limits`.
    """

    def __init__(
        self,
        arm: Arm,
        gravity: Callable[[Vector], Vector],
        config: GuardConfig,
        recorder: FlightRecorder,
        counters: GuardCounters,
        inertia: Vector | None = None,
    ) -> None:
        self.spec = arm.spec
        self.gravity = gravity if config.gravity_compensation else self._no_gravity
        self._arm = arm
        self._clock = arm.clock
        self._config = config
        self._recorder = recorder
        self._counters = counters
        self._period_ns = NS_PER_S // self.spec.bus_rate_hz
        self._limits = limit.Limits(self.spec, self._period_ns / NS_PER_S, config.velocity_fault_factor, inertia)
        self._pacer = Pacer(self._clock, self._period_ns)
        self._zero = np.zeros(self.spec.n)
        self._previous = self._zero
        self._lost_in_a_row = 0
        self._stale_in_a_row = np.zeros(self.spec.n, dtype=np.int64)
        self._any_stale = False
        self._joints: JointState | None = None

    @property
    def joints(self) -> JointState:
        """Newest joint state.

        Raises:
            ArmStateError: before :meth:`begin`.
        """
        if self._joints is None:
            raise ArmStateError("the guard has no joint state yet", reason="start() brings the first one")
        return self._joints

    def begin(self) -> JointState:
        """The first round after energizing: zero torque out, the first state in; gravity compensation ramps in from it.

        A lost round is sent again on the next tick, as later ones are.

        Raises:
            GuardFault: a state in which no torque is right.
            BusError: from the driver, ``lost_rounds_max`` times in a row.
            JointFault: from the driver.
        """
        self._previous = self._zero
        self._lost_in_a_row = 0
        self._stale_in_a_row[:] = 0
        self._pacer.restart()
        self._joints = self._first_state()
        limit.check_state(self._joints, self._limits)
        return self._joints

    def placed(self, state: JointState) -> None:
        """The world has put the arm into ``state``: forget what went before."""
        self._joints = state
        self._previous = self.gravity(state.q)
        self._pacer.restart()

    def tick(self, target: Target, tally: Tally, *, strict_deadline: bool, stopping: bool) -> None:
        """One bus tick.

        Args:
            target: what to ask for.
            tally: added to.
            strict_deadline: a silence over ``gap_max_ms`` is a fault.
            stopping: damping to rest already; being beyond a limit must not cut that short.

        Raises:
            GuardFault: torque or state that no limit can mend, too many lost rounds, a missed deadline.
            JointFault: from the driver.
        """
        self._wait(tally, strict_deadline)
        begin_ns = time.perf_counter_ns()
        state = self.joints
        gravity = self.gravity(state.q)
        asked = target(state, gravity)
        admission = limit.admit(asked, self._previous, state, gravity, self._limits)
        admitted_ns = time.perf_counter_ns()
        tally.admit_ns += admitted_ns - begin_ns
        tally.flags |= admission.flags
        self._counters.ticks += 1
        try:
            joints = self._joints = self._arm.exchange(admission.torque)
        except BusError as error:
            self._count_lost(error, tally)
            return
        finally:
            exchanged_ns = time.perf_counter_ns()
            tally.exchange_ns += exchanged_ns - admitted_ns
        self._previous = admission.torque
        self._lost_in_a_row = 0
        self._recorder.note(asked, joints, admission.flags)
        if np.count_nonzero(joints.fresh) < self.spec.n:
            self._count_stale(joints, tally)
            self._any_stale = True
        elif self._any_stale:
            self._stale_in_a_row[:] = 0
            self._any_stale = False
        if stopping:
            limit.check_finite(joints)
        else:
            limit.check_state(joints, self._limits)
        tally.applied += joints.tau_cmd - gravity + self.spec.policy_damping * state.dq
        tally.ticks += 1
        tally.admit_ns += time.perf_counter_ns() - exchanged_ns

    def _first_state(self) -> JointState:
        lost = 0
        while True:
            try:
                return self._arm.exchange(LimitedTorque(self._zero))
            except BusError:
                lost += 1
                self._counters.lost_rounds += 1
                if lost >= self._config.lost_rounds_max:
                    raise
            self._pacer.wait()

    def _wait(self, tally: Tally, strict_deadline: bool) -> None:
        missed = self._pacer.wait()
        if not missed:
            return
        self._counters.overruns += missed
        tally.flags |= int(Flag.LATE)
        gap_ms = (missed + 1) * self._period_ns / 1e6
        if strict_deadline and gap_ms > self._config.gap_max_ms:
            raise GuardFault(
                FaultCode.DEADLINE,
                value=gap_ms,
                limit=self._config.gap_max_ms,
                unit="ms",
                detail="is the computer overloaded?",
            )

    def _count_lost(self, error: BusError, tally: Tally) -> None:
        self._counters.lost_rounds += 1
        self._lost_in_a_row += 1
        tally.flags |= int(Flag.STALE)
        if self._lost_in_a_row >= self._config.lost_rounds_max:
            raise GuardFault(
                FaultCode.BUS,
                value=self._lost_in_a_row,
                limit=self._config.lost_rounds_max,
                detail=str(error),
            ) from error

    def _count_stale(self, state: JointState, tally: Tally) -> None:
        silent = self._stale_in_a_row
        tally.flags |= int(Flag.STALE)
        silent[state.fresh] = 0
        silent[~state.fresh] += 1
        if silent.max() >= self._config.lost_rounds_max:
            joint = int(np.argmax(silent))
            raise GuardFault(
                FaultCode.BUS,
                joint=joint,
                name=self.spec.joint_names[joint],
                value=float(silent[joint]),
                limit=self._config.lost_rounds_max,
            )

    def _no_gravity(self, _q: Vector) -> Vector:
        return self._zero
