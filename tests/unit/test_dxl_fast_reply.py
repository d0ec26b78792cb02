"""The joint reply to a fast sync read, and the round that is built on it."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robotsac_hardware import control_table as table
from robotsac_hardware import fast_reply, frames
from robotsac_hardware.fast_reply import FastReply
from robotsac_hardware.feedback import BLOCK_SIZE, FastReader, GoalWriter, PlainReader, Rows

IDS = (3, 7, 4)
PUBLISHED = bytes.fromhex(
    "FF FF FD 00 FE 19 00 55 00 03 A6 00 00 00 84 08 00 07 1F 08 00 00 16 CA 00 04 FF 03 00 00 D1 9E"
)
BLOCKS = [(3, 0, b"\xa6\0\0\0"), (7, 0, b"\x1f\x08\0\0"), (4, 0, b"\xff\x03\0\0")]


class Script:
    """A port that hands out prepared pieces: for bytes that no healthy bus would send."""

    name = "script"

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def write(self, data: bytes) -> None: ...

    def read(self, size_max: int, deadline_ns: int) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if len(piece) > size_max:
            self._pieces.insert(0, piece[size_max:])
        return piece[:size_max]

    def discard_input(self) -> None: ...

    def close(self) -> None: ...


def block(position: int, tick: int = 5) -> bytes:
    return struct.pack("<hiiHHBBBB", -1, -3, position, tick, 120, 35, 0, 0, 0)


def reply(positions: dict[int, int]) -> bytes:
    return fast_reply.build([(dxl_id, 0, block(position)) for dxl_id, position in positions.items()])


def test_reply_is_byte_for_byte_the_published_one() -> None:
    assert fast_reply.build(BLOCKS) == PUBLISHED


def test_published_reply_is_read() -> None:
    expected = FastReply(IDS, 4)
    assert expected.total_size == len(PUBLISHED)
    assert expected.find(PUBLISHED) == 0
    assert expected.whole_blocks(PUBLISHED, 0) == 3
    assert [expected.data(PUBLISHED, 0, k) for k in range(3)] == [(error, data) for _, error, data in BLOCKS]


@given(st.integers(1, 6), st.integers(1, 20), st.randoms(use_true_random=False))
def test_any_data_comes_through_unstuffed(n: int, size: int, generator: random.Random) -> None:
    """FF FF FD 00 inside the data is data: these replies are not stuffed."""
    choices = [0xFF, 0xFD, 0x00, 0x55]
    sent = [(k + 1, generator.randrange(256), bytes(generator.choices(choices, k=size))) for k in range(n)]
    received, expected = fast_reply.build(sent), FastReply(range(1, n + 1), size)
    assert expected.whole_blocks(received, 0) == n
    assert [expected.data(received, 0, k) for k in range(n)] == [(error, data) for _, error, data in sent]


@pytest.mark.parametrize("length", range(len(PUBLISHED)))
def test_complete_devices_are_salvaged_from_a_short_reply(length: int) -> None:
    expected = FastReply(IDS, 4)
    assert expected.whole_blocks(PUBLISHED[:length], 0) == max(0, length - fast_reply.HEAD_SIZE) // expected.block_size


@pytest.mark.parametrize("size", [4, 5])
def test_no_single_bit_flip_is_accepted(size: int) -> None:
    """Damage in block k loses k and what is behind it, never what was before it."""
    good = fast_reply.build([(dxl_id, 0, bytes([dxl_id] * size)) for dxl_id in IDS])
    expected = FastReply(IDS, size)
    for bit in range(8 * len(good)):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        start = expected.find(damaged)
        if bit // 8 < fast_reply.HEAD_SIZE:
            assert start == -1
        else:
            assert expected.whole_blocks(damaged, start) == (bit // 8 - fast_reply.HEAD_SIZE) // expected.block_size


def test_devices_in_another_order_are_not_accepted() -> None:
    assert FastReply((3, 4, 7), 4).whole_blocks(PUBLISHED, 0) == 1


def test_an_intermediate_crc_counts_even_when_the_last_one_is_good() -> None:
    """Damage on the wire that the last device heard too leaves the last CRC right: only the damaged block's own shows it."""
    damaged = bytearray(PUBLISHED[:-2])
    damaged[10] ^= 0x01
    damaged += struct.pack("<H", frames.crc16(damaged))
    assert FastReply(IDS, 4).whole_blocks(damaged, 0) == 0


@pytest.mark.parametrize("pieces", [1, 2, 7, 1000])
def test_fast_reader_takes_a_reply_in_any_number_of_pieces(pieces: int) -> None:
    whole, rows = reply({3: 30, 7: 70, 4: 40}), Rows(IDS)
    step = max(1, len(whole) // pieces)
    port = Script(*(whole[at : at + step] for at in range(0, len(whole), step)))
    assert FastReader(IDS, 224).receive(port, 0, rows) == len(whole)
    assert rows.complete()
    assert rows.column(table.PRESENT_POSITION).tolist() == [30, 70, 40]
    assert rows.column(table.PRESENT_CURRENT).tolist() == [-1, -1, -1]
    assert rows.column(table.PRESENT_VELOCITY).tolist() == [-3, -3, -3]


def test_fast_reader_finds_the_reply_behind_noise() -> None:
    rows = Rows(IDS)
    FastReader(IDS, 224).receive(Script(b"\xff\xff\xfdnoise", reply({3: 30, 7: 70, 4: 40})), 0, rows)
    assert rows.complete()


def test_fast_reader_gives_up_on_noise_without_waiting_for_more() -> None:
    port, rows = Script(b"\xaa" * 100, b"\xaa" * 100), Rows(IDS)
    assert FastReader(IDS, 224).receive(port, 0, rows) == 8 + 3 * (BLOCK_SIZE + 4)
    assert rows.empty()


def test_fast_reader_keeps_the_old_values_of_joints_that_are_missing() -> None:
    reader, rows = FastReader(IDS, 224), Rows(IDS)
    reader.receive(Script(reply({3: 30, 7: 70, 4: 40})), 0, rows)
    rows.begin()
    reader.receive(Script(reply({3: 31, 7: 71, 4: 41})[: 8 + 22 + 5]), 0, rows)
    assert rows.fresh.tolist() == [True, False, False]
    assert rows.column(table.PRESENT_POSITION).tolist() == [31, 70, 40]


def test_plain_reader_takes_stuffed_statuses_in_any_order_and_marks_who_is_missing() -> None:
    """Current −1 and a velocity whose low byte is FD is how a joint at rest reads: FF FF FD, so it is stuffed."""
    rows = Rows(IDS)
    sent = b"".join(frames.status(dxl_id, 0, block(position)) for dxl_id, position in ((4, 40), (3, 30)))
    assert b"\xff\xff\xfd\xfd" in sent
    assert PlainReader(IDS, 224).receive(Script(sent[:33], sent[33:]), 0, rows) == len(sent)
    assert rows.fresh.tolist() == [True, False, True]
    assert rows.column(table.PRESENT_POSITION).tolist() == [30, 0, 40]


def test_plain_reader_does_not_take_an_answer_of_another_length() -> None:
    rows = Rows(IDS)
    PlainReader(IDS, 224).receive(Script(frames.status(3, 7), frames.status(3, 0, block(30))), 0, rows)
    assert rows.fresh.tolist() == [True, False, False]


@given(st.lists(st.integers(-2047, 2047), min_size=3, max_size=3))
def test_goal_writer_sends_what_the_general_builder_would(goal: list[int]) -> None:
    request = frames.fast_sync_read(224, BLOCK_SIZE, IDS)
    values = {dxl_id: struct.pack("<h", value) for dxl_id, value in zip(IDS, goal, strict=True)}
    expected = frames.sync_write(table.GOAL_CURRENT.address, 2, values) + request
    assert GoalWriter(IDS, request).frame(np.array(goal, dtype=np.float64)) == expected


def test_goal_writer_needs_no_stuffing_for_any_id_and_goal() -> None:
    ids = (252, 251, 0)
    for goal in (-1, -3, -513, 255, -769):
        request = frames.fast_sync_read(224, BLOCK_SIZE, ids)
        expected = frames.sync_write(102, 2, dict.fromkeys(ids, struct.pack("<h", goal))) + request
        assert GoalWriter(ids, request).frame(np.full(3, float(goal))) == expected
