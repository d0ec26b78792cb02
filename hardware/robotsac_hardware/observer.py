"""From raw blocks to a joint state that can be trusted, or an exception.

Checked here, every round and for every joint that answered:

* its error byte, Hardware Error Status, Bus Watchdog and Torque Enable: a servo that has stopped listening shows it there
* its realtime tick: a tick that went back (not wrapped) is a servo that rebooted and has forgotten its configuration
* its position: a step that no motor could make is a damaged or re-homed reading

A joint that did not answer keeps its last values and is marked not fresh; counting those is the guard's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robotsac.arm import JointState, Vector
from robotsac.clock import NS_PER_S
from robotsac.errors import BusCorrupt, JointFault
from robotsac_hardware import control_table as table
from robotsac_hardware import faults
from robotsac_hardware.bus import Servo
from robotsac_hardware.feedback import ERROR_AT, HARDWARE_ERROR_AT, TORQUE_AT, WATCHDOG_AT, Rows
from robotsac_hardware.units import JointUnits
from robotsac_hardware.velocity import SlopeVelocity, round_distance

# No supported servo turns faster than about 50 rad/s without load.
COUNTS_POSSIBLE_PER_NS = 60.0 / table.RAD_PER_COUNT / NS_PER_S
COUNTS_POSSIBLE = 20.0  # on top: sensor noise, backlash
# By how much servo time may outrun host time between two rounds: replies held up in USB, scheduler, a poor oscillator.
TICK_SLACK_MS = 100.0
TICK_SLACK_PER_NS = 1.05e-6
# The tick wraps after 32.768 s; over longer gaps than this it cannot tell a reboot from waiting.
TICK_HORIZON_NS = 12 * NS_PER_S
_NS_TO_S = 1.0 / NS_PER_S


class Observer:
    """Judges the rows of one arm and turns them into states.

    Args:
        servos: in joint order.
        units: scales of the joints.
        rows: where the bus round leaves its blocks.
        velocity: estimator of joint velocity.
    """

    def __init__(self, servos: Sequence[Servo], units: JointUnits, rows: Rows, velocity: SlopeVelocity) -> None:
        n = len(servos)
        self._servos = tuple(servos)
        self._units = units
        self._rows = rows
        self._velocity = velocity
        self._current = rows.column(table.PRESENT_CURRENT)
        self._dq_register = rows.column(table.PRESENT_VELOCITY)
        self._position = rows.column(table.PRESENT_POSITION)
        self._tick = rows.column(table.REALTIME_TICK)
        self._volt = rows.column(table.PRESENT_INPUT_VOLTAGE)
        self._temp = rows.column(table.PRESENT_TEMPERATURE)
        self._zeros = bytes(n)
        self._torque_wanted = bytes(n)
        self._watchdog_wanted: bytes | None = None
        self._q = np.zeros(n)
        self._dq = np.zeros(n)
        # Of each joint's last accepted sample; −1 ns: there was none. Lists: six numbers are quicker one by one than in numpy.
        self._last_ns = [-1] * n
        self._last_tick = [0] * n
        self._last_count = [0] * n
        self._round_ns = 0

    def expect(self, *, energized: bool, watchdog_units: int) -> None:
        """What Torque Enable and Bus Watchdog must read from now on. At rest an expired watchdog is no fault: it stops
        nothing, and ``energize`` clears it."""
        n = len(self._servos)
        self._torque_wanted = bytes([energized]) * n
        self._watchdog_wanted = bytes([watchdog_units]) * n if energized else None

    def observe(self, seq: int, sent_ns: int, received_ns: int, tau_cmd: Vector) -> JointState:
        """The state after a round; at least one joint is fresh.

        Args:
            seq: number of the round.
            sent_ns: when the request went out; servos sample on it.
            received_ns: when the reply was complete.
            tau_cmd: what this round told the joints (n,), N·m.

        Raises:
            JointFault: a joint reports a fault, has switched off, or rebooted.
            BusCorrupt: a position that cannot be.
        """
        self._refuse_faults()
        fresh = self._rows.fresh.copy()
        distance_s = self._accept(sent_ns)
        q, otherwise = self._units.position(self._position), self._units.velocity(self._dq_register)
        self._dq = self._velocity.update(q, distance_s, fresh, otherwise)
        return JointState(
            t_ns=received_ns,
            seq=seq,
            q=q,
            dq=self._dq,
            tau=self._units.torque(self._current),
            tau_cmd=tau_cmd,
            temp_c=self._temp.astype(np.float64),
            volt_v=self._units.voltage(self._volt),
            fresh=fresh,
            faults=self._bits(),
        )

    def _accept(self, sent_ns: int) -> float:
        """Refuse reboots and impossible steps, then remember the fresh samples.

        Returns:
            Time since the round before, s; see ``velocity.round_distance``.
        """
        counts, ticks, fresh = self._position.tolist(), self._tick.tolist(), self._rows.fresh.tolist()
        elapsed_min, elapsed_max = table.TICK_MODULUS, -1
        for joint, answered in enumerate(fresh):
            last_ns = self._last_ns[joint]
            if not answered or last_ns < 0:
                continue
            host_ns = sent_ns - last_ns
            if host_ns < TICK_HORIZON_NS:
                tick_ms = (ticks[joint] - self._last_tick[joint]) % table.TICK_MODULUS
                if tick_ms > host_ns * TICK_SLACK_PER_NS + TICK_SLACK_MS:
                    raise self._fault(joint, "realtime tick went back: the servo rebooted", faults.REBOOTED)
                if last_ns == self._round_ns:
                    elapsed_min, elapsed_max = min(elapsed_min, tick_ms), max(elapsed_max, tick_ms)
            if abs(counts[joint] - self._last_count[joint]) > host_ns * COUNTS_POSSIBLE_PER_NS + COUNTS_POSSIBLE:
                raise self._jump(joint, counts[joint], host_ns)
        distance_s = (sent_ns - self._round_ns) * _NS_TO_S
        if elapsed_max >= 0:
            distance_s = round_distance(distance_s, elapsed_min, elapsed_max)
        if self._rows.complete():
            self._last_ns, self._last_tick, self._last_count = [sent_ns] * len(ticks), ticks, counts
        else:
            for joint, answered in enumerate(fresh):
                if answered:
                    self._last_ns[joint], self._last_tick[joint] = sent_ns, ticks[joint]
                    self._last_count[joint] = counts[joint]
        self._round_ns = sent_ns
        return distance_s

    def _refuse_faults(self) -> None:
        raw, zeros = self._rows.raw, self._zeros
        if (
            raw(ERROR_AT) == zeros
            and raw(HARDWARE_ERROR_AT) == zeros
            and raw(TORQUE_AT) == self._torque_wanted
            and (self._watchdog_wanted is None or raw(WATCHDOG_AT) == self._watchdog_wanted)
        ):
            return
        for joint in np.flatnonzero(self._rows.fresh):
            self._refuse_fault_of(int(joint))

    def _refuse_fault_of(self, joint: int) -> None:
        raw = self._rows.raw
        error, hardware = raw(ERROR_AT)[joint], raw(HARDWARE_ERROR_AT)[joint]
        if error & faults.ALERT or (hardware and not error):
            words = faults.hardware_error_words(hardware)
            raise self._fault(joint, words, hardware | faults.ALERT, faults.CLEAR_HARDWARE_ERROR)
        if error:
            raise self._fault(joint, f"refused to be read: {faults.status_error_words(error)}", 0)
        torque = raw(TORQUE_AT)[joint]
        if torque != self._torque_wanted[joint]:
            words = "torque is on though nobody asked for it" if torque else "torque went off by itself: a reboot?"
            raise self._fault(joint, words, faults.TORQUE_LOST)
        watchdog = raw(WATCHDOG_AT)[joint]
        if self._watchdog_wanted is not None and watchdog != self._watchdog_wanted[joint]:
            expired = watchdog == table.WATCHDOG_EXPIRED
            words = "bus watchdog expired: goals are ignored" if expired else f"bus watchdog reads {watchdog}"
            raise self._fault(joint, words, faults.WATCHDOG_EXPIRED)

    def _jump(self, joint: int, count: int, host_ns: int) -> BusCorrupt:
        return BusCorrupt(
            f"joint {joint} ({self._servos[joint].name}): encoder went from {self._last_count[joint]} to {count} counts in "
            f"{host_ns * 1e-6:.1f} ms",
            reason="no motor turns that fast: a damaged reading, or the servo's count was folded back by a reboot",
        )

    def _bits(self) -> NDArray[np.uint16]:
        bits = np.zeros(len(self._servos), dtype=np.uint16)
        if table.WATCHDOG_EXPIRED in self._rows.raw(WATCHDOG_AT):
            expired = self._rows.column(table.BUS_WATCHDOG) == table.WATCHDOG_EXPIRED
            bits[expired] = faults.WATCHDOG_EXPIRED
        return bits

    def _fault(self, joint: int, words: str, bits: int, remedy: str = "") -> JointFault:
        return JointFault(joint, self._servos[joint].name, words, bits, remedy=remedy)
