"""Frames as a device reads and writes them. Written from the protocol's facts; shared with no driver.

Source: ROBOTIS e-manual, "DYNAMIXEL Protocol 2.0" (packet layout, byte stuffing, CRC-16, fast sync read).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robotsac_sim.twin.protocol import BROADCAST_ID, STATUS

HEADER = b"\xff\xff\xfd"
START = HEADER + b"\x00"
STUFFED = HEADER + b"\xfd"
# FF FF FD 00 ID LEN LEN: what must be there before the length is known; LEN counts everything after it.
HEAD_SIZE = 7
# INST CRC CRC: the shortest LEN an instruction can carry.
LENGTH_MIN = 3
# Above this gap between two bytes a device throws the partial packet away.
GAP_MAX_NS = 1_500_000
# A device's receive buffer is not published. Longer than this is taken for a damaged LEN.
LENGTH_MAX = 1024
# The longest a reply can declare: two bytes.
REPLY_LENGTH_MAX = 0xFFFF


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x8005 if crc & 0x8000 else crc << 1
        table.append(crc & 0xFFFF)
    return tuple(table)


_CRC = _crc_table()


def crc16(data: bytes | bytearray, crc: int = 0) -> int:
    """CRC-16/BUYPASS: polynomial 0x8005, start 0, nothing reflected. ``crc`` continues an earlier result."""
    table = _CRC
    for byte in data:
        crc = ((crc << 8) & 0xFF00) ^ table[(crc >> 8) ^ byte]
    return crc


def stuff(body: bytes) -> bytes:
    """Insert FD after each FF FF FD, so that a body never holds a header."""
    return body.replace(HEADER, STUFFED)


def unstuff(body: bytes) -> bytes:
    """The inverse of :func:`stuff`."""
    return body.replace(STUFFED, HEADER)


def encode_status(device_id: int, error: int, data: bytes = b"") -> bytes:
    """One status packet, stuffed, with LEN and CRC over the stuffed bytes."""
    body = stuff(bytes((STATUS, error)) + data)
    frame = START + bytes((device_id,)) + (len(body) + 2).to_bytes(2, "little") + body
    return frame + crc16(frame).to_bytes(2, "little")


def fast_length(sizes: Iterable[int]) -> int:
    """LEN of a joint reply with data of these sizes; beyond ``REPLY_LENGTH_MAX`` it cannot be declared."""
    return sum(size + 4 for size in sizes) + 1


def encode_fast_reply(blocks: Iterable[tuple[int, int, bytes]], sizes: Iterable[int]) -> list[bytes]:
    """The joint reply to a fast sync or bulk read, one part for each device that speaks; never stuffed.

    Args:
        blocks: (error, id, data) of the devices that answer, in listed order.
        sizes: data size of every device listed, answering or not: the first one declares LEN for all, ``REPLY_LENGTH_MAX`` at most.

    Returns:
        Parts to be sent back to back. Each ends with the CRC over everything since the first header byte.
    """
    parts = []
    head = START + bytes((BROADCAST_ID,)) + fast_length(sizes).to_bytes(2, "little") + bytes((STATUS,))
    crc = 0
    for error, device_id, data in blocks:
        part = head + bytes((error, device_id)) + data
        end = (crc := crc16(part, crc)).to_bytes(2, "little")
        crc = crc16(end, crc)
        parts.append(part + end)
        head = b""
    return parts


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction packet off the wire.

    Attributes:
        start_ns, t_ns: start of its first and end of its last byte.
        intact: False when the CRC does not match; ``op`` and ``params`` are then not to be believed.
    """

    start_ns: int
    t_ns: int
    id: int
    op: int
    params: bytes
    intact: bool = True


class InstructionParser:
    """Bytes in, instructions out, as the receiver of a device does it.

    Args:
        gap_max_ns: longest silence inside a packet.

    Attributes:
        gaps, resyncs, junk: partial packets thrown away, stray headers followed, bytes skipped in the hunt.
    """

    def __init__(self, gap_max_ns: int = GAP_MAX_NS) -> None:
        self.gap_max_ns = gap_max_ns
        self.gaps = 0
        self.resyncs = 0
        self.junk = 0
        self._buffer = bytearray()
        self._end_ns = 0

    def push(self, data: bytes, start_ns: int, byte_ns: int) -> list[Instruction]:
        """Take bytes sent back to back from ``start_ns`` on, each lasting ``byte_ns``; return what they complete."""
        if self._buffer and start_ns - self._end_ns > self.gap_max_ns:
            self._buffer.clear()
            self.gaps += 1
        self._buffer += data
        self._end_ns = start_ns + len(data) * byte_ns
        found = []
        while (frame := self._next_frame()) is not None:
            end_ns = self._end_ns - len(self._buffer) * byte_ns
            found.append(_decode(frame, end_ns - len(frame) * byte_ns, end_ns))
        return found

    def _next_frame(self) -> bytes | None:
        buffer = self._buffer
        while self._hunt():
            if len(buffer) < HEAD_SIZE:
                return None
            length = buffer[5] | buffer[6] << 8
            if not LENGTH_MIN <= length <= LENGTH_MAX:
                del buffer[: len(START)]
                self.resyncs += 1
                continue
            size = HEAD_SIZE + length
            if (stray := _stray_header(buffer, size - 2)) > 0:
                del buffer[:stray]
                self.resyncs += 1
                continue
            if len(buffer) < size:
                return None
            frame = bytes(buffer[:size])
            del buffer[:size]
            return frame
        return None

    def _hunt(self) -> bool:
        """Drop everything before the next header; whether there is one."""
        at = self._buffer.find(START)
        if at < 0:
            # The last three bytes may be the start of a header.
            at = max(0, len(self._buffer) - 3)
            self.junk += at
            del self._buffer[:at]
            return False
        self.junk += at
        del self._buffer[:at]
        return True


def _stray_header(buffer: bytearray, end: int) -> int:
    """Where an unstuffed FF FF FD stands in the body, or -1. A sender that stuffs never produces one."""
    at = buffer.find(HEADER, HEAD_SIZE, end)
    while at >= 0 and at + 3 < len(buffer):
        if at + 3 >= end or buffer[at + 3] != 0xFD:
            return at
        at = buffer.find(HEADER, at + 4, end)
    return -1


def _decode(frame: bytes, start_ns: int, end_ns: int) -> Instruction:
    intact = crc16(frame[:-2]) == frame[-2] | frame[-1] << 8
    params = unstuff(frame[HEAD_SIZE:-2])
    return Instruction(start_ns, end_ns, frame[4], params[0], params[1:], intact)
