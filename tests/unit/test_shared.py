"""Shared blocks and rings, with real processes that are spawned and killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import numpy as np
import pytest
from link_world import DTYPE, some_records

from robotsac.errors import StorageError
from robotsac.records import record_dtype
from robotsac.shared import FOLDER, RecordRing, SharedBlock

FIELDS = ("x", "y")
SPAWN = multiprocessing.get_context("spawn")
PATIENCE_S = 120


@pytest.fixture
def block() -> Iterator[SharedBlock]:
    block = SharedBlock.create(FIELDS)
    yield block
    block.close()
    block.unlink()


@pytest.fixture
def ring() -> Iterator[RecordRing]:
    ring = RecordRing.create(DTYPE, 4)
    yield ring
    ring.close()
    ring.unlink()


def in_child(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a Python process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_a_block_holds_named_64_bit_integers(block: SharedBlock) -> None:
    block["x"] = -(2**63)
    block["y"] = np.int64(2**63 - 1)
    assert block.snapshot() == {"x": -(2**63), "y": 2**63 - 1}


def test_a_field_that_is_not_there_or_does_not_fit_is_an_error(block: SharedBlock) -> None:
    with pytest.raises(KeyError):
        block["z"] = 1
    with pytest.raises(ValueError, match="invalid value"):
        block["x"] = 2**63


def test_a_block_is_attached_only_with_the_fields_it_was_made_with(block: SharedBlock) -> None:
    other = SharedBlock.attach(block.name, FIELDS)
    other["x"] = 5
    assert block["x"] == 5
    other.close()
    for fields in (("y", "x"), ("x",), ("x", "y", "z")):
        with pytest.raises(StorageError, match="does not have the fields"):
            SharedBlock.attach(block.name, fields)


def test_a_name_that_is_gone_or_strange_is_refused(block: SharedBlock) -> None:
    name = block.name
    block.unlink()
    block.unlink()
    with pytest.raises(StorageError, match="not there"):
        SharedBlock.attach(name, FIELDS)
    with pytest.raises(ValueError, match="not the name"):
        SharedBlock.attach("../etc/passwd", FIELDS)


def test_closing_twice_is_harmless(ring: RecordRing, block: SharedBlock) -> None:
    for part in (ring, block):
        part.close()
        part.close()


def test_a_process_that_attaches_and_exits_takes_nothing_away(block: SharedBlock) -> None:
    code = """
        import sys
        from robotsac.shared import SharedBlock
        block = SharedBlock.attach(sys.argv[1], ("x", "y"))
        block["x"] += 1
    """
    for expected in (1, 2):
        child = in_child(code, block.name)
        assert (child.returncode, child.stderr) == (0, "")
        assert block["x"] == expected


def _push_until_told(name: str, block_name: str) -> None:
    ring, block = RecordRing.attach(name, DTYPE), SharedBlock.attach(block_name, FIELDS)
    seq = 0
    while not block["y"]:
        if ring.push(some_records(seq, 1)[0]):
            seq += 1
            block["x"] = seq


def _take_for_ever(name: str) -> None:
    ring = RecordRing.attach(name, DTYPE)
    while True:
        ring.peek(3)  # takes nothing away


def test_a_consumer_killed_and_replaced_goes_on_where_the_head_stood(block: SharedBlock) -> None:
    ring = RecordRing.create(DTYPE, 64)
    producer = SPAWN.Process(target=_push_until_told, args=(ring.name, block.name))
    producer.start()
    taken: list[int] = []
    for _ in range(3):
        consumer = SPAWN.Process(target=_take_for_ever, args=(ring.name,))
        consumer.start()
        assert consumer.pid is not None
        os.kill(consumer.pid, signal.SIGKILL)
        consumer.join(PATIENCE_S)
        goal = len(taken) + 2000
        while len(taken) < goal:
            records = ring.peek(50)
            taken += records["seq"].tolist()
            ring.advance(len(records))
    block["y"] = 1
    producer.join(PATIENCE_S)
    assert producer.exitcode == 0
    taken += ring.peek(ring.capacity)["seq"].tolist()
    assert taken == list(range(block["x"]))
    ring.close()
    ring.unlink()


def test_a_segment_whose_processes_were_all_killed_is_swept() -> None:
    code = """
        import os, signal
        from robotsac.shared import SharedBlock
        print(SharedBlock.create(("x",)).name, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    name = in_child(code).stdout.strip()
    assert (FOLDER / name).exists()
    held = SharedBlock.create(FIELDS)
    assert not (FOLDER / name).exists()
    SharedBlock.create(FIELDS).unlink()
    assert (FOLDER / held.name).exists(), "a segment in use must not be swept"
    held.close()
    held.unlink()


def test_a_full_ring_refuses_and_keeps_what_it_has(ring: RecordRing) -> None:
    records = some_records(0, 5)
    assert [ring.push(record) for record in records] == [True] * 4 + [False]
    assert ring.fill == 4
    assert ring.peek(10)["seq"].tolist() == [0, 1, 2, 3]


def test_records_stay_until_they_are_taken_away(ring: RecordRing) -> None:
    for record in some_records(0, 3):
        ring.push(record)
    assert (ring.peek(2) == some_records(0, 2)).all()
    assert ring.peek(2)["seq"].tolist() == [0, 1]
    ring.advance(2)
    assert ring.peek(9)["seq"].tolist() == [2]
    with pytest.raises(ValueError, match="cannot take 2"):
        ring.advance(2)


def test_a_ring_goes_round_many_times(ring: RecordRing) -> None:
    for seq in range(50):
        assert ring.push(some_records(seq, 1)[0])
        if seq % 3 == 2:
            records = ring.peek(9)
            assert records["seq"].tolist() == [seq - 2, seq - 1, seq]
            ring.advance(3)


def test_a_peeked_record_is_a_copy(ring: RecordRing) -> None:
    ring.push(some_records(7, 1)[0])
    copy = ring.peek(1)
    ring.advance(1)
    for record in some_records(20, 4):
        ring.push(record)
    assert copy["seq"].tolist() == [7]


def test_a_slot_that_is_not_wholly_visible_is_not_there_yet(ring: RecordRing) -> None:
    for record in some_records(0, 3):
        ring.push(record)
    ring._slots[1]["obs"][0] += 1  # as if another CPU saw the tail before all of the record
    assert ring.peek(3)["seq"].tolist() == [0]


def test_records_of_another_layout_are_refused(ring: RecordRing) -> None:
    with pytest.raises(TypeError, match="pushed into a ring"):
        ring.push(np.zeros(1, record_dtype(4, 2))[0])
    with pytest.raises(StorageError, match="does not hold records"):
        RecordRing.attach(ring.name, record_dtype(4, 2))


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="capacity 0"):
        RecordRing.create(DTYPE, 0)
    with pytest.raises(ValueError, match="field names must differ"):
        SharedBlock.create(("x", "x"))
    with pytest.raises(ValueError, match="is not in 1"):
        RecordRing.create(DTYPE, 1 << 40)
