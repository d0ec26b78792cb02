"""The CRC of Protocol 2.0: CRC-16/BUYPASS, polynomial 0x8005, start 0, nothing reflected, nothing inverted.

Check value: ``crc16(b"123456789") == 0xFEE8``. Sent low byte first. (``binascii.crc_hqx`` is another polynomial.)

A 16-bit CRC shifts all of its old bits out over two bytes, so ``state' = T[state ^ word]`` with one table of 65,536
entries. That is one look-up per two bytes: the CRC is most of the codec's cost in Python, and this halves it.
"""

from __future__ import annotations

import struct

import numpy as np

POLYNOMIAL = 0x8005


def _byte_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ POLYNOMIAL if crc & 0x8000 else crc << 1
        table.append(crc & 0xFFFF)
    return table


def _word_table(byte_table: list[int]) -> list[int]:
    table = np.array(byte_table, dtype=np.uint16)
    first = np.repeat(table, 256)  # state after the high byte of every word
    low = np.tile(np.arange(256, dtype=np.uint16), 256)
    second: list[int] = ((first << 8) ^ table[(first >> 8) ^ low]).tolist()
    return second


_BYTE = _byte_table()
WORD_TABLE = _word_table(_BYTE)


def crc16(data: bytes | bytearray, state: int = 0) -> int:
    """CRC of ``data``, continuing from ``state``.

    Args:
        data: any length.
        state: CRC of what came before; 0 at the start of a packet.
    """
    size = len(data)
    for word in struct.unpack_from(f">{size >> 1}H", data):
        state = WORD_TABLE[state ^ word]
    if size & 1:
        state = ((state << 8) & 0xFFFF) ^ _BYTE[(state >> 8) ^ data[-1]]
    return state
