"""Protocol 2.0 packets against the e-manual's examples and its rules."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from robotsac_hardware import frames
from robotsac_hardware.crc import crc16
from robotsac_hardware.frames import BROADCAST_ID, Instruction, Status, StatusReader


def hexed(text: str) -> bytes:
    return bytes.fromhex(text)


# What is meant, and the bytes the e-manual gives for it (CRCs recomputed).
REQUESTS = {
    "ping": (frames.ping(1), "FF FF FD 00 01 03 00 01 19 4E"),
    "ping broadcast": (frames.ping(BROADCAST_ID), "FF FF FD 00 FE 03 00 01 31 42"),
    "read": (frames.read(1, 132, 4), "FF FF FD 00 01 07 00 02 84 00 04 00 1D 15"),
    "write": (frames.write(1, 116, (512).to_bytes(4, "little")), "FF FF FD 00 01 09 00 03 74 00 00 02 00 00 CA 89"),
    "reg write": (
        frames.instruction(1, Instruction.REG_WRITE, hexed("68 00 C8 00 00 00")),
        "FF FF FD 00 01 09 00 04 68 00 C8 00 00 00 AE 8E",
    ),
    "action": (frames.instruction(1, Instruction.ACTION), "FF FF FD 00 01 03 00 05 02 CE"),
    "factory reset": (frames.instruction(1, Instruction.FACTORY_RESET, b"\x01"), "FF FF FD 00 01 04 00 06 01 A1 E6"),
    "reboot": (frames.reboot(1), "FF FF FD 00 01 03 00 08 2F 4E"),
    "clear": (
        frames.instruction(1, Instruction.CLEAR, hexed("01 44 58 4C 22")),
        "FF FF FD 00 01 08 00 10 01 44 58 4C 22 B1 DC",
    ),
    "sync read": (frames.sync_read(132, 4, [1, 2]), "FF FF FD 00 FE 09 00 82 84 00 04 00 01 02 CE FA"),
    "fast sync read": (frames.fast_sync_read(132, 4, [3, 7, 4]), "FF FF FD 00 FE 0A 00 8A 84 00 04 00 03 07 04 20 F2"),
    "sync write": (
        frames.sync_write(116, 4, {1: hexed("96 00 00 00"), 2: hexed("AA 00 00 00")}),
        "FF FF FD 00 FE 11 00 83 74 00 04 00 01 96 00 00 00 02 AA 00 00 00 82 87",
    ),
    "bulk read": (
        frames.instruction(BROADCAST_ID, Instruction.BULK_READ, hexed("01 90 00 02 00 02 92 00 01 00")),
        "FF FF FD 00 FE 0D 00 92 01 90 00 02 00 02 92 00 01 00 1A 05",
    ),
    "bulk write": (
        frames.instruction(BROADCAST_ID, Instruction.BULK_WRITE, hexed("01 20 00 02 00 A0 00 02 1F 00 01 00 50")),
        "FF FF FD 00 FE 10 00 93 01 20 00 02 00 A0 00 02 1F 00 01 00 50 B7 68",
    ),
    "stuffed write": (
        frames.write(1, 116, hexed("FF FF FD 00")),
        "FF FF FD 00 01 0A 00 03 74 00 FF FF FD FD 00 21 E7",
    ),
    "stuffed write of FF FF FD FD": (
        frames.write(1, 116, hexed("FF FF FD FD")),
        "FF FF FD 00 01 0A 00 03 74 00 FF FF FD FD FD 2C 65",
    ),
}

STATUSES = {
    "ping": (Status(1, 0, hexed("06 04 26")), "FF FF FD 00 01 07 00 55 00 06 04 26 65 5D"),
    "read": (Status(1, 0, hexed("A6 00 00 00")), "FF FF FD 00 01 08 00 55 00 A6 00 00 00 8C C0"),
    "write": (Status(1, 0, b""), "FF FF FD 00 01 04 00 55 00 A1 0C"),
    "stuffed twice": (
        Status(1, 0, hexed("FF FF FD FF FF FF FF FD 00 00")),
        "FF FF FD 00 01 10 00 55 00 FF FF FD FD FF FF FF FF FD FD 00 00 46 A9",
    ),
}

# Bytes among which header and stuffing patterns are frequent.
nasty_bytes = st.lists(st.sampled_from([0xFF, 0xFD, 0x00, 0x55, 0x01]), max_size=60).map(bytes)
payloads = st.one_of(st.binary(max_size=60), nasty_bytes)
statuses = st.builds(Status, st.integers(0, frames.ID_MAX), st.integers(0, 255), payloads)


def encoded(status: Status) -> bytes:
    return frames.status(status.dxl_id, status.error, status.params)


def test_crc_has_the_published_check_value() -> None:
    assert crc16(b"123456789") == 0xFEE8


@given(st.binary(max_size=80), st.integers(0, 80))
def test_crc_can_be_continued_anywhere(data: bytes, cut: int) -> None:
    assert crc16(data[cut:], crc16(data[:cut])) == crc16(data)


@pytest.mark.parametrize("name", REQUESTS)
def test_request_is_byte_for_byte_the_published_one(name: str) -> None:
    built, published = REQUESTS[name]
    assert built == hexed(published)


@pytest.mark.parametrize("name", STATUSES)
def test_status_is_built_and_read_as_published(name: str) -> None:
    status, published = STATUSES[name]
    assert encoded(status) == hexed(published)
    assert StatusReader().feed(hexed(published)) == [status]


@pytest.mark.parametrize(("dxl_id", "data"), [(253, b""), (255, b""), (-1, b""), (1, bytes(1100))])
def test_impossible_packets_are_refused(dxl_id: int, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"id|length"):
        frames.write(dxl_id, 0, data)


def test_sync_write_refuses_data_of_another_size() -> None:
    with pytest.raises(ValueError, match="id 2: 1 bytes"):
        frames.sync_write(116, 2, {1: b"\0\0", 2: b"\0"})


@given(payloads)
def test_unstuffing_undoes_stuffing(body: bytes) -> None:
    assert frames.unstuff(frames.stuff(body)) == body


@given(payloads)
def test_a_stuffed_body_never_holds_a_header(body: bytes) -> None:
    assert frames.HEADER not in frames.stuff(body)


def test_stuffing_survives_the_payload_that_sdk_unstuffing_loses_a_byte_of() -> None:
    body = hexed("FF FF FD FF FF FD FD")
    assert frames.unstuff(frames.stuff(body)) == body


@given(st.lists(statuses, max_size=4), st.lists(st.integers(1, 9), max_size=20))
def test_statuses_survive_any_cut_of_the_stream(sent: list[Status], cuts: list[int]) -> None:
    stream = b"".join(encoded(status) for status in sent)
    reader, found = StatusReader(), []
    for size in [*cuts, len(stream)]:
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert found == sent
    assert reader.rejected == 0


@given(st.binary(max_size=200))
def test_garbage_neither_crashes_nor_piles_up(garbage: bytes) -> None:
    reader = StatusReader()
    reader.feed(garbage)
    assert reader.pending <= 7 + frames.LENGTH_MAX


@given(nasty_bytes.filter(lambda noise: frames.HEADER not in noise), statuses)
def test_a_status_behind_noise_is_found(noise: bytes, status: Status) -> None:
    # Noise may end in the first bytes of a header, which the real one then completes.
    assert StatusReader().feed(noise + encoded(status))[-1:] == [status]


@given(statuses, statuses, st.integers(1, 10))
def test_a_truncated_status_costs_only_itself(lost: Status, kept: Status, missing: int) -> None:
    assume(encoded(lost)[-missing:] != frames.HEADER[:missing])  # the next header would complete it
    assert StatusReader().feed(encoded(lost)[:-missing] + encoded(kept)) == [kept]


def test_an_absurd_length_does_not_make_the_reader_wait() -> None:
    good = Status(7, 0, b"abc")
    assert StatusReader().feed(frames.HEADER + b"\x01\xff\xff" + encoded(good)) == [good]


def test_the_echo_of_an_instruction_is_passed_over() -> None:
    good = Status(7, 0, b"abc")
    assert StatusReader().feed(frames.read(7, 0, 3) + encoded(good)) == [good]


def test_a_crc_that_completes_a_header_pattern_is_no_header() -> None:
    """Data ending in FF FF with a CRC of FD 00 reads as a header across the CRC, which is not stuffed."""
    generator = random.Random(1)
    for _ in range(2_000_000):
        status = Status(1, 0, generator.randbytes(4) + b"\xff\xff")
        if encoded(status)[-2:] == b"\xfd\x00":
            break
    else:
        pytest.fail("no such status among those tried")
    assert StatusReader().feed(encoded(status)) == [status]


@pytest.mark.parametrize("name", STATUSES)
def test_no_single_bit_flip_changes_what_is_accepted(name: str) -> None:
    _, published = STATUSES[name]
    for bit in range(8 * len(hexed(published))):
        damaged = bytearray(hexed(published))
        damaged[bit // 8] ^= 1 << bit % 8
        assert StatusReader().feed(bytes(damaged)) == [], f"bit {bit}"


def test_bursts_of_damage_are_refused() -> None:
    """A CRC of 16 bits finds every burst of up to 16 bits."""
    generator = random.Random(2)
    good = encoded(Status(1, 0, bytes(range(18))))
    for _ in range(3000):
        start = generator.randrange(7 * 8, 8 * len(good) - 16)
        burst = generator.randrange(1, 1 << 16) << start
        damaged = (int.from_bytes(good, "little") ^ burst).to_bytes(len(good), "little")
        assert StatusReader().feed(damaged) == []
