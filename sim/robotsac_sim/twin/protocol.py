"""Words of Protocol 2.0, as a device knows them. Source: ROBOTIS e-manual, "DYNAMIXEL Protocol 2.0"."""

from __future__ import annotations

import enum

BROADCAST_ID = 0xFE
ID_MAX = 252
STATUS = 0x55
ALERT = 0x80
CLEAR_MULTI_TURN = bytes((0x01, 0x44, 0x58, 0x4C, 0x22))
# The e-manual names the key "CTRL"; not confirmed on a device.
BACKUP_KEY = b"CTRL"
# Byte order of the wire is little-endian throughout.
BITS_PER_BYTE = 10
BAUD_BY_CODE = (9_600, 57_600, 115_200, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 4_500_000)


class Op(enum.IntEnum):
    """Instructions."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    FACTORY_RESET = 0x06
    REBOOT = 0x08
    CLEAR = 0x10
    BACKUP = 0x20
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83
    FAST_SYNC_READ = 0x8A
    BULK_READ = 0x92
    BULK_WRITE = 0x93
    FAST_BULK_READ = 0x9A


class ErrorCode(enum.IntEnum):
    """Low seven bits of a status packet's error byte."""

    OK = 0
    RESULT_FAIL = 1
    INSTRUCTION = 2
    CRC = 3
    DATA_RANGE = 4
    DATA_LENGTH = 5
    DATA_LIMIT = 6
    ACCESS = 7


class Cause(enum.IntFlag):
    """Bits of Hardware Error Status (70) and Shutdown (63)."""

    INPUT_VOLTAGE = 0x01
    OVERHEATING = 0x04
    ENCODER = 0x08
    ELECTRICAL_SHOCK = 0x10
    OVERLOAD = 0x20


class Mode(enum.IntEnum):
    """Values of Operating Mode (11)."""

    CURRENT = 0
    VELOCITY = 1
    POSITION = 3
    EXTENDED_POSITION = 4
    CURRENT_BASED_POSITION = 5
    PWM = 16


POSITION_MODES = frozenset((Mode.POSITION, Mode.EXTENDED_POSITION, Mode.CURRENT_BASED_POSITION))
