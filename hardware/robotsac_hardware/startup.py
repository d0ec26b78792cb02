"""From a bus of strangers to an arm of known servos: identify, configure, read everything back. Torque stays off.

Order, and where it departs from the obvious one:

1. ping every servo; model and firmware must be the config's
2. Status Return Level 2, written blind: below 2 nothing after this would be acknowledged
3. Torque Enable 0, then Bus Watchdog 0. Torque goes first: a servo that a crashed program left running holds its old
   goal, and clearing an expired watchdog would release it
4. Hardware Error Status must be 0
5. EEPROM: Operating Mode 0 (current), Return Delay Time 0, Drive Mode 0 (reversal is a sign in ``units``; bit 3 would let
   any goal switch torque on), Current Limit from the config
6. checked, not changed: Secondary ID off, Homing Offset, Temperature Limit, Startup Configuration, Shutdown
7. indirect block
8. Goal Current 0, last of all, because a change of Operating Mode sets it to the Current Limit

Source: ROBOTIS e-manual, X series; the registers' pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robotsac.arm import ArmSpec
from robotsac.errors import ArmSetupError, BusCorrupt, BusTimeout, JointFault
from robotsac_hardware import control_table as table
from robotsac_hardware import frames
from robotsac_hardware.bus import Bus, Servo
from robotsac_hardware.control_table import IndirectBlock, Register
from robotsac_hardware.faults import CLEAR_HARDWARE_ERROR, hardware_error_words
from robotsac_hardware.feedback import BLOCK_SIZE, indirect_addresses
from robotsac_hardware.params import DynamixelParams
from robotsac_hardware.units import JointUnits

_HOW_TO_SET = "set it with ROBOTIS Dynamixel Wizard; hardware/README.md says how"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a servo said it is."""

    dxl_id: int
    model: str
    firmware: int


@dataclass(frozen=True, slots=True)
class Setup:
    """What every servo of one arm must hold.

    Args:
        spec: the arm.
        params: the driver's parameters.
        servos: in joint order.
        units: scales of the joints.
    """

    spec: ArmSpec
    params: DynamixelParams
    servos: tuple[Servo, ...]
    units: JointUnits

    def eeprom(self, servo: Servo) -> tuple[tuple[Register, int], ...]:
        """Registers that start-up writes and ``energize`` finds unchanged."""
        return (
            (table.OPERATING_MODE, table.CURRENT_CONTROL_MODE),
            (table.RETURN_DELAY_TIME, 0),
            (table.DRIVE_MODE, 0),
            (table.CURRENT_LIMIT, int(self.units.current_limit[servo.joint])),
        )


def configure(bus: Bus, setup: Setup, identities: Sequence[Identity]) -> IndirectBlock:
    """Steps 2 to 8.

    Returns:
        Where the indirect block of all servos lies.

    Raises:
        ArmSetupError: a servo did not keep a value or is unfit; names joint, register and both values.
        JointFault: a latched hardware error.
        BusError: the bus failed.
    """
    block = common_block(setup.servos, identities)
    for servo in setup.servos:
        _quieten(bus, servo)
    for servo in setup.servos:
        refuse_hardware_error(bus, servo)
        _write_eeprom(bus, setup, servo)
        _check(bus, setup.spec, servo)
        _map_block(bus, servo, block)
        bus.keep(servo, table.GOAL_CURRENT, 0)
    return block


def identify(bus: Bus, setup: Setup) -> tuple[Identity, ...]:
    """Step 1: ping every servo and hold model and firmware against the config. Changes nothing.

    Returns:
        Who is there, in joint order.

    Raises:
        ArmSetupError: joints are missing, or one is another servo; names them.
        BusLost: the port is gone.
    """
    answers: list[tuple[int, int] | None] = []
    silent = []
    for servo in setup.servos:
        try:
            answers.append(bus.ping(servo))
        except BusTimeout:
            silent.append(str(servo))
            answers.append(None)
        except BusCorrupt as error:
            raise ArmSetupError(f"{servo}: the answer to a ping is damaged", reason=error.message) from error
    if silent:
        raise ArmSetupError(
            f"no answer on {bus.port.name} at {setup.params.baud} bit/s from {'; '.join(silent)}",
            reason="power, cable, id or baud rate; hardware/README.md says how to set a servo up",
        )
    return tuple(
        _identity(setup, servo, *answer)
        for servo, answer in zip(setup.servos, answers, strict=True)
        if answer is not None
    )


def _identity(setup: Setup, servo: Servo, number: int, firmware: int) -> Identity:
    if number != servo.model.number:
        raise ArmSetupError(
            f"{servo}: found {table.model_name(number)}, the config says {servo.model.name} ({servo.model.number})",
            reason="another servo has this id, or the config is another arm's",
        )
    needed, why = setup.params.firmware_min, "robot.driver.firmware_min"
    if setup.params.fast_sync_read and servo.model.fast_sync_read_from > needed:
        needed, why = servo.model.fast_sync_read_from, "needed by robot.driver.fast_sync_read"
    if firmware < needed:
        raise ArmSetupError(
            f"{servo}: firmware {firmware} < {needed}, {why}",
            reason="update it with ROBOTIS Dynamixel Wizard, or set fast_sync_read = false and a lower firmware_min",
        )
    return Identity(servo.dxl_id, servo.model.name, firmware)


def common_block(servos: Sequence[Servo], identities: Sequence[Identity]) -> IndirectBlock:
    """The indirect block that all servos share.

    Raises:
        ArmSetupError: they have it in different places, which one sync read cannot address.
    """
    blocks = {servo.model.indirect_block(identity.firmware) for servo, identity in zip(servos, identities, strict=True)}
    if len({block.data_at for block in blocks}) != 1:
        kinds = ", ".join(sorted({f"{identity.model} firmware {identity.firmware}" for identity in identities}))
        raise ArmSetupError(
            f"these servos keep their indirect data at different addresses: {kinds}",
            reason="one sync read reads the same address of all; put them on separate buses or align their firmware",
        )
    return min(blocks, key=lambda block: block.count)


def refuse_hardware_error(bus: Bus, servo: Servo) -> None:
    """Raise ``JointFault`` when a hardware error is latched."""
    bits = bus.read(servo, table.HARDWARE_ERROR_STATUS)
    if bits:
        words = f"{hardware_error_words(bits)} (latched)"
        raise JointFault(servo.joint, servo.name, words, bits, remedy=CLEAR_HARDWARE_ERROR)


def expect_unchanged(bus: Bus, setup: Setup, servo: Servo, block: IndirectBlock) -> None:
    """Raise ``ArmSetupError`` when a servo no longer holds what start-up gave it, e.g. because it rebooted since."""
    for register, value in setup.eeprom(servo):
        bus.expect(servo, register, value)
    wanted = indirect_addresses()
    if bus.read_bytes(servo, "Indirect Address", block.address_at, len(wanted)) != wanted:
        raise ArmSetupError(
            f"{servo}: the indirect addresses are not what was written",
            reason="the servo rebooted since it was configured; close the arm and connect again",
        )


def _quieten(bus: Bus, servo: Servo) -> None:
    level = table.STATUS_RETURN_LEVEL
    bus.tell(frames.write(servo.dxl_id, level.address, level.encode(table.ANSWER_EVERYTHING)))
    bus.expect(servo, level, table.ANSWER_EVERYTHING)
    bus.keep(servo, table.TORQUE_ENABLE, 0)
    bus.keep(servo, table.BUS_WATCHDOG, 0)


def _write_eeprom(bus: Bus, setup: Setup, servo: Servo) -> None:
    mode = bus.read(servo, table.DRIVE_MODE)
    if mode & table.DRIVE_MODE_FOLLOWER:
        raise ArmSetupError(
            f"{servo}: register Drive Mode is {mode}: a follower in a dual joint",
            reason="this driver moves one servo per joint; its partner would be moved by the leader alone",
        )
    for register, value in setup.eeprom(servo):
        bus.keep(servo, register, value)


def _check(bus: Bus, spec: ArmSpec, servo: Servo) -> None:
    """Registers that are the owner's to set: refuse what this driver cannot work with."""
    secondary = bus.read(servo, table.SECONDARY_ID)
    if secondary < table.SECONDARY_ID_OFF_FROM:
        raise _unfit(servo, table.SECONDARY_ID, secondary, "255", "it would also obey goals meant for that id")
    offset = bus.read(servo, table.HOMING_OFFSET)
    if offset != servo.params.homing_offset_count:
        wanted = str(servo.params.homing_offset_count)
        raise _unfit(servo, table.HOMING_OFFSET, offset, wanted, "zero_count would mean another angle")
    limit, guard_c = bus.read(servo, table.TEMPERATURE_LIMIT), spec.temp_max[servo.joint]
    if limit < guard_c or (servo.model.temperature_limit_c and limit > servo.model.temperature_limit_c):
        wanted = f"at least temp_max_c ({guard_c:g}) and at most {servo.model.temperature_limit_c or 100}"
        raise _unfit(servo, table.TEMPERATURE_LIMIT, limit, wanted, "the guard must act before the servo goes limp")
    start = bus.read(servo, table.STARTUP_CONFIGURATION)
    if start:
        raise _unfit(servo, table.STARTUP_CONFIGURATION, start, "0", "it could switch torque on at power-up")
    causes = bus.read(servo, table.SHUTDOWN)
    if causes & table.SHUTDOWN_CAUSES_NEEDED != table.SHUTDOWN_CAUSES_NEEDED:
        wanted = f"one that includes {table.SHUTDOWN_CAUSES_NEEDED}"
        raise _unfit(servo, table.SHUTDOWN, causes, wanted, "overheating, shock and overload must switch the servo off")


def _unfit(servo: Servo, register: Register, found: int, wanted: str, why: str) -> ArmSetupError:
    return ArmSetupError(
        f"{servo}: register {register.name} is {found}, wanted is {wanted}", reason=f"{why}; {_HOW_TO_SET}"
    )


def _map_block(bus: Bus, servo: Servo, block: IndirectBlock) -> None:
    if block.count < BLOCK_SIZE:
        raise ArmSetupError(
            f"{servo}: {block.count} indirect registers, {BLOCK_SIZE} are needed",
            reason="this firmware has fewer; update it with ROBOTIS Dynamixel Wizard",
        )
    wanted = indirect_addresses()
    bus.write_bytes(servo, "Indirect Address", block.address_at, wanted)
    found = bus.read_bytes(servo, "Indirect Address", block.address_at, len(wanted))
    if found != wanted:
        raise ArmSetupError(
            f"{servo}: register Indirect Address is {found.hex(' ')}, {wanted.hex(' ')} was wanted",
            reason="the servo did not keep what was written",
        )
