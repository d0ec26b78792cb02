"""What one bus round carries, byte for byte: goals out, one block per servo in.

The block is read through each servo's indirect registers, so that everything a round must know arrives in one reply:

    Present Current 2 · Present Velocity 4 · Present Position 4 · Realtime Tick 2 · Present Input Voltage 2 ·
    Present Temperature 1 · Hardware Error Status 1 · Bus Watchdog 1 · Torque Enable 1                        = 18 bytes

The last three are there because goals are written by a packet that nobody acknowledges: a servo that shut itself down,
whose watchdog ran out, or that rebooted ignores them in silence and shows it only here. 18 bytes fit the smallest indirect
block (20, X330).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robotsac.arm import Vector
from robotsac_hardware import control_table as table
from robotsac_hardware import frames
from robotsac_hardware.crc import crc16
from robotsac_hardware.fast_reply import HEAD_SIZE, FastReply
from robotsac_hardware.port import Port

BLOCK = (
    table.PRESENT_CURRENT,
    table.PRESENT_VELOCITY,
    table.PRESENT_POSITION,
    table.REALTIME_TICK,
    table.PRESENT_INPUT_VOLTAGE,
    table.PRESENT_TEMPERATURE,
    table.HARDWARE_ERROR_STATUS,
    table.BUS_WATCHDOG,
    table.TORQUE_ENABLE,
)
BLOCK_SIZE = sum(register.size for register in BLOCK)

# One servo's part of a fast sync read reply. Packed: no padding between fields.
ROW = np.dtype(
    [("error", "u1"), ("id", "u1")]
    + [(register.name, f"<{'i' if register.signed else 'u'}{register.size}") for register in BLOCK]
    + [("crc", "<u2")]
)
_ROW_SIZE = ROW.itemsize


def offset_of(name: str) -> int:
    """Where a field lies in a row."""
    fields = ROW.fields
    assert fields is not None
    return int(fields[name][1])


ERROR_AT = offset_of("error")
HARDWARE_ERROR_AT = offset_of(table.HARDWARE_ERROR_STATUS.name)
WATCHDOG_AT = offset_of(table.BUS_WATCHDOG.name)
TORQUE_AT = offset_of(table.TORQUE_ENABLE.name)


def indirect_addresses() -> bytes:
    """Contents of the indirect address registers: every byte of the block has an address of its own."""
    addresses = [register.address + offset for register in BLOCK for offset in range(register.size)]
    return struct.pack(f"<{len(addresses)}H", *addresses)


class Rows:
    """The newest accepted block of each of n servos, in place.

    Attributes:
        array: structured view (n,) of ``ROW``; its field views stay valid.
        fresh: joints that answered in this round (n,).
        ids: servo ids.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = tuple(ids)
        self.memory = bytearray(len(self.ids) * _ROW_SIZE)
        self.array = np.frombuffer(self.memory, dtype=ROW)
        self._flags = bytearray(len(self.ids))
        self._all = b"\1" * len(self.ids)
        self._none = bytes(len(self.ids))
        self.fresh: NDArray[np.bool_] = np.frombuffer(self._flags, dtype=np.bool_)

    def begin(self) -> None:
        """A round begins: nothing is fresh."""
        self._flags[:] = self._none

    def complete(self) -> bool:
        """Whether every joint is fresh."""
        return self._flags == self._all

    def empty(self) -> bool:
        """Whether none is."""
        return self._flags == self._none

    def store(self, first: int, blocks: bytes | bytearray) -> None:
        """Take whole rows, beginning at servo number ``first``."""
        self.memory[first * _ROW_SIZE : first * _ROW_SIZE + len(blocks)] = blocks
        count = len(blocks) // _ROW_SIZE
        self._flags[first : first + count] = self._all[:count]

    def column(self, register: table.Register) -> table.Counts:
        """View (n,) of one register, counts."""
        view: table.Counts = self.array[register.name]
        return view

    def raw(self, offset: int) -> bytearray:
        """One single-byte field of all servos; comparing bytes is far cheaper than a numpy reduction."""
        return self.memory[offset::_ROW_SIZE]


class BlockReader(Protocol):
    """Requests and receives the block of every servo."""

    request: bytes

    def receive(self, port: Port, deadline_ns: int, rows: Rows) -> int:
        """Store the blocks that arrive before the deadline and mark them fresh.

        Returns:
            Bytes received, for telling silence from noise.

        Raises:
            BusLost: the port is gone.
        """
        ...


class FastReader:
    """By fast sync read: one joint reply; leading servos are kept when it stops short."""

    def __init__(self, ids: Sequence[int], data_at: int) -> None:
        self.request = frames.fast_sync_read(data_at, BLOCK_SIZE, ids)
        self._reply = FastReply(ids, BLOCK_SIZE)

    def receive(self, port: Port, deadline_ns: int, rows: Rows) -> int:
        """See :class:`BlockReader`."""
        total = self._reply.total_size
        received = port.read(total, deadline_ns)
        start = self._reply.find(received)
        while received and (missing := total + max(start, 0) - len(received)) > 0:
            chunk = port.read(missing, deadline_ns)
            if not chunk:
                break
            received += chunk
            start = self._reply.find(received)
        if start < 0:
            return len(received)
        whole = self._reply.whole_blocks(received, start)
        begin = start + HEAD_SIZE
        rows.store(0, received[begin : begin + whole * _ROW_SIZE])
        return len(received)


class PlainReader:
    """By sync read: one status per servo, for firmware without the fast variant."""

    def __init__(self, ids: Sequence[int], data_at: int) -> None:
        self.request = frames.sync_read(data_at, BLOCK_SIZE, ids)
        self._row = {dxl_id: row for row, dxl_id in enumerate(ids)}
        self._reader = frames.StatusReader()

    def receive(self, port: Port, deadline_ns: int, rows: Rows) -> int:
        """See :class:`BlockReader`."""
        self._reader.reset()
        missing = set(self._row)
        received = 0
        # Stuffing makes the length of the replies unknown: ask for what is left at least, and look after each piece.
        while missing and (chunk := port.read(len(missing) * _ROW_SIZE * 2, deadline_ns)):
            received += len(chunk)
            for status in self._reader.feed(chunk):
                if status.dxl_id in missing and len(status.params) == BLOCK_SIZE:
                    missing.discard(status.dxl_id)
                    block = bytes([status.error, status.dxl_id]) + status.params + b"\0\0"
                    rows.store(self._row[status.dxl_id], block)
        return received


class GoalWriter:
    """The sync write of Goal Current, followed by a read request, as one run of bytes.

    Only two bytes per servo and the CRC change from round to round. Nothing in it needs stuffing: FF FF FD would have to
    end in an id of 0xFD, which no servo has.
    """

    def __init__(self, ids: Sequence[int], request: bytes) -> None:
        empty = frames.sync_write(table.GOAL_CURRENT.address, 2, {dxl_id: b"\0\0" for dxl_id in ids})
        body_at = len(empty) - 2 - 3 * len(ids)
        self._head_crc = crc16(empty[:body_at])
        self._body = slice(body_at, len(empty) - 2)
        self._crc_at = len(empty) - 2
        self._frame = bytearray(empty + request)
        entry = np.dtype([("id", "u1"), ("goal", "<i2")])
        self._goal = np.frombuffer(self._frame, dtype=entry, count=len(ids), offset=body_at)["goal"]

    def frame(self, goal: Vector) -> bytes:
        """The bytes that tell the servos ``goal`` (n,), whole counts within int16, and ask for their blocks."""
        self._goal[:] = goal
        struct.pack_into("<H", self._frame, self._crc_at, crc16(self._frame[self._body], self._head_crc))
        return bytes(self._frame)
