"""The wire and the conversation: who hears, who answers, in which order, when."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin_world import MS, XM430, Bench, Status, instruction, statuses, word

from robotsac.errors import BusLost, ConfigError
from robotsac_sim.twin.assumed import Assumptions
from robotsac_sim.twin.bus import Overlap
from robotsac_sim.twin.codec import crc16
from robotsac_sim.twin.faults import DropReply
from robotsac_sim.twin.models import ServoModel
from robotsac_sim.twin.protocol import BROADCAST_ID, CLEAR_MULTI_TURN, ErrorCode, Op
from robotsac_sim.twin.table import Reg

THREE = (XM430, XM430, XM430)


def fast_blocks(reply: bytes, size: int) -> list[Status]:
    """The blocks of a fast reply whose running CRC is right."""
    assert reply[:5] == b"\xff\xff\xfd\x00\xfe"
    assert reply[7] == 0x55
    found, at = [], 8
    while at + size + 4 <= len(reply):
        end = at + 2 + size
        assert crc16(reply[:end]) == int.from_bytes(reply[end : end + 2], "little")
        found.append(Status(reply[at + 1], reply[at], reply[at + 2 : end]))
        at = end + 2
    return found


# -- who answers


def test_only_the_one_addressed_answers() -> None:
    bench = Bench(*THREE)
    assert [each.id for each in bench.ask(2, Op.PING)] == [2]
    assert bench.ask(9, Op.PING) == []


def test_broadcast_ping_is_answered_in_rising_id_order() -> None:
    bench = Bench(*THREE, ids=(30, 2, 7))
    assert [each.id for each in bench.ask(BROADCAST_ID, Op.PING)] == [2, 7, 30]


def test_broadcast_read_is_ignored() -> None:
    bench = Bench(*THREE)
    assert bench.raw(instruction(BROADCAST_ID, Op.READ, word(132) + word(4))) == b""


@pytest.mark.parametrize(
    ("op", "params"),
    [
        (Op.WRITE, word(Reg.LED) + b"\x01"),
        (Op.SYNC_WRITE, word(Reg.LED) + word(1) + bytes((1, 1, 2, 1, 3, 1))),
        (Op.BULK_WRITE, b"".join(bytes((k,)) + word(Reg.LED) + word(1) + b"\x01" for k in (1, 2, 3))),
    ],
)
def test_writes_to_all_are_obeyed_in_silence(op: int, params: bytes) -> None:
    bench = Bench(*THREE)
    assert bench.raw(instruction(BROADCAST_ID, op, params)) == b""
    assert [bench.read(Reg.LED, device_id=k) for k in (1, 2, 3)] == [1, 1, 1]


def test_broadcast_action_and_reboot_are_obeyed_in_silence() -> None:
    bench = Bench(*THREE)
    for k in (1, 2):
        bench.one(k, Op.REG_WRITE, word(Reg.LED) + b"\x01")
    assert bench.raw(instruction(BROADCAST_ID, Op.ACTION)) == b""
    assert [bench.read(Reg.LED, device_id=k) for k in (1, 2, 3)] == [1, 1, 0]
    assert bench.raw(instruction(BROADCAST_ID, Op.REBOOT)) == b""
    assert bench.ask(BROADCAST_ID, Op.PING) == []
    bench.sleep(400)
    assert len(bench.ask(BROADCAST_ID, Op.PING)) == 3


def test_broadcast_factory_reset_of_everything_is_refused() -> None:
    bench = Bench(*THREE)
    assert bench.raw(instruction(BROADCAST_ID, Op.FACTORY_RESET, b"\xff"), wait_ms=1500) == b""
    assert len(bench.ask(BROADCAST_ID, Op.PING)) == 3


def test_sync_write_errors_are_silent_and_only_those_count() -> None:
    bench = Bench(*THREE)
    bench.sync_write(Reg.GOAL_CURRENT, {1: 100, 2: 5000, 3: 300})
    assert [bench.read(Reg.GOAL_CURRENT, device_id=k) for k in (1, 2, 3)] == [100, 1193, 300]
    assert bench.bus.counters.refused_writes == 1


@pytest.mark.parametrize("level", [0, 1, 2])
def test_status_return_level(level: int) -> None:
    bench = Bench()
    bench.set(status_return_level=level)
    assert len(bench.ask(1, Op.PING)) == 1
    assert len(bench.ask(1, Op.READ, word(Reg.LED) + word(1))) == (level >= 1)
    assert len(bench.ask(1, Op.WRITE, word(Reg.LED) + b"\x01")) == (level >= 2)


def test_the_secondary_id_is_obeyed_in_silence() -> None:
    bench = Bench(XM430, XM430, presets={Reg.SECONDARY_ID: 50})
    assert bench.raw(instruction(50, Op.WRITE, word(Reg.LED) + b"\x01")) == b""
    assert bench.raw(instruction(50, Op.PING)) == b""
    assert [bench.read(Reg.LED, device_id=k) for k in (1, 2)] == [1, 1]


def test_a_new_id_answers_from_the_next_packet_on() -> None:
    bench = Bench()
    assert bench.one(1, Op.WRITE, word(Reg.ID) + b"\x09") == Status(1, 0, b"")
    assert bench.ask(1, Op.PING) == []
    assert bench.one(9, Op.PING).id == 9


def test_a_new_baud_rate_holds_from_the_next_packet_on() -> None:
    bench = Bench(baud=57_600)
    assert bench.one(1, Op.WRITE, word(Reg.BAUD_RATE) + b"\x05", wait_ms=20).error == 0
    assert bench.raw(instruction(1, Op.PING)) == b""
    bench.bus.host_baud = 3_000_000
    assert bench.one(1, Op.PING).error == 0


@pytest.mark.parametrize(("baud", "heard"), [(1_000_000, True), (1_029_000, True), (1_031_000, False), (57_600, False)])
def test_a_wrong_baud_rate_is_silence(baud: int, heard: bool) -> None:
    bench = Bench()
    bench.bus.host_baud = baud
    assert bool(bench.ask(1, Op.PING)) == heard


def test_a_damaged_packet_to_a_servo_is_answered_with_a_crc_error() -> None:
    bench = Bench()
    frame = bytearray(instruction(1, Op.WRITE, word(Reg.LED) + b"\x01"))
    frame[-1] ^= 0x10
    assert statuses(bench.raw(bytes(frame))) == [Status(1, ErrorCode.CRC, b"")]
    assert bench.read(Reg.LED) == 0
    assert bench.bus.counters.crc_errors == 1


# -- reads of many


def test_sync_read_answers_in_listed_order() -> None:
    bench = Bench(*THREE)
    found = bench.ask(BROADCAST_ID, Op.SYNC_READ, word(Reg.ID) + word(1) + bytes((3, 1, 2)))
    assert found == [Status(3, 0, b"\x03"), Status(1, 0, b"\x01"), Status(2, 0, b"\x02")]


def test_bulk_read_gives_each_its_own_block() -> None:
    bench = Bench(*THREE)
    params = b"\x02" + word(Reg.ID) + word(1) + b"\x01" + word(Reg.CURRENT_LIMIT) + word(2)
    assert bench.ask(BROADCAST_ID, Op.BULK_READ, params) == [Status(2, 0, b"\x02"), Status(1, 0, word(1193))]


def test_bulk_read_that_names_an_id_twice_is_ignored() -> None:
    bench = Bench(*THREE)
    assert bench.ask(BROADCAST_ID, Op.BULK_READ, (b"\x02" + word(Reg.ID) + word(1)) * 2) == []


@pytest.mark.parametrize("breaks", [True, False])
def test_a_missing_device_breaks_the_chain_or_not(breaks: bool) -> None:
    bench = Bench(*THREE, assumed=Assumptions(missing_breaks_chain=breaks))
    plain = bench.ask(BROADCAST_ID, Op.SYNC_READ, word(Reg.ID) + word(1) + bytes((1, 9, 3)))
    assert [each.id for each in plain] == ([1] if breaks else [1, 3])
    fast = bench.raw(instruction(BROADCAST_ID, Op.FAST_SYNC_READ, word(Reg.ID) + word(1) + bytes((1, 9, 3))))
    assert [each.id for each in fast_blocks(fast, 1)] == ([1] if breaks else [1, 3])
    # The first device declared the length for all three.
    assert int.from_bytes(fast[5:7], "little") == 3 * (1 + 4) + 1


def test_fast_sync_read_is_one_frame_from_all() -> None:
    bench = Bench(*THREE)
    bench.servos[1].raise_fault(8, 0)
    reply = bench.raw(instruction(BROADCAST_ID, Op.FAST_SYNC_READ, word(Reg.ID) + word(1) + bytes((3, 2, 1))))
    assert len(reply) == 8 + 3 * (1 + 4)
    assert fast_blocks(reply, 1) == [Status(3, 0, b"\x03"), Status(2, 0x80, b"\x02"), Status(1, 0, b"\x01")]


def test_fast_bulk_read_is_one_frame_with_blocks_of_their_own_size() -> None:
    bench = Bench(*THREE)
    params = b"\x02" + word(Reg.ID) + word(1) + b"\x01" + word(Reg.CURRENT_LIMIT) + word(2)
    reply = bench.raw(instruction(BROADCAST_ID, Op.FAST_BULK_READ, params))
    assert reply[8:11] == b"\x00\x02\x02"
    assert reply[13:17] == b"\x00\x01" + word(1193)
    assert crc16(reply[:-2]) == int.from_bytes(reply[-2:], "little")
    assert len(reply) == 8 + (1 + 4) + (2 + 4)


def test_a_fast_read_that_one_refuses_keeps_its_length() -> None:
    bench = Bench(XM430)
    reply = bench.raw(instruction(BROADCAST_ID, Op.FAST_SYNC_READ, word(14) + word(2) + bytes((1,))))
    assert fast_blocks(reply, 2) == [Status(1, ErrorCode.ACCESS, b"\0\0")]


@pytest.mark.parametrize("size", [0x7FFB, 0x7FFC, 0x8000, 0xFFFF])
def test_a_fast_read_longer_than_a_packet_can_be_is_not_answered(size: int) -> None:
    """The joint reply of two devices declares 2 (4 + size) + 1."""
    bench = Bench(XM430, XM430)
    asked = instruction(BROADCAST_ID, Op.FAST_SYNC_READ, word(0) + word(size) + bytes((1, 2)))
    reply = bench.raw(asked, wait_ms=15_000)
    assert (reply[5:7] == b"\xff\xff") if size == 0x7FFB else reply == b""
    assert [each.id for each in bench.ask(1, Op.PING)] == [1]


def test_old_firmware_knows_no_fast_read() -> None:
    old = ServoModel(
        name="XM430-W350",
        number=1020,
        firmware=44,
        current_limit=1193,
        velocity_limit=200,
        motor=XM430.motor,
        thermal_k_w=10.0,
        thermal_s=300.0,
    )
    bench = Bench(old)
    assert bench.raw(instruction(BROADCAST_ID, Op.FAST_SYNC_READ, word(Reg.ID) + word(1) + b"\x01")) == b""


def test_status_data_that_looks_like_a_header_is_stuffed() -> None:
    bench = Bench()
    for k, value in enumerate((0xFF, 0xFF, 0xFD, 0x00)):
        assert bench.one(1, Op.WRITE, word(224 + k) + bytes((value,))).error == 0
    raw = bench.raw(instruction(1, Op.READ, word(224) + word(4)))
    assert b"\xff\xff\xfd\xfd\x00" in raw
    assert statuses(raw) == [Status(1, 0, b"\xff\xff\xfd\x00")]


# -- time


@pytest.mark.parametrize("baud", [57_600, 1_000_000, 3_000_000])
@pytest.mark.parametrize("delay", [0, 250])
def test_reply_time_is_request_delay_turnaround_and_bytes(baud: int, delay: int) -> None:
    assumed = Assumptions(turnaround_ns=30_000)
    bench = Bench(baud=baud, presets={Reg.RETURN_DELAY_TIME: delay}, assumed=assumed)
    request = instruction(1, Op.PING)
    bench.port.write(request)
    start_ns = bench.clock.now_ns()
    reply = bench.port.read(100, start_ns + 50 * MS)
    assert len(reply) == 14
    byte_ns = 10e9 / baud
    expected = len(request) * byte_ns + delay * 2_000 + 30_000 + len(reply) * byte_ns
    assert bench.clock.now_ns() - start_ns == pytest.approx(expected, rel=0.001)


def test_bytes_come_one_after_the_other() -> None:
    bench = Bench(baud=57_600)
    bench.bus.feed(instruction(1, Op.PING), 0)
    counts = []
    for t_us in range(0, 6000, 50):
        bench.bus.advance(t_us * 1000)
        counts.append(len(bench.bus.take(t_us * 1000)))
    assert sum(counts) == 14
    assert max(counts) == 1


def test_next_byte_tells_when_to_come_back() -> None:
    bench = Bench()
    bench.bus.feed(instruction(1, Op.PING), 0)
    assert bench.bus.next_byte_ns() is None
    due_ns = bench.bus.next_event_ns()
    assert due_ns == 100_000
    bench.bus.advance(due_ns)
    first_ns = bench.bus.next_byte_ns()
    assert first_ns == 100_000 + 20_000 + 10_000
    assert bench.bus.take(first_ns - 1) == b""
    assert len(bench.bus.take(first_ns)) == 1


@pytest.mark.parametrize("byte_by_byte", [True, False])
def test_the_port_brings_the_same_bytes_in_either_way(byte_by_byte: bool) -> None:
    bench = Bench(*THREE)
    bench.port._whole_bursts = not byte_by_byte
    assert len(bench.ask(BROADCAST_ID, Op.PING)) == 3


def test_a_read_that_brings_nothing_sleeps_to_its_deadline() -> None:
    bench = Bench()
    assert bench.port.read(10, 7 * MS) == b""
    assert bench.clock.now_ns() == 7 * MS


def test_a_read_returns_no_more_than_asked_and_keeps_the_rest() -> None:
    bench = Bench()
    bench.port.write(instruction(1, Op.PING))
    first = bench.port.read(5, MS)
    assert len(first) == 5
    assert len(bench.port.read(100, 2 * MS)) == 9


def test_discarded_input_is_gone() -> None:
    bench = Bench()
    bench.port.write(instruction(1, Op.PING))
    bench.sleep(5)
    bench.port.discard_input()
    assert bench.port.read(100, bench.clock.now_ns() + MS) == b""


def test_a_closed_port_is_lost() -> None:
    bench = Bench()
    bench.port.close()
    bench.port.close()
    with pytest.raises(BusLost):
        bench.port.write(b"\0")


def test_a_request_in_pieces_is_heard_unless_the_pause_is_too_long() -> None:
    frame = instruction(1, Op.PING)
    for pause_ms, heard in ((1.4, True), (1.6, False)):
        bench = Bench()
        bench.port.write(frame[:6])
        bench.sleep(0.06 + pause_ms)
        assert bool(statuses(bench.raw(frame[6:]))) == heard


# -- two at once


def test_two_servos_with_one_id_never_give_a_clean_answer() -> None:
    bench = Bench(XM430, XM430, ids=(4, 4))
    assert bench.raw(instruction(4, Op.PING)) != b""
    assert bench.ask(4, Op.PING) == []
    assert bench.ask(BROADCAST_ID, Op.PING) == []
    reply = bench.raw(instruction(BROADCAST_ID, Op.FAST_SYNC_READ, word(Reg.ID) + word(1) + b"\x04"))
    assert crc16(reply[:-2]) != int.from_bytes(reply[-2:], "little")


def test_speaking_into_a_reply_garbles_both() -> None:
    bench = Bench()
    bench.port.write(instruction(1, Op.PING))
    bench.sleep(0.15)
    assert bench.ask(1, Op.PING) == []
    assert bench.bus.wire.collisions == 1
    assert len(bench.ask(1, Op.PING)) == 1


def test_two_requests_in_one_write_collide_with_the_first_answer() -> None:
    assert statuses(Bench().raw(instruction(1, Op.PING) * 2)) == []


def test_a_sync_write_and_a_read_behind_it_do_not_collide() -> None:
    bench = Bench(*THREE)
    train = instruction(BROADCAST_ID, Op.SYNC_WRITE, word(Reg.LED) + word(1) + bytes((1, 1, 2, 1)))
    train += instruction(BROADCAST_ID, Op.FAST_SYNC_READ, word(Reg.LED) + word(1) + bytes((1, 2, 3)))
    assert [each.data for each in fast_blocks(bench.raw(train), 1)] == [b"\x01", b"\x01", b"\x00"]


def test_superseded_replies_are_lost_and_the_newest_request_is_answered() -> None:
    bench = Bench(XM430, XM430, overlap=Overlap.SUPERSEDE)
    stream = bench.raw(instruction(1, Op.PING) + instruction(2, Op.PING))
    assert [each.id for each in statuses(stream)] == [2]
    bench.port.write(instruction(1, Op.PING))
    bench.sleep(0.15)
    assert [each.id for each in bench.ask(2, Op.PING)] == [2]
    assert bench.bus.counters.superseded == 2


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
@settings(max_examples=50, deadline=None)
def test_no_bytes_whatever_upset_the_bus(chunks: list[bytes]) -> None:
    bench = Bench(XM430, XM430)
    for chunk in chunks:
        bench.port.write(chunk)
        bench.sleep(0.3)
    bench.sleep(5)
    bench.port.discard_input()
    assert len(bench.ask(1, Op.PING)) == 1


@given(
    st.sampled_from(list(Op)),
    st.sampled_from([1, 2, 50, BROADCAST_ID]),
    st.binary(max_size=30) | st.just(CLEAR_MULTI_TURN),
)
@settings(max_examples=200, deadline=None)
def test_no_instruction_whatever_upsets_a_servo(op: int, device_id: int, params: bytes) -> None:
    bench = Bench(XM430, XM430)
    bench.raw(instruction(device_id, op, params))
    assert {each.error & 0x7F for each in bench.ask(1, Op.PING)} <= set(ErrorCode)


def test_faults_are_refused_unless_asked_for() -> None:
    with pytest.raises(ConfigError, match="allow_faults"):
        Bench().bus.inject(DropReply())
