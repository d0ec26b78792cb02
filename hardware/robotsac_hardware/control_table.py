"""The registers this driver touches, and the servo models it knows. X series, Protocol 2.0.

Source: ROBOTIS e-manual, control table pages of XM430-W350, XM540-W270, XC330-T288, XL330-M288. Addresses are common to
the series; current unit, limits and the place of the indirect block are not, and the last depends on the firmware too.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.integer[Any]]
"""Raw values of one register, one per servo."""

COUNTS_PER_TURN = 4096
RAD_PER_COUNT = 2.0 * math.pi / COUNTS_PER_TURN
RAD_S_PER_COUNT = 0.229 * 2.0 * math.pi / 60.0
VOLT_PER_COUNT = 0.1
WATCHDOG_UNIT_MS = 20
WATCHDOG_UNITS_MAX = 127
# Present value of the bus watchdog register once it has expired: −1.
WATCHDOG_EXPIRED = 0xFF
# The realtime tick counts milliseconds, 0 … 32767, then starts again.
TICK_MODULUS = 32_768
CURRENT_CONTROL_MODE = 0
ANSWER_EVERYTHING = 2
DRIVE_MODE_FOLLOWER = 0b0010
# Overheating, electrical shock, overload: the servo must switch itself off for these (factory value 0x34).
SHUTDOWN_CAUSES_NEEDED = 0x34
SECONDARY_ID_OFF_FROM = 253

BAUD_CODES = {
    9_600: 0,
    57_600: 1,
    115_200: 2,
    1_000_000: 3,
    2_000_000: 4,
    3_000_000: 5,
    4_000_000: 6,
    4_500_000: 7,
}


@dataclass(frozen=True, slots=True)
class Register:
    """One item of the control table. Little-endian, two's complement where signed."""

    name: str
    address: int
    size: int
    signed: bool = False

    def encode(self, value: int) -> bytes:
        """Bytes of ``value``. Raises ``OverflowError`` when it does not fit."""
        return value.to_bytes(self.size, "little", signed=self.signed)

    def decode(self, data: bytes) -> int:
        """Value of ``size`` bytes."""
        return int.from_bytes(data, "little", signed=self.signed)


# EEPROM: writable with torque off only.
MODEL_NUMBER = Register("Model Number", 0, 2)
FIRMWARE_VERSION = Register("Firmware Version", 6, 1)
RETURN_DELAY_TIME = Register("Return Delay Time", 9, 1)
DRIVE_MODE = Register("Drive Mode", 10, 1)
OPERATING_MODE = Register("Operating Mode", 11, 1)
SECONDARY_ID = Register("Secondary ID", 12, 1)
HOMING_OFFSET = Register("Homing Offset", 20, 4, signed=True)
TEMPERATURE_LIMIT = Register("Temperature Limit", 31, 1)
CURRENT_LIMIT = Register("Current Limit", 38, 2)
STARTUP_CONFIGURATION = Register("Startup Configuration", 60, 1)
SHUTDOWN = Register("Shutdown", 63, 1)

# RAM: back to defaults after a reboot.
TORQUE_ENABLE = Register("Torque Enable", 64, 1)
STATUS_RETURN_LEVEL = Register("Status Return Level", 68, 1)
HARDWARE_ERROR_STATUS = Register("Hardware Error Status", 70, 1)
BUS_WATCHDOG = Register("Bus Watchdog", 98, 1)
GOAL_CURRENT = Register("Goal Current", 102, 2, signed=True)
REALTIME_TICK = Register("Realtime Tick", 120, 2)
PRESENT_CURRENT = Register("Present Current", 126, 2, signed=True)
PRESENT_VELOCITY = Register("Present Velocity", 128, 4, signed=True)
PRESENT_POSITION = Register("Present Position", 132, 4, signed=True)
PRESENT_INPUT_VOLTAGE = Register("Present Input Voltage", 144, 2)
PRESENT_TEMPERATURE = Register("Present Temperature", 146, 1)


class Family(enum.Enum):
    """Servos that share a register layout."""

    X430_X540 = "XM/XH/XW 430 and 540"
    X330 = "XC330/XL330"


@dataclass(frozen=True, slots=True)
class IndirectBlock:
    """Where a servo keeps its indirect registers: ``count`` addresses of 2 bytes, ``count`` data bytes."""

    address_at: int
    data_at: int
    count: int


_X330_MOVED_AT_FIRMWARE = 52


@dataclass(frozen=True, slots=True)
class ServoModel:
    """One servo model.

    Attributes:
        current_unit_a: A per count of current registers.
        current_limit_max: largest Current Limit, counts; 0 = not known here, the servo itself refuses more.
        temperature_limit_c: factory Temperature Limit; 0 = not known here.
    """

    name: str
    number: int
    family: Family
    current_unit_a: float
    current_limit_max: int = 0
    temperature_limit_c: int = 0

    @property
    def fast_sync_read_from(self) -> int:
        """First firmware that knows fast sync read."""
        return 46 if self.family is Family.X330 else 45

    @property
    def baud_max(self) -> int:
        """Highest bit rate."""
        return 4_000_000 if self.family is Family.X330 else 4_500_000

    def indirect_block(self, firmware: int) -> IndirectBlock:
        """Layout of the indirect registers: by family and by firmware."""
        if self.family is Family.X330:
            return IndirectBlock(168, 208 if firmware >= _X330_MOVED_AT_FIRMWARE else 224, 20)
        return IndirectBlock(168, 224, 28)


_PHASE_UNIT_A = 2.69e-3
_SUPPLY_UNIT_A = 1.0e-3

_X = Family.X430_X540
MODELS = {
    model.name: model
    for model in (
        ServoModel("XM430-W350", 1020, _X, _PHASE_UNIT_A, 1193, 80),
        ServoModel("XM540-W270", 1120, _X, _PHASE_UNIT_A, 2047, 80),
        ServoModel("XC330-T288", 1220, Family.X330, _SUPPLY_UNIT_A, 910, 70),
        ServoModel("XL330-M288", 1200, Family.X330, _SUPPLY_UNIT_A, 1750, 70),
        ServoModel("XM430-W210", 1030, _X, _PHASE_UNIT_A),
        ServoModel("XM540-W150", 1130, _X, _PHASE_UNIT_A),
        ServoModel("XH430-W350", 1000, _X, _PHASE_UNIT_A),
        ServoModel("XH430-W210", 1010, _X, _PHASE_UNIT_A),
        ServoModel("XH540-W270", 1100, _X, _PHASE_UNIT_A),
        ServoModel("XH540-W150", 1110, _X, _PHASE_UNIT_A),
        ServoModel("XW540-T260", 1170, _X, _PHASE_UNIT_A),
        ServoModel("XL330-M077", 1190, Family.X330, _SUPPLY_UNIT_A),
        ServoModel("XC330-T181", 1210, Family.X330, _SUPPLY_UNIT_A),
        ServoModel("XC330-M181", 1230, Family.X330, _SUPPLY_UNIT_A),
        ServoModel("XC330-M288", 1240, Family.X330, _SUPPLY_UNIT_A),
    )
}


def model_name(number: int) -> str:
    """Name of a model number, or the number in words when it is not a servo this driver knows."""
    for model in MODELS.values():
        if model.number == number:
            return model.name
    return f"model number {number}"
