"""The replay log: durable, exactly once, in order, and loud when the disk is not well."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from learner_world import contract, records

from robotsac.errors import LinkError, StorageError
from robotsac.learner.replay_log import ReplayLog
from robotsac.records import Records, record_dtype

HERE = Path(__file__).parent


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ReplayLog]:
    with ReplayLog(tmp_path / "replay.db") as opened:
        opened.bind(contract())
        yield opened


def stored(log: ReplayLog, robot: str = "r", boot: str = "b") -> list[int]:
    rows = log.read_after(0, 1_000_000)
    return [int(s) for row in rows if (row.robot, row.boot) == (robot, boot) for s in row.records["seq"]]


def test_what_is_appended_is_read_back_bit_for_bit(log: ReplayLog) -> None:
    made = records(5)
    made["obs"][2] = np.nan
    assert log.append("r", "b", made) == 5
    (row,) = log.read_after(0, 10)
    assert (row.robot, row.boot) == ("r", "b")
    assert row.records.tobytes() == made.tobytes()


def test_an_unknown_boot_has_no_durable_seq_and_seq_0_is_one(log: ReplayLog) -> None:
    assert log.durable_all("r") == {}
    log.append("r", "b", records(1))
    assert log.durable_all("r") == {"b": 0}
    assert log.durable_all("other") == {}


def test_duplicates_are_stored_once(log: ReplayLog) -> None:
    assert log.append("r", "b", records(10)) == 10
    assert log.append("r", "b", records(10)) == 0
    assert log.counts() == {"records": 10, "batches": 1, "gaps": 0}


def test_an_overlap_stores_only_what_is_new(log: ReplayLog) -> None:
    log.append("r", "b", records(10))
    assert log.append("r", "b", records(10, first_seq=5)) == 5
    assert stored(log) == list(range(15))


def test_gaps_are_stored_and_counted_between_and_within_batches(log: ReplayLog) -> None:
    log.append("r", "b", records(3))
    assert log.counts()["gaps"] == 0
    torn = records(6, first_seq=5)[[0, 1, 4, 5]]
    assert log.append("r", "b", torn) == 4
    assert log.counts()["gaps"] == 2
    assert stored(log) == [0, 1, 2, 5, 6, 9, 10]


def test_a_boot_that_starts_late_is_no_gap(log: ReplayLog) -> None:
    log.append("r", "b", records(3, first_seq=100))
    assert log.counts()["gaps"] == 0


def test_boots_and_robots_number_apart(log: ReplayLog) -> None:
    assert log.append_many([("r", "b1", records(3)), ("r", "b2", records(2)), ("s", "b1", records(1))]) == [3, 2, 1]
    assert log.durable_all("r") == {"b1": 2, "b2": 1}


def test_append_many_takes_several_batches_of_one_boot(log: ReplayLog) -> None:
    assert log.append_many([("r", "b", records(4)), ("r", "b", records(4, first_seq=2))]) == [4, 2]
    assert stored(log) == list(range(6))


def test_append_many_stores_all_or_none(log: ReplayLog) -> None:
    backwards = records(3)[::-1]
    with pytest.raises(LinkError, match="out of order"):
        log.append_many([("r", "b", records(3)), ("r", "c", backwards)])
    assert log.counts()["records"] == 0


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=20))
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_resending_stores_each_seq_once_and_in_order(tmp_path: Path, sent: list[tuple[int, int]]) -> None:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
    with ReplayLog(path) as log:
        log.bind(contract())
        highest, expected = -1, []
        for first, count in sent:
            fresh = [s for s in range(first, first + count) if s > highest]
            assert log.append("r", "b", records(count, first)) == len(fresh)
            expected += fresh
            highest = max([highest, *fresh])
        assert stored(log) == expected
        assert log.counts()["records"] == len(expected)


def test_reading_goes_on_after_a_row_and_keeps_to_the_limit(log: ReplayLog) -> None:
    for i in range(5):
        log.append("r", "b", records(2, first_seq=2 * i))
    first = log.read_after(0, 2)
    assert [row.row for row in first] == [1, 2]
    assert [row.row for row in log.read_after(first[-1].row, 10)] == [3, 4, 5]
    assert log.read_after(5, 10) == []


def test_an_empty_batch_stores_nothing(log: ReplayLog) -> None:
    assert log.append("r", "b", records(0)) == 0
    assert log.read_after(0, 10) == []


def test_binding_again_to_the_same_contract_is_fine_to_another_refused(log: ReplayLog) -> None:
    log.bind(contract())
    with pytest.raises(LinkError, match="task is reach here and hold there"):
        log.bind(contract(task="hold"))


def test_before_a_contract_nothing_is_taken(tmp_path: Path) -> None:
    with ReplayLog(tmp_path / "replay.db") as log:
        assert log.contract() is None
        assert log.read_after(0, 10) == []
        with pytest.raises(LinkError, match="before a contract"):
            log.append("r", "b", records(1))


@pytest.mark.parametrize("bad", [records(2)[[1, 0]], records(2)[[0, 0]]], ids=["falling", "twice"])
def test_a_batch_out_of_order_is_refused(log: ReplayLog, bad: Records) -> None:
    with pytest.raises(LinkError, match="out of order"):
        log.append("r", "b", bad)


def test_records_of_another_layout_are_refused(log: ReplayLog) -> None:
    with pytest.raises(LinkError, match="layout"):
        log.append("r", "b", np.zeros(1, record_dtype(4, 2)))


def test_the_contract_survives_reopening(tmp_path: Path) -> None:
    with ReplayLog(tmp_path / "replay.db") as log:
        log.bind(contract())
        log.append("r", "b", records(3))
    with ReplayLog(tmp_path / "replay.db") as log:
        assert log.contract() == contract()
        assert log.durable_all("r")["b"] == 2


def test_a_reader_follows_a_writer_and_cannot_write(log: ReplayLog) -> None:
    with ReplayLog(log.path, read_only=True) as tail:
        log.append("r", "b", records(2))
        assert len(tail.read_after(0, 10)) == 1
        log.append("r", "b", records(2, first_seq=2))
        assert len(tail.read_after(1, 10)) == 1
        with pytest.raises(StorageError, match="readonly"):
            tail.append("r", "b", records(1, first_seq=9))


def test_a_reader_does_not_create_the_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        ReplayLog(tmp_path / "none.db", read_only=True).open()
    assert list(tmp_path.iterdir()) == []


def test_a_strange_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    path.write_bytes(b"not a database at all, but long enough to look at" * 100)
    with pytest.raises(StorageError):
        ReplayLog(path).open()
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE something (x)")
    with pytest.raises(StorageError, match="not a replay log"):
        ReplayLog(other).open()


def test_a_damaged_batch_is_noticed(log: ReplayLog) -> None:
    log.append("r", "b", records(3))
    with sqlite3.connect(log.path) as connection:
        connection.execute("UPDATE batches SET records = zeroblob(length(records))")
    with pytest.raises(StorageError, match="damaged"):
        log.read_after(0, 10)


def test_a_full_disk_stores_nothing_of_the_batch_and_says_so(log: ReplayLog) -> None:
    log.append("r", "b", records(3))
    connection = log._open_connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="full"):
        log.append("r", "b", records(2000, first_seq=3))
    assert log.counts() == {"records": 3, "batches": 1, "gaps": 0}
    connection.execute("PRAGMA max_page_count = 1000000")
    assert log.append("r", "b", records(2000, first_seq=3)) == 2000


def test_a_closed_log_says_so_and_closing_twice_is_fine(tmp_path: Path) -> None:
    log = ReplayLog(tmp_path / "replay.db")
    with pytest.raises(StorageError, match="not open"):
        log.counts()
    log.open()
    log.close()
    log.close()


WRITER = """
import sys
from pathlib import Path
from learner_world import contract, records
from robotsac.learner.replay_log import ReplayLog

with ReplayLog(Path(sys.argv[1])) as log:
    log.bind(contract())
    seq = 0
    while True:
        log.append("r", "b", records(7, first_seq=seq))
        seq += 7
        print(seq - 1, flush=True)
"""


def test_what_a_killed_writer_had_appended_is_there_whole(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(HERE)},
        text=True,
    )
    assert writer.stdout is not None
    with writer:
        said = [int(writer.stdout.readline()) for _ in range(40)]
        with ReplayLog(path, read_only=True) as tail:  # a second process, while the first writes
            assert len(tail.read_after(0, 1000)) >= 40
            writer.send_signal(signal.SIGKILL)
            said += [int(line) for line in writer.stdout]
            after = [int(s) for row in tail.read_after(0, 1_000_000) for s in row.records["seq"]]
    assert after[: said[-1] + 1] == list(range(said[-1] + 1))
    assert len(after) % 7 == 0
    with ReplayLog(path) as log:
        assert log.durable_all("r")["b"] == after[-1]
        assert log.append("r", "b", records(7, first_seq=after[-1] + 1)) == 7
