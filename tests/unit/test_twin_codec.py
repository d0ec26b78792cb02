"""The device's side of the frames, against the golden bytes of the e-manual (CRCs re-computed)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twin_world import instruction

from robotsac_sim.twin.codec import (
    InstructionParser,
    crc16,
    encode_fast_reply,
    encode_status,
    stuff,
    unstuff,
)
from robotsac_sim.twin.protocol import Op

BYTE_NS = 10_000


def parse(hexed: str, parser: InstructionParser | None = None) -> list[tuple[int, int, bytes, bool]]:
    found = (parser or InstructionParser()).push(bytes.fromhex(hexed), 0, BYTE_NS)
    return [(each.id, each.op, each.params, each.intact) for each in found]


GOLDEN_INSTRUCTIONS = [
    ("FF FF FD 00 01 03 00 01 19 4E", 1, Op.PING, ""),
    ("FF FF FD 00 FE 03 00 01 31 42", 254, Op.PING, ""),
    ("FF FF FD 00 01 07 00 02 84 00 04 00 1D 15", 1, Op.READ, "84 00 04 00"),
    ("FF FF FD 00 01 09 00 03 74 00 00 02 00 00 CA 89", 1, Op.WRITE, "74 00 00 02 00 00"),
    ("FF FF FD 00 01 09 00 04 68 00 C8 00 00 00 AE 8E", 1, Op.REG_WRITE, "68 00 C8 00 00 00"),
    ("FF FF FD 00 01 03 00 05 02 CE", 1, Op.ACTION, ""),
    ("FF FF FD 00 01 04 00 06 01 A1 E6", 1, Op.FACTORY_RESET, "01"),
    ("FF FF FD 00 01 03 00 08 2F 4E", 1, Op.REBOOT, ""),
    ("FF FF FD 00 01 08 00 10 01 44 58 4C 22 B1 DC", 1, Op.CLEAR, "01 44 58 4C 22"),
    ("FF FF FD 00 FE 09 00 82 84 00 04 00 01 02 CE FA", 254, Op.SYNC_READ, "84 00 04 00 01 02"),
    (
        "FF FF FD 00 FE 11 00 83 74 00 04 00 01 96 00 00 00 02 AA 00 00 00 82 87",
        254,
        Op.SYNC_WRITE,
        "74 00 04 00 01 96 00 00 00 02 AA 00 00 00",
    ),
    ("FF FF FD 00 FE 0A 00 8A 84 00 04 00 03 07 04 20 F2", 254, Op.FAST_SYNC_READ, "84 00 04 00 03 07 04"),
    (
        "FF FF FD 00 FE 0D 00 92 01 90 00 02 00 02 92 00 01 00 1A 05",
        254,
        Op.BULK_READ,
        "01 90 00 02 00 02 92 00 01 00",
    ),
    (
        "FF FF FD 00 FE 10 00 93 01 20 00 02 00 A0 00 02 1F 00 01 00 50 B7 68",
        254,
        Op.BULK_WRITE,
        "01 20 00 02 00 A0 00 02 1F 00 01 00 50",
    ),
    # Stuffed.
    ("FF FF FD 00 01 0A 00 03 74 00 FF FF FD FD 00 21 E7", 1, Op.WRITE, "74 00 FF FF FD 00"),
    ("FF FF FD 00 01 0A 00 03 74 00 FF FF FD FD FD 2C 65", 1, Op.WRITE, "74 00 FF FF FD FD"),
]


@pytest.mark.parametrize(("frame", "device_id", "op", "params"), GOLDEN_INSTRUCTIONS)
def test_golden_instructions_are_understood(frame: str, device_id: int, op: int, params: str) -> None:
    assert parse(frame) == [(device_id, op, bytes.fromhex(params), True)]


@pytest.mark.parametrize(("frame", "device_id", "op", "params"), GOLDEN_INSTRUCTIONS)
def test_the_tests_own_host_speaks_golden_instructions(frame: str, device_id: int, op: int, params: str) -> None:
    assert instruction(device_id, op, bytes.fromhex(params)) == bytes.fromhex(frame)


@pytest.mark.parametrize(
    ("frame", "device_id", "error", "data"),
    [
        ("FF FF FD 00 01 07 00 55 00 06 04 26 65 5D", 1, 0, "06 04 26"),
        ("FF FF FD 00 01 08 00 55 00 A6 00 00 00 8C C0", 1, 0, "A6 00 00 00"),
        ("FF FF FD 00 01 04 00 55 00 A1 0C", 1, 0, ""),
        (
            "FF FF FD 00 01 10 00 55 00 FF FF FD FD FF FF FF FF FD FD 00 00 46 A9",
            1,
            0,
            "FF FF FD FF FF FF FF FD 00 00",
        ),
    ],
)
def test_golden_statuses_are_sent(frame: str, device_id: int, error: int, data: str) -> None:
    assert encode_status(device_id, error, bytes.fromhex(data)) == bytes.fromhex(frame)


def test_golden_fast_sync_read_reply() -> None:
    blocks = [(0, 3, bytes.fromhex("A6000000")), (0, 7, bytes.fromhex("1F080000")), (0, 4, bytes.fromhex("FF030000"))]
    assert b"".join(encode_fast_reply(blocks, [4, 4, 4])) == bytes.fromhex(
        "FF FF FD 00 FE 19 00 55 00 03 A6 00 00 00 84 08 00 07 1F 08 00 00 16 CA 00 04 FF 03 00 00 D1 9E"
    )


def test_fast_reply_is_not_stuffed_and_its_last_crc_is_the_whole_packets() -> None:
    data = bytes.fromhex("FFFFFD00")
    reply = b"".join(encode_fast_reply([(0, 1, data), (0x80, 2, data)], [4, 4]))
    assert reply.count(b"\xff\xff\xfd\x00") == 3
    assert len(reply) == 8 + 2 * (4 + 4)
    assert crc16(reply[:-2]) == int.from_bytes(reply[-2:], "little")


def test_crc_check_value() -> None:
    assert crc16(b"123456789") == 0xFEE8


@given(st.binary(max_size=64), st.integers(0, 64))
def test_crc_goes_on_where_it_stopped(data: bytes, cut: int) -> None:
    assert crc16(data[cut:], crc16(data[:cut])) == crc16(data)


@given(st.lists(st.sampled_from([0x00, 0xFD, 0xFE, 0xFF]), max_size=40).map(bytes))
def test_stuffing_hides_every_header_and_comes_undone(body: bytes) -> None:
    stuffed = stuff(body)
    assert b"\xff\xff\xfd\x00" not in stuffed
    assert unstuff(stuffed) == body


@given(st.lists(st.sampled_from([0x00, 0x01, 0xFD, 0xFF]), max_size=30).map(bytes), st.data())
def test_any_split_of_any_parameters_is_understood(params: bytes, data: st.DataObject) -> None:
    frame = instruction(7, Op.WRITE, params)
    cut = data.draw(st.integers(0, len(frame)))
    parser = InstructionParser()
    found = parser.push(frame[:cut], 0, BYTE_NS) + parser.push(frame[cut:], cut * BYTE_NS + 1_000_000, BYTE_NS)
    assert [(each.id, each.op, each.params, each.intact) for each in found] == [(7, Op.WRITE, params, True)]


@given(st.binary(max_size=200))
def test_noise_never_hides_the_packet_after_a_pause(noise: bytes) -> None:
    parser = InstructionParser()
    parser.push(noise, 0, BYTE_NS)
    found = parser.push(instruction(1, Op.PING), len(noise) * BYTE_NS + 2_000_000, BYTE_NS)
    assert [(each.id, each.op) for each in found[-1:]] == [(1, Op.PING)]


def test_a_gap_above_1_5_ms_throws_the_packet_away() -> None:
    frame = instruction(1, Op.PING)
    for gap_ns, count in ((1_500_000, 1), (1_500_001, 0)):
        parser = InstructionParser()
        parser.push(frame[:5], 0, BYTE_NS)
        assert len(parser.push(frame[5:], 5 * BYTE_NS + gap_ns, BYTE_NS)) == count
        assert parser.gaps == 1 - count


def test_a_packet_ends_with_its_last_byte() -> None:
    frame = instruction(1, Op.PING)
    (found,) = InstructionParser().push(b"\x00\x01" + frame + b"\x42\x42\x42", 1000, BYTE_NS)
    assert found.start_ns == 1000 + 2 * BYTE_NS
    assert found.t_ns == 1000 + (2 + len(frame)) * BYTE_NS


def test_a_broken_off_packet_gives_way_to_the_next_header() -> None:
    frame = instruction(1, Op.WRITE, bytes(20))
    assert parse((frame[:15] + instruction(2, Op.PING)).hex()) == [(2, Op.PING, b"", True)]


def test_a_wrong_crc_is_reported_as_damage() -> None:
    frame = bytearray(instruction(1, Op.PING))
    frame[-1] ^= 1
    assert [(each[0], each[3]) for each in parse(frame.hex())] == [(1, False)]


def test_an_unstuffed_header_in_the_data_starts_a_hunt() -> None:
    """The official SDK sends FF FF FD in a write as it is; firmware takes it for a new header."""
    raw = bytes.fromhex("FF FF FD 00 01 09 00 03 74 00 FF FF FD 00")
    parser = InstructionParser()
    assert parser.push(raw + crc16(raw).to_bytes(2, "little"), 0, BYTE_NS) == []
    assert parser.resyncs == 1
    (found,) = parser.push(instruction(1, Op.PING), 10_000_000, BYTE_NS)
    assert found.op == Op.PING


def test_a_length_that_no_packet_has_is_not_waited_for() -> None:
    parser = InstructionParser()
    assert parser.push(bytes.fromhex("FF FF FD 00 01 FF FF"), 0, BYTE_NS) == []
    assert [each.op for each in parser.push(instruction(1, Op.PING), 7 * BYTE_NS, BYTE_NS)] == [Op.PING]
