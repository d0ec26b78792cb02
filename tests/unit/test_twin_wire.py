"""Two at once on one wire, in every order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twin_world import Status, statuses

from robotsac_sim.twin.codec import encode_status
from robotsac_sim.twin.wire import Wire

BYTE_NS = 1000
FRAME = encode_status(1, 0, b"\x11\x22\x33")
LONG = encode_status(2, 0, bytes(range(40)))


@given(st.integers(0, 60 * BYTE_NS), st.integers(0, 60 * BYTE_NS))
def test_overlapping_replies_never_both_arrive_and_apart_they_do(first_ns: int, second_ns: int) -> None:
    wire = Wire()
    wire.device_sends(LONG, first_ns, BYTE_NS)
    wire.device_sends(FRAME, second_ns, BYTE_NS)
    found = statuses(wire.take(10**9))
    apart = second_ns >= first_ns + len(LONG) * BYTE_NS or first_ns >= second_ns + len(FRAME) * BYTE_NS
    assert Status(1, 0, b"\x11\x22\x33") in found if apart else found == []
    assert (len(found) == 2) == apart
    assert (wire.collisions == 0) == apart


@given(st.integers(0, 40 * BYTE_NS), st.integers(0, 40 * BYTE_NS))
def test_the_host_and_a_reply_garble_each_other_exactly_where_they_overlap(host_ns: int, reply_ns: int) -> None:
    wire = Wire()
    wire.device_sends(FRAME, reply_ns, BYTE_NS)
    heard, start_ns = wire.host_sends(LONG, host_ns, BYTE_NS)
    assert start_ns == host_ns
    apart = host_ns >= reply_ns + len(FRAME) * BYTE_NS or reply_ns >= host_ns + len(LONG) * BYTE_NS
    assert (heard == LONG) == apart
    assert (wire.take(10**9) == FRAME) == apart


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=20))
def test_bytes_are_taken_once_whatever_the_steps(steps: list[int]) -> None:
    wire = Wire()
    end_ns = wire.device_sends(FRAME, 500, BYTE_NS)
    taken, now_ns = b"", 0
    for step in steps:
        now_ns += step
        taken += wire.take(now_ns)
        due_ns = wire.next_byte_ns()
        assert due_ns is None or due_ns > now_ns
    assert taken + wire.take(end_ns) == FRAME
    assert wire.next_byte_ns() is None
    assert wire.next_burst_ns() is None


def test_the_hosts_writes_queue_behind_each_other() -> None:
    wire = Wire()
    assert wire.host_sends(b"123", 100, BYTE_NS)[1] == 100
    assert wire.host_sends(b"45", 200, BYTE_NS)[1] == 3100
    assert wire.host_free_ns == 5100
