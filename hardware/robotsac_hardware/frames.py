"""Protocol 2.0 packets as bytes: builders and a parser, no I/O.

    instruction:  FF FF FD 00 ID LEN_L LEN_H INST     P1 … Pn CRC_L CRC_H
    status:       FF FF FD 00 ID LEN_L LEN_H 55   ERR P1 … Pn CRC_L CRC_H

LEN counts everything after itself. After each FF FF FD between INST and the CRC one FD is stuffed; LEN and CRC are taken
of the stuffed bytes. Replies to a fast sync read are not stuffed and have a layout of their own: see ``fast_reply``.
Source: ROBOTIS e-manual, Protocol 2.0. Written against that text and its examples, not against an SDK: dynamixel_sdk 4.1.0
sends data unstuffed and loses a byte of some payloads when it un-stuffs.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robotsac_hardware.crc import crc16

HEADER = b"\xff\xff\xfd\x00"
BROADCAST_ID = 0xFE
ID_MAX = 252
STATUS_INSTRUCTION = 0x55
# The whole control table is shorter than this; a longer LEN is a damaged packet and would only make a reader wait.
LENGTH_MAX = 1024

_NEEDLE = b"\xff\xff\xfd"
_STUFFED = b"\xff\xff\xfd\xfd"
_BODY_AT = 7


class Instruction(enum.IntEnum):
    """Instruction codes (e-manual, Protocol 2.0, "Instruction")."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    FACTORY_RESET = 0x06
    REBOOT = 0x08
    CLEAR = 0x10
    STATUS = STATUS_INSTRUCTION
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83
    FAST_SYNC_READ = 0x8A
    BULK_READ = 0x92
    BULK_WRITE = 0x93


@dataclass(frozen=True, slots=True)
class Status:
    """One status packet, CRC-checked and un-stuffed.

    Attributes:
        dxl_id: who answered.
        error: raw error byte; see ``faults``.
        params: data.
    """

    dxl_id: int
    error: int
    params: bytes


def stuff(body: bytes) -> bytes:
    """``body`` (INST … last parameter) with one FD after each FF FF FD."""
    return body.replace(_NEEDLE, _STUFFED)


def unstuff(body: bytes) -> bytes:
    """Inverse of :func:`stuff`."""
    return body.replace(_STUFFED, _NEEDLE)


def packet(dxl_id: int, body: bytes) -> bytes:
    """A whole packet around ``body`` (INST … last parameter, not yet stuffed).

    Raises:
        ValueError: the id is none, or the packet would be too long.
    """
    if not 0 <= dxl_id <= ID_MAX and dxl_id != BROADCAST_ID:
        raise ValueError(f"id {dxl_id} is not in 0…{ID_MAX} nor {BROADCAST_ID} (broadcast)")
    stuffed = stuff(body)
    length = len(stuffed) + 2
    if length > LENGTH_MAX:
        raise ValueError(f"packet length {length} bytes > {LENGTH_MAX} bytes")
    frame = HEADER + struct.pack("<BH", dxl_id, length) + stuffed
    return frame + struct.pack("<H", crc16(frame))


def instruction(dxl_id: int, code: Instruction, params: bytes = b"") -> bytes:
    """An instruction packet."""
    return packet(dxl_id, bytes([code]) + params)


def status(dxl_id: int, error: int, params: bytes = b"") -> bytes:
    """A status packet, as a servo would send it."""
    return packet(dxl_id, bytes([STATUS_INSTRUCTION, error]) + params)


def ping(dxl_id: int) -> bytes:
    """Answered by a status with model number (2 bytes) and firmware (1 byte), whatever the status return level."""
    return instruction(dxl_id, Instruction.PING)


def reboot(dxl_id: int) -> bytes:
    """Torque off, RAM to defaults, off the bus while booting."""
    return instruction(dxl_id, Instruction.REBOOT)


def read(dxl_id: int, address: int, size: int) -> bytes:
    """Read ``size`` bytes from ``address``."""
    return instruction(dxl_id, Instruction.READ, struct.pack("<HH", address, size))


def write(dxl_id: int, address: int, data: bytes) -> bytes:
    """Write ``data`` to ``address``."""
    return instruction(dxl_id, Instruction.WRITE, struct.pack("<H", address) + data)


def sync_write(address: int, size: int, values: Mapping[int, bytes]) -> bytes:
    """Write ``size`` bytes to the same ``address`` of several servos, ``{id: data}``. Never answered.

    Raises:
        ValueError: some data is not ``size`` bytes long.
    """
    params = bytearray(struct.pack("<HH", address, size))
    for dxl_id, data in values.items():
        if len(data) != size:
            raise ValueError(f"sync write to id {dxl_id}: {len(data)} bytes of data, {size} wanted")
        params.append(dxl_id)
        params += data
    return instruction(BROADCAST_ID, Instruction.SYNC_WRITE, bytes(params))


def sync_read(address: int, size: int, ids: Sequence[int]) -> bytes:
    """Read the same block of several servos; each answers with a status of its own, in the order of ``ids``."""
    return instruction(BROADCAST_ID, Instruction.SYNC_READ, struct.pack("<HH", address, size) + bytes(ids))


def fast_sync_read(address: int, size: int, ids: Sequence[int]) -> bytes:
    """As :func:`sync_read`, answered by one joint packet (``fast_reply``). Firmware 45 (X430, X540) or 46 (X330)."""
    return instruction(BROADCAST_ID, Instruction.FAST_SYNC_READ, struct.pack("<HH", address, size) + bytes(ids))


class StatusReader:
    """Finds status packets in a stream of bytes that may hold anything.

    Garbage, damaged packets and echoes of instructions are skipped; the search resumes at the next header, so one bad
    packet costs itself only.

    Attributes:
        rejected: packets dropped so far because of length or CRC.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.rejected = 0

    @property
    def pending(self) -> int:
        """Bytes held back because a packet may still be incomplete."""
        return len(self._buffer)

    def reset(self) -> None:
        """Forget what is pending."""
        self._buffer.clear()

    def feed(self, data: bytes) -> list[Status]:
        """Take ``data``; return the status packets that are complete now, in order."""
        self._buffer += data
        found = []
        while (frame := self._next_frame()) is not None:
            if frame[_BODY_AT] == STATUS_INSTRUCTION and len(frame) > _BODY_AT + 3:
                body = unstuff(frame[_BODY_AT:-2])
                found.append(Status(frame[4], body[1], body[2:]))
        return found

    def _next_frame(self) -> bytes | None:
        """Cut the next packet with a good CRC out of the buffer; ``None`` when more bytes are needed."""
        buffer = self._buffer
        while (start := buffer.find(HEADER)) >= 0:
            del buffer[:start]
            if len(buffer) < _BODY_AT:
                return None
            end = _BODY_AT + (buffer[5] | buffer[6] << 8)
            if not _BODY_AT + 3 <= end <= _BODY_AT + LENGTH_MAX:
                self._reject(len(HEADER))
                continue
            # Stuffing keeps headers out of a body, so one in there means this packet was cut short or its LEN is wrong.
            # The last two bytes are the CRC, which is not stuffed.
            inner = buffer.find(HEADER, _BODY_AT, min(end - 2, len(buffer)))
            if inner >= 0:
                self._reject(inner)
                continue
            if len(buffer) < end:
                return None
            frame = bytes(buffer[:end])
            if crc16(frame[:-2]) != frame[-2] | frame[-1] << 8:
                self._reject(len(HEADER))
                continue
            del buffer[:end]
            return frame
        del buffer[: max(0, len(buffer) - len(HEADER) + 1)]  # the tail may be the start of a header
        return None

    def _reject(self, size: int) -> None:
        self.rejected += 1
        del self._buffer[:size]
