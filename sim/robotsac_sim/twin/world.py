"""Servos and physics in one time: what moves between two packets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robotsac_sim.twin.assumed import Assumptions
from robotsac_sim.twin.physics import Physics
from robotsac_sim.twin.servo import Servo
from robotsac_sim.twin.watchdog import UNIT_NS

# Filters, heat and limits are looked at at least this often, however long the bus is silent.
STEP_MAX_NS = 10_000_000
# Two looks closer than this are one: physics steps by the millisecond, so a sync write, the read behind it and the reply
# see the same world.
LOOK_MIN_NS = 900_000


class World:
    """Servos (in config joint order) on a common supply, with the physics behind them.

    Args:
        servos: one per joint.
        physics: the joints.
        supply_v: open-circuit voltage of the supply.

    Attributes:
        t_ns: how far time has come.
        supply_override_v: fault: what the supply gives instead.
        watchdog_expiries: how often a bus watchdog stopped a servo.
    """

    def __init__(self, servos: Sequence[Servo], physics: Physics, supply_v: float, assumed: Assumptions) -> None:
        self.servos = tuple(servos)
        self.physics = physics
        self.t_ns = 0
        self.supply_override_v: float | None = None
        self.watchdog_expiries = 0
        self._supply_v = supply_v
        self._assumed = assumed
        self._figures = [(each.model.motor.resistance_ohm, each.model.motor.back_emf_v_s_rad) for each in self.servos]
        self._tau = np.zeros(len(self.servos))
        self._asked = [0.0] * len(self.servos)
        self._sensed_ns = 0
        # Nothing runs out before this: no watchdog's period is shorter than one unit, and feeding only puts it off.
        self._quiet_ns = 0
        self._sense()

    def run_to(self, t_ns: int) -> None:
        """Let time pass up to ``t_ns``: motors push, joints move, watchdogs run out."""
        while self.t_ns < t_ns:
            sensed_ns = self._sensed_ns
            end_ns = min(t_ns, sensed_ns + self._step_ns())
            if end_ns >= self._quiet_ns:
                event_ns = self._look_ahead()
                end_ns = min(end_ns, event_ns)
            else:
                event_ns = self._quiet_ns
            if end_ns == t_ns < event_ns and t_ns - sensed_ns < LOOK_MIN_NS:
                self.t_ns = t_ns
                return
            self._push((end_ns - sensed_ns) * 1e-9)
            self.physics.advance_to(end_ns)
            self.t_ns = self._sensed_ns = end_ns
            self._sense()

    def _look_ahead(self) -> int:
        """When the next watchdog runs out or the next servo has booted, or later than that is possible for now."""
        found = self._sensed_ns + UNIT_NS
        for servo in self.servos:
            for due_ns in (servo.watchdog.due_ns, servo.ready_ns):
                if due_ns is not None and self._sensed_ns < due_ns < found:
                    found = due_ns
        self._quiet_ns = found
        return found

    def _step_ns(self) -> int:
        for servo in self.servos:
            if servo.closed_loop:
                return self._assumed.control_period_ns
        return STEP_MAX_NS

    def _push(self, dt_s: float) -> None:
        asked = [servo.torque_nm(dt_s) for servo in self.servos]
        if asked != self._asked:
            self._asked = asked
            self._tau[:] = asked
            self.physics.set_torque(self._tau)

    def _sense(self) -> None:
        physics, t_ns = self.physics, self.t_ns
        q, dq, current = physics.q.tolist(), physics.dq.tolist(), physics.current.tolist()
        volt_v = self._volts(current, dq)
        for k, servo in enumerate(self.servos):
            servo.health.volt_v = volt_v
            servo.sense(q[k], dq[k], current[k], t_ns)
            if (due_ns := servo.watchdog.due_ns) is not None and t_ns >= due_ns:
                servo.expire_watchdog(t_ns)
                self.watchdog_expiries += 1

    def _volts(self, current: list[float], dq: list[float]) -> float:
        """What the supply gives under the power that the motors take."""
        if self.supply_override_v is not None:
            return self.supply_override_v
        power = 0.0
        for (resistance, back_emf), i, speed in zip(self._figures, current, dq, strict=True):
            power += i * (i * resistance + back_emf * speed)
        return self._supply_v - self._assumed.supply_resistance_ohm * max(0.0, power) / self._supply_v
