"""The joint reply to a fast sync read.

    FF FF FD 00 FE LEN_L LEN_H 55 | ERR ID data[L] CRC CRC | ERR ID data[L] CRC CRC | …

LEN = n·(L + 4) + 1. The k-th CRC covers everything from the first header byte to the end of device k's data, the CRCs
before it included. Nothing is stuffed: a header may appear inside. Each device has an error byte of its own. When a
device is missing the packet stops short; what came before it is whole and can be used.
Source: ROBOTIS e-manual, Protocol 2.0, "Fast Sync Read".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from robotsac_hardware.crc import WORD_TABLE, crc16
from robotsac_hardware.frames import BROADCAST_ID, HEADER, STATUS_INSTRUCTION

HEAD_SIZE = 8
# ERR and ID before the data, CRC behind it.
BLOCK_OVERHEAD = 4


class FastReply:
    """Recognises the reply to one particular fast sync read.

    Args:
        ids: the servos, in the order of the request.
        size: bytes of data per servo.
    """

    def __init__(self, ids: Sequence[int], size: int) -> None:
        self.ids = tuple(ids)
        self.block_size = size + BLOCK_OVERHEAD
        self.total_size = HEAD_SIZE + len(self.ids) * self.block_size
        length = len(self.ids) * self.block_size + 1
        self._head = HEADER + struct.pack("<BHB", BROADCAST_ID, length, STATUS_INSTRUCTION)
        self._head_crc = crc16(self._head)
        self._words = struct.Struct(f">{(size + 2) // 2}H")
        self._odd = size % 2 == 1

    def find(self, received: bytes | bytearray) -> int:
        """Where the reply starts in what was received; −1 when its head is not there."""
        return received.find(self._head)

    def whole_blocks(self, received: bytes | bytearray, start: int) -> int:
        """How many servos, from the first on, are complete, in order and have a good CRC.

        CRCs are cumulative, so behind a damaged block nothing can be trusted.

        Args:
            received: the bytes.
            start: what :meth:`find` returned, ≥ 0.
        """
        words_of, table = self._words.unpack_from, WORD_TABLE
        crc = self._head_crc
        begin = start + HEAD_SIZE
        for count, dxl_id in enumerate(self.ids):
            end = begin + self.block_size
            if len(received) < end or received[begin + 1] != dxl_id:
                return count
            for word in words_of(received, begin):
                crc = table[crc ^ word]
            if self._odd:
                crc = crc16(received[end - 3 : end - 2], crc)
            low, high = received[end - 2], received[end - 1]
            if crc != low | high << 8:
                return count
            crc = table[crc ^ (low << 8 | high)]  # the next CRC covers this one too
            begin = end
        return len(self.ids)

    def data(self, received: bytes | bytearray, start: int, index: int) -> tuple[int, bytes]:
        """Error byte and data of servo number ``index``, which must be one of the whole blocks."""
        begin = start + HEAD_SIZE + index * self.block_size
        return received[begin], bytes(received[begin + 2 : begin + self.block_size - 2])


def build(blocks: Sequence[tuple[int, int, bytes]]) -> bytes:
    """The reply that servos with these ``(id, error, data)`` would send together.

    Raises:
        ValueError: data of different sizes.
    """
    sizes = {len(data) for _, _, data in blocks}
    if len(sizes) != 1:
        raise ValueError(f"every servo sends the same number of bytes, not {sorted(sizes)}")
    length = len(blocks) * (sizes.pop() + BLOCK_OVERHEAD) + 1
    frame = bytearray(HEADER + struct.pack("<BHB", BROADCAST_ID, length, STATUS_INSTRUCTION))
    for dxl_id, error, data in blocks:
        frame += bytes([error, dxl_id]) + data
        frame += struct.pack("<H", crc16(frame))
    return bytes(frame)
