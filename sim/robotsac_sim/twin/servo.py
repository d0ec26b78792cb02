"""One servo: its registers and what they do. Source: ROBOTIS e-manual, XM430-W350 / XM540-W270, "Control Table"."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from robotsac_sim.twin.assumed import ASSUMED, Assumptions
from robotsac_sim.twin.configured import Configured
from robotsac_sim.twin.control import Controller, Settings
from robotsac_sim.twin.encoder import Encoder
from robotsac_sim.twin.health import Health
from robotsac_sim.twin.models import ServoModel
from robotsac_sim.twin.present import write_present
from robotsac_sim.twin.protocol import ALERT, BAUD_BY_CODE, ErrorCode, Mode
from robotsac_sim.twin.registers import Registers
from robotsac_sim.twin.rules import check_write
from robotsac_sim.twin.table import GAINS, GOALS, INDIRECT_ADDRESSES, RAM_START, Reg
from robotsac_sim.twin.watchdog import EXPIRED, BusWatchdog

STARTUP_TORQUE, STARTUP_RESTORE = 0x01, 0x02

WriteObserver = Callable[[int, "Servo", int, int], None]
"""Called with (t_ns, servo, address, value) after every register write that was accepted."""


class Servo:
    """One servo on one joint.

    Args:
        model: which servo.
        device_id: ID (7).
        baud: bit/s; Baud Rate (8) is set to its code.
        reversed_mount: joint angle and counts run against each other.
        zero_count: count at joint angle zero.
        presets: EEPROM values that differ from the factory's.
        volt_v: supply.
        assumed: what the data sheets leave open.

    Attributes:
        current_a: phase current, A, in the servo's sense.
        configured: the slow registers, as they act.
        registered: what a Reg Write left behind.
        muted: fault: hears and obeys, but never answers.
        on_write: observer for tests and records.
    """

    def __init__(
        self,
        model: ServoModel,
        device_id: int,
        *,
        baud: int = 57_600,
        reversed_mount: bool = False,
        zero_count: int = 2048,
        presets: Mapping[Reg, int] | None = None,
        volt_v: float = 12.0,
        assumed: Assumptions = ASSUMED,
    ) -> None:
        self.model = model
        self.assumed = assumed
        self.registers = Registers(model)
        self.encoder = Encoder(reversed_mount=reversed_mount, zero_count=zero_count, filter_s=assumed.velocity_filter_s)
        self.controller = Controller(model.motor, model.current_unit_a)
        self.health = Health(model, assumed, volt_v)
        self.watchdog = BusWatchdog()
        self.torque = False
        self.current_a = 0.0
        self.registered: tuple[int, bytes] | None = None
        self.muted = False
        self.on_write: WriteObserver | None = None
        self._backup: bytes | None = None
        self._powered = True
        self._booting = False
        self._ready_ns = 0
        self._t_ns = 0
        self._stale = True
        # Torque that stays as it is until a register changes; ``None`` when it must be computed.
        self._held_nm: float | None = None
        for reg, value in {Reg.ID: device_id, Reg.BAUD_RATE: BAUD_BY_CODE.index(baud), **(presets or {})}.items():
            self.registers.put(reg, value)
        self._take_over()
        self._reset_goals()

    def hears(self, t_ns: int) -> bool:
        """Whether it is on the bus: powered and done booting."""
        return self._powered and t_ns >= self._ready_ns

    @property
    def ready_ns(self) -> int | None:
        """When it comes back on the bus; ``None`` while it is there, or without power."""
        return self._ready_ns if self._booting and self._powered else None

    @property
    def boot_ns(self) -> int:
        """When it was last ready; Realtime Tick counts from here."""
        return self._ready_ns

    def reboot(self, t_ns: int, silence_ns: int | None = None) -> None:
        """Off the bus for ``silence_ns``; RAM back to its defaults, torque off, faults cleared."""
        self.torque = False
        self.registers.reset(eeprom=False)
        self.registers.put(Reg.BACKUP_READY, int(self._backup is not None))
        self.registered = None
        self.watchdog.reset()
        self.health.clear()
        self._ready_ns = t_ns + (self.assumed.boot_ns if silence_ns is None else silence_ns)
        self._booting = True
        self._take_over()
        self._reset_goals()

    def store_backup(self) -> bool:
        """Control Table Backup, store; refused while torque is on (assumed)."""
        if self.torque:
            return False
        self._backup = bytes(self.registers.memory)
        self.registers.put(Reg.BACKUP_READY, 1)
        return True

    def restore_backup(self, t_ns: int) -> bool:
        """Control Table Backup, restore, followed by a reboot; refused without a backup or while torque is on."""
        if self.torque or self._backup is None:
            return False
        self.registers.restore(self._backup, 0, RAM_START)
        self.reboot(t_ns)
        return True

    def sense(self, q: float, dq: float, current_a: float, t_ns: int) -> None:
        """Time has come to ``t_ns``: the joint is at ``q``, rad, ``dq``, rad/s, carrying ``current_a``, A."""
        dt_s = (t_ns - self._t_ns) * 1e-9
        self._t_ns = t_ns
        self._stale = True
        self.encoder.sense(q, dq, dt_s)
        self.current_a = current_a * self.encoder.to_servo
        causes = self.health.step(current_a, dt_s)
        if self.health.volt_v < self.assumed.brown_out_v or not self._powered:
            self._watch_supply(t_ns)
        if self._booting:
            if self.hears(t_ns):
                self._finish_boot(t_ns)
        elif causes & ~self.health.latched:
            self.raise_fault(causes, t_ns)

    def raise_fault(self, causes: int, t_ns: int) -> None:
        """Latch hardware errors, given as bits of ``Cause``; those enabled in Shutdown (63) switch the motor off."""
        self.health.latched |= causes
        self.registers.put(Reg.HARDWARE_ERROR_STATUS, self.health.latched)
        if causes & self.configured.shutdown:
            self.health.shut_down = True
            self._set_torque(False, t_ns)

    def expire_watchdog(self, t_ns: int) -> None:
        """The bus was silent too long: stop, show -1, refuse goals."""
        self.watchdog.expired = True
        self.registers.put(Reg.BUS_WATCHDOG, EXPIRED)
        # The page says "stops"; that the goal registers themselves fall back is assumed.
        stopped = {Mode.CURRENT: Reg.GOAL_CURRENT, Mode.PWM: Reg.GOAL_PWM, Mode.VELOCITY: Reg.GOAL_VELOCITY}
        goal = stopped.get(Mode(self.configured.mode))
        if goal is not None:
            self._put_goal(goal, 0)
        else:
            self._hold_here()
        if self.on_write is not None:
            self.on_write(t_ns, self, Reg.BUS_WATCHDOG, EXPIRED)

    @property
    def closed_loop(self) -> bool:
        """Whether the motor's output changes with the state, so that time must pass in control periods."""
        return self.torque and self._held_nm is None and not self.controller.settings.open_loop

    def torque_nm(self, dt_s: float) -> float:
        """Torque asked of the joint for the next ``dt_s``, N·m, in the joint's sense."""
        if self._held_nm is not None:
            return self._held_nm
        asked_nm = self._compute_torque(dt_s) if self.torque else 0.0
        if not self.closed_loop:
            self._held_nm = asked_nm
        return asked_nm

    def _compute_torque(self, dt_s: float) -> float:
        encoder = self.encoder
        current = self.controller.current_a(encoder.position, encoder.omega, self.health.volt_v, dt_s)
        return current * self.model.motor.torque_constant_nm_a * encoder.to_servo

    @property
    def alert(self) -> int:
        """Bit 7 of every status packet."""
        return ALERT if self.health.latched else 0

    def read(self, address: int, size: int) -> bytes | ErrorCode:
        """As a Read instruction."""
        if self._stale:
            write_present(self, self._t_ns)
            self._stale = False
        return self.registers.read(address, size)

    def write(self, address: int, data: bytes, t_ns: int) -> ErrorCode:
        """As a Write instruction: all of it, or nothing and the reason."""
        parsed = check_write(self, address, data)
        if isinstance(parsed, ErrorCode):
            return parsed
        for item, value in parsed:
            if item.address in GOALS:
                if self.configured.torque_on_by_goal and not self.torque:
                    self._set_torque(True, t_ns)
                self._put_goal(item.address, value)
            else:
                self.registers.put(item.address, value)
                self._take_effect(item.address, value, t_ns)
            if self.on_write is not None:
                self.on_write(t_ns, self, item.address, value)
        return ErrorCode.OK

    def clear_turns(self) -> None:
        """Clear: Present Position back into one turn."""
        self.encoder.fold()
        self._hold_here()

    def _take_effect(self, address: int, value: int, t_ns: int) -> None:
        if address == Reg.TORQUE_ENABLE:
            self._set_torque(bool(value), t_ns)
        elif address == Reg.BUS_WATCHDOG:
            self.watchdog.arm(value, t_ns)
        elif address in INDIRECT_ADDRESSES:
            self.registers.forget_map()
        else:
            self._take_over()
            if address == Reg.DRIVE_MODE:
                self.encoder.fold()
            elif address == Reg.OPERATING_MODE:
                # Also when the value stays the same: the page speaks of writing, not of changing.
                for gain in GAINS:
                    self.registers.put(gain, self.registers.items[gain].default)
                self._reset_goals()

    def _set_torque(self, on: bool, t_ns: int) -> None:
        """Acknowledged without effect while a shutdown is latched."""
        on = on and not self.health.shut_down
        self.registers.put(Reg.TORQUE_ENABLE, int(on))
        if on == self.torque:
            return
        self.torque = on
        self._held_nm = None
        self.watchdog.torque(on, t_ns)
        if on:
            if self.configured.mode == Mode.POSITION:
                self.encoder.fold()
            self._hold_here()

    def _hold_here(self) -> None:
        self._put_goal(Reg.GOAL_POSITION, self.encoder.position)
        self.controller.restart(self.encoder.position)

    def _put_goal(self, address: int, value: int) -> None:
        self._held_nm = None
        self.registers.put(address, value)
        self.controller.settings.set_goal(address, value)

    def _reset_goals(self) -> None:
        """Power-on and a write of Operating Mode set Goal PWM and Goal Current to their *limits*."""
        self._put_goal(Reg.GOAL_PWM, self.registers.get(Reg.PWM_LIMIT))
        self._put_goal(Reg.GOAL_CURRENT, self.registers.get(Reg.CURRENT_LIMIT))
        self._put_goal(Reg.GOAL_VELOCITY, 0)
        if self.configured.mode == Mode.POSITION:
            self.encoder.fold()
        self._hold_here()
        self.controller.settings = Settings.read(self.registers)

    def _take_over(self) -> None:
        """Make the table's present values act."""
        self.configured = Configured.read(self.registers)
        self._held_nm = None
        self.controller.settings = Settings.read(self.registers)
        self.encoder.direction = self.configured.direction
        self.encoder.homing_offset = self.configured.homing_offset
        self.health.set_limits(self.configured)

    def _finish_boot(self, t_ns: int) -> None:
        self._booting = False
        self.encoder.restart()
        startup = self.registers.get(Reg.STARTUP_CONFIGURATION)
        if startup & STARTUP_RESTORE and self._backup is not None:
            self.registers.restore(self._backup, RAM_START, len(self._backup))
            self._take_over()
        if startup & STARTUP_TORQUE:
            self._set_torque(True, t_ns)

    def _watch_supply(self, t_ns: int) -> None:
        alive = self.health.volt_v >= self.assumed.brown_out_v
        if alive and not self._powered:
            self._powered = True
            self.reboot(t_ns)
        elif self._powered and not alive:
            self._powered = False
            self.torque = False
            self._held_nm = None
