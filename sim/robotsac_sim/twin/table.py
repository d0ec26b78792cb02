"""The control table of the XM430 and XM540: which register is where, how large, and what it takes.

Source: ROBOTIS e-manual, pages XM430-W350 and XM540-W270, "Control Table".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from robotsac_sim.twin.models import ServoModel

RAM_START = 64
TABLE_SIZE = 662
# Two blocks of 28: (first address register, first data byte).
INDIRECT_COUNT = 28
INDIRECT_BLOCKS = ((168, 224), (578, 634))
INDIRECT_DATA = frozenset(data + k for _, data in INDIRECT_BLOCKS for k in range(INDIRECT_COUNT))
PWM_FULL = 885
POSITION_FULL = 1_048_575


class Reg(enum.IntEnum):
    """Addresses of the named registers."""

    MODEL_NUMBER = 0
    MODEL_INFORMATION = 2
    FIRMWARE_VERSION = 6
    ID = 7
    BAUD_RATE = 8
    RETURN_DELAY_TIME = 9
    DRIVE_MODE = 10
    OPERATING_MODE = 11
    SECONDARY_ID = 12
    PROTOCOL_TYPE = 13
    HOMING_OFFSET = 20
    MOVING_THRESHOLD = 24
    TEMPERATURE_LIMIT = 31
    MAX_VOLTAGE_LIMIT = 32
    MIN_VOLTAGE_LIMIT = 34
    PWM_LIMIT = 36
    CURRENT_LIMIT = 38
    VELOCITY_LIMIT = 44
    MAX_POSITION_LIMIT = 48
    MIN_POSITION_LIMIT = 52
    EXTERNAL_PORT_MODE_1 = 56
    EXTERNAL_PORT_MODE_2 = 57
    EXTERNAL_PORT_MODE_3 = 58
    STARTUP_CONFIGURATION = 60
    SHUTDOWN = 63
    TORQUE_ENABLE = 64
    LED = 65
    STATUS_RETURN_LEVEL = 68
    REGISTERED_INSTRUCTION = 69
    HARDWARE_ERROR_STATUS = 70
    VELOCITY_I_GAIN = 76
    VELOCITY_P_GAIN = 78
    POSITION_D_GAIN = 80
    POSITION_I_GAIN = 82
    POSITION_P_GAIN = 84
    FEEDFORWARD_2ND_GAIN = 88
    FEEDFORWARD_1ST_GAIN = 90
    BUS_WATCHDOG = 98
    GOAL_PWM = 100
    GOAL_CURRENT = 102
    GOAL_VELOCITY = 104
    PROFILE_ACCELERATION = 108
    PROFILE_VELOCITY = 112
    GOAL_POSITION = 116
    REALTIME_TICK = 120
    MOVING = 122
    MOVING_STATUS = 123
    PRESENT_PWM = 124
    PRESENT_CURRENT = 126
    PRESENT_VELOCITY = 128
    PRESENT_POSITION = 132
    VELOCITY_TRAJECTORY = 136
    POSITION_TRAJECTORY = 140
    PRESENT_INPUT_VOLTAGE = 144
    PRESENT_TEMPERATURE = 146
    BACKUP_READY = 147
    EXTERNAL_PORT_DATA_1 = 152
    EXTERNAL_PORT_DATA_2 = 154
    EXTERNAL_PORT_DATA_3 = 156


GOALS = frozenset((Reg.GOAL_PWM, Reg.GOAL_CURRENT, Reg.GOAL_VELOCITY, Reg.GOAL_POSITION))
# What a write of Operating Mode sets back besides the goals.
GAINS = (
    Reg.VELOCITY_I_GAIN,
    Reg.VELOCITY_P_GAIN,
    Reg.POSITION_D_GAIN,
    Reg.POSITION_I_GAIN,
    Reg.POSITION_P_GAIN,
    Reg.FEEDFORWARD_2ND_GAIN,
    Reg.FEEDFORWARD_1ST_GAIN,
    Reg.PROFILE_ACCELERATION,
    Reg.PROFILE_VELOCITY,
)


@dataclass(frozen=True, slots=True)
class Item:
    """One register.

    Attributes:
        low, high: range of values that a write may carry; outside is a Data Range Error.
        allowed: where the range has holes, the values it holds.
    """

    address: int
    size: int
    writable: bool
    default: int
    low: int = 0
    high: int = 0
    allowed: frozenset[int] = frozenset()

    @property
    def eeprom(self) -> bool:
        """Whether it keeps its value without power, and can be written with torque off only."""
        return self.address < RAM_START

    @property
    def signed(self) -> bool:
        """Whether its bytes are two's complement."""
        return self.low < 0

    def accepts(self, value: int) -> bool:
        """Whether ``value`` lies in the register's own range."""
        return self.low <= value <= self.high and (not self.allowed or value in self.allowed)


def build_table(model: ServoModel) -> dict[int, Item]:
    """Every register of a model, by its first address."""
    items = [*_identity(model), *_limits(model), *_ram(model), *_goals(model), *_presents(), *_indirect()]
    if model.external_ports:
        items += [_rw(Reg.EXTERNAL_PORT_MODE_1 + k, 1, 3, 0, 3) for k in range(3)]
        items += [_rw(Reg.EXTERNAL_PORT_DATA_1 + 2 * k, 2, 0, 0, 4095) for k in range(3)]
    return {item.address: item for item in items}


def _rw(address: int, size: int, default: int, low: int, high: int) -> Item:
    return Item(address, size, True, default, low, high)


def _ro(address: int, size: int, default: int = 0, *, signed: bool = False) -> Item:
    return Item(address, size, False, default, -1 if signed else 0)


def _identity(model: ServoModel) -> list[Item]:
    return [
        _ro(Reg.MODEL_NUMBER, 2, model.number),
        _ro(Reg.MODEL_INFORMATION, 4),
        _ro(Reg.FIRMWARE_VERSION, 1, model.firmware),
        _rw(Reg.ID, 1, 1, 0, 252),
        _rw(Reg.BAUD_RATE, 1, 1, 0, 7),
        _rw(Reg.RETURN_DELAY_TIME, 1, 250, 0, 254),
        _rw(Reg.DRIVE_MODE, 1, 0, 0, 13),
        Item(Reg.OPERATING_MODE, 1, True, 3, 0, 16, frozenset((0, 1, 3, 4, 5, 16))),
        # Documented range 0-252; 253-255 switch it off, and 255 is the default.
        _rw(Reg.SECONDARY_ID, 1, 255, 0, 255),
        # Protocol 1.0 is not modelled, so the twin refuses to be switched to it.
        _rw(Reg.PROTOCOL_TYPE, 1, 2, 2, 2),
    ]


def _limits(model: ServoModel) -> list[Item]:
    return [
        _rw(Reg.HOMING_OFFSET, 4, 0, -1_044_479, 1_044_479),
        _rw(Reg.MOVING_THRESHOLD, 4, 10, 0, 1023),
        _rw(Reg.TEMPERATURE_LIMIT, 1, model.temperature_limit_c, 0, 100),
        _rw(Reg.MAX_VOLTAGE_LIMIT, 2, model.voltage_max, model.voltage_min, model.voltage_max),
        _rw(Reg.MIN_VOLTAGE_LIMIT, 2, model.voltage_min, model.voltage_min, model.voltage_max),
        _rw(Reg.PWM_LIMIT, 2, PWM_FULL, 0, PWM_FULL),
        _rw(Reg.CURRENT_LIMIT, 2, model.current_limit, 0, model.current_limit),
        _rw(Reg.VELOCITY_LIMIT, 4, model.velocity_limit, 0, 1023),
        _rw(Reg.MAX_POSITION_LIMIT, 4, 4095, 0, 4095),
        _rw(Reg.MIN_POSITION_LIMIT, 4, 0, 0, 4095),
        _rw(Reg.STARTUP_CONFIGURATION, 1, 0, 0, 3),
        _rw(Reg.SHUTDOWN, 1, model.shutdown, 0, 0x3F),
    ]


def _ram(model: ServoModel) -> list[Item]:
    gains = (
        (Reg.VELOCITY_I_GAIN, model.velocity_i),
        (Reg.VELOCITY_P_GAIN, model.velocity_p),
        (Reg.POSITION_D_GAIN, model.position_d),
        (Reg.POSITION_I_GAIN, model.position_i),
        (Reg.POSITION_P_GAIN, model.position_p),
        (Reg.FEEDFORWARD_2ND_GAIN, 0),
        (Reg.FEEDFORWARD_1ST_GAIN, 0),
    )
    return [
        _rw(Reg.TORQUE_ENABLE, 1, 0, 0, 1),
        _rw(Reg.LED, 1, 0, 0, 1),
        _rw(Reg.STATUS_RETURN_LEVEL, 1, 2, 0, 2),
        _ro(Reg.REGISTERED_INSTRUCTION, 1),
        _ro(Reg.HARDWARE_ERROR_STATUS, 1),
        *(_rw(reg, 2, value, 0, 16_383) for reg, value in gains),
        _rw(Reg.BUS_WATCHDOG, 1, 0, 0, 127),
    ]


def _goals(model: ServoModel) -> list[Item]:
    # PWM, current and velocity goals are held by the *configured* limits (Data Limit Error), not by a range of their own.
    return [
        _rw(Reg.GOAL_PWM, 2, PWM_FULL, -0x8000, 0x7FFF),
        _rw(Reg.GOAL_CURRENT, 2, model.current_limit, -0x8000, 0x7FFF),
        _rw(Reg.GOAL_VELOCITY, 4, 0, -0x8000_0000, 0x7FFF_FFFF),
        _rw(Reg.PROFILE_ACCELERATION, 4, 0, 0, 32_767),
        _rw(Reg.PROFILE_VELOCITY, 4, 0, 0, 32_767),
        _rw(Reg.GOAL_POSITION, 4, 0, -POSITION_FULL, POSITION_FULL),
    ]


def _presents() -> list[Item]:
    return [
        _ro(Reg.REALTIME_TICK, 2),
        _ro(Reg.MOVING, 1),
        _ro(Reg.MOVING_STATUS, 1),
        _ro(Reg.PRESENT_PWM, 2, signed=True),
        _ro(Reg.PRESENT_CURRENT, 2, signed=True),
        _ro(Reg.PRESENT_VELOCITY, 4, signed=True),
        _ro(Reg.PRESENT_POSITION, 4, signed=True),
        _ro(Reg.VELOCITY_TRAJECTORY, 4, signed=True),
        _ro(Reg.POSITION_TRAJECTORY, 4, signed=True),
        _ro(Reg.PRESENT_INPUT_VOLTAGE, 2),
        _ro(Reg.PRESENT_TEMPERATURE, 1),
        _ro(Reg.BACKUP_READY, 1),
    ]


def _indirect() -> list[Item]:
    items = []
    for addresses, data in INDIRECT_BLOCKS:
        for k in range(INDIRECT_COUNT):
            items.append(_rw(addresses + 2 * k, 2, data + k, RAM_START, TABLE_SIZE - 1))
            items.append(_rw(data + k, 1, 0, 0, 255))
    return items


INDIRECT_ADDRESSES = frozenset(first + 2 * k for first, _ in INDIRECT_BLOCKS for k in range(INDIRECT_COUNT))
