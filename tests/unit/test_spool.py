"""The spool: durable, in order, once, bounded; and what it says when the disk does not play along."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from link_world import DTYPE, a_contract, some_records
from small_disk import fill, small_disk

from robotsac.config.schema import SpoolConfig
from robotsac.errors import LEARN, StorageError
from robotsac.spool import Spool
from robotsac.sqlite_file import DiskFullError

CONFIG = SpoolConfig(free_min_mb=0.001, keep_acked_mb=1000.0)
BALLAST = 100_000


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "spool.db", CONFIG, BALLAST) as spool:
        spool.begin_boot("a", a_contract())
        yield spool


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 3) as folder:
        yield folder


def seqs(spool: Spool, boot: str = "a") -> list[int]:
    return spool.pending(boot, -1, 1_000_000)["seq"].tolist()


def test_what_was_appended_is_there_after_reopening(tmp_path: Path) -> None:
    with Spool(tmp_path / "s" / "spool.db", CONFIG, BALLAST) as spool:
        spool.begin_boot("a", a_contract())
        assert spool.append("a", some_records(0, 10)) == 10
    with Spool(tmp_path / "s" / "spool.db", CONFIG, BALLAST) as spool:
        assert (spool.pending("a", -1, 100) == some_records(0, 10)).all()
        (info,) = spool.boots()
        assert (info.boot, info.first_seq, info.last_seq, info.acked_seq) == ("a", 0, 9, -1)
        assert info.contract == a_contract()
        assert info.contract_digest == a_contract().digest()


def test_a_commit_waits_for_the_disk(spool: Spool) -> None:
    """No test here can cut the power; SQLite promises to survive it with these two settings and no others."""
    connection = spool._database.connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_record_is_stored_once(spool: Spool) -> None:
    assert spool.append("a", some_records(0, 10)) == 10
    assert spool.append("a", some_records(5, 10)) == 5
    assert spool.append("a", some_records(0, 15)) == 0
    assert seqs(spool) == list(range(15))
    assert spool.counts() == {"a": (15, 0, 0)}


def test_an_acknowledged_and_pruned_record_does_not_come_back(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool.db", SpoolConfig(keep_acked_mb=0, free_min_mb=0.001), BALLAST) as spool:
        spool.begin_boot("a", a_contract())
        spool.append("a", some_records(0, 10))
        spool.ack("a", 9, "run")
        # A successor of an uplink that was killed between the commit and the ring finds the same records again.
        assert spool.append("a", some_records(5, 8)) == 3
        assert seqs(spool) == [10, 11, 12]


def test_pending_is_in_order_bounded_and_starts_after(spool: Spool) -> None:
    spool.append("a", some_records(10, 10))
    spool.append("a", some_records(0, 10))
    assert spool.pending("a", 4, 8)["seq"].tolist() == list(range(5, 13))
    assert len(spool.pending("a", 19, 8)) == 0
    assert spool.pending("a", 19, 8).dtype == DTYPE


def test_records_out_of_order_or_of_another_layout_are_refused(spool: Spool) -> None:
    with pytest.raises(ValueError, match="out of order"):
        spool.append("a", some_records(0, 3)[::-1])
    with pytest.raises(ValueError, match="has not begun"):
        spool.append("b", some_records(0, 3))
    spool.begin_boot("b", a_contract(obs_dim=5))
    with pytest.raises(ValueError, match="another layout"):
        spool.append("b", some_records(0, 3))


def test_boots_are_listed_oldest_first_and_begin_once(spool: Spool) -> None:
    spool.begin_boot("z", a_contract())
    spool.begin_boot("b", a_contract())
    spool.begin_boot("z", a_contract())
    assert [info.boot for info in spool.boots()] == ["a", "z", "b"]
    with pytest.raises(StorageError, match="another contract"):
        spool.begin_boot("z", a_contract("hold"))


def test_what_nobody_acknowledged_is_never_pruned(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool.db", SpoolConfig(keep_acked_mb=0, free_min_mb=0.001), BALLAST) as spool:
        spool.begin_boot("a", a_contract())
        spool.append("a", some_records(0, 100))
        spool.ack("a", 59, "run")
        assert seqs(spool) == list(range(60, 100))
        assert spool.counts() == {"a": (100, 60, 60)}
        assert spool.unacked() == 40
        spool.ack("a", 10, "run")
        assert seqs(spool) == list(range(60, 100))


def test_acknowledged_records_are_kept_up_to_the_bound_oldest_go_first(tmp_path: Path) -> None:
    row = DTYPE.itemsize + 40
    with Spool(tmp_path / "spool.db", SpoolConfig(keep_acked_mb=30 * row / 1e6, free_min_mb=0.001), BALLAST) as spool:
        for boot in ("a", "b"):
            spool.begin_boot(boot, a_contract())
            spool.append(boot, some_records(0, 20))
            spool.ack(boot, 19, "run")
        assert seqs(spool, "a") == list(range(10, 20))
        assert seqs(spool, "b") == list(range(20))
        (a, b) = spool.boots()
        assert (a.first_seq, a.last_seq, a.pruned, b.pruned) == (10, 19, 10, 0)


def test_what_the_learner_lost_waits_again(spool: Spool) -> None:
    spool.append("a", some_records(0, 20))
    spool.ack("a", 19, "run")
    spool.unack("a", 4)
    assert spool.unacked() == 15
    assert spool.boots()[0].acked_seq == 4
    spool.ack("a", 19, "run")
    assert spool.counts() == {"a": (20, 20, 0)}


def test_a_damaged_record_is_left_out_and_counted(spool: Spool, tmp_path: Path) -> None:
    spool.append("a", some_records(0, 10))
    with sqlite3.connect(tmp_path / "spool.db") as other:
        other.execute("UPDATE records SET record = zeroblob(length(record)) WHERE seq < 4")
    other.close()
    assert spool.pending("a", -1, 3)["seq"].tolist() == [4, 5]
    assert spool.damaged == 4


def test_a_second_owner_is_refused(spool: Spool, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="in use") as refused:
        Spool(tmp_path / "spool.db", CONFIG, BALLAST).open()
    assert refused.value.command.startswith("fuser")


@pytest.mark.parametrize("rubbish", [b"not a database, but long enough to look at" * 100, b"SQLite format 3\0" * 300])
def test_a_file_that_is_no_spool_is_refused(tmp_path: Path, rubbish: bytes) -> None:
    (tmp_path / "spool.db").write_bytes(rubbish)
    with pytest.raises(StorageError, match="is damaged") as refused:
        Spool(tmp_path / "spool.db", CONFIG, BALLAST).open()
    assert refused.value.command.startswith("mv ")


def test_another_applications_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "spool.db") as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(StorageError, match="not a spool"):
        Spool(tmp_path / "spool.db", CONFIG, BALLAST).open()


def test_bit_flips_never_pass_as_records(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with Spool(path, CONFIG, BALLAST) as spool:
        spool.begin_boot("a", a_contract())
        spool.append("a", some_records(0, 200))
    good, rng = path.read_bytes(), random.Random(1)
    right = {record.tobytes() for record in some_records(0, 200)}
    for _ in range(150):
        flipped = bytearray(good)
        flipped[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            with Spool(path, CONFIG, BALLAST) as spool:
                found = spool.pending("a", -1, 1000)
        except (StorageError, ValueError):
            continue  # said so in words; "a" may be gone with a damaged boots table
        assert all(record.tobytes() in right for record in found)


def test_too_little_free_disk_stops_collection_in_words(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool.db", SpoolConfig(free_min_mb=1e12), BALLAST) as spool:
        with pytest.raises(StorageError, match=r"MB free, 1000000000000 MB needed") as refused:
            spool.check_room()
        assert refused.value.command == f"df -h {tmp_path}"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_spool_that_is_deleted_while_in_use_stops_collection_in_words(tmp_path: Path, replaced: bool) -> None:
    with Spool(tmp_path / "spool.db", CONFIG, BALLAST) as spool:
        spool.check_room()
        (tmp_path / "spool.db").unlink()
        if replaced:
            (tmp_path / "spool.db").write_bytes(b"")
        with pytest.raises(StorageError, match=r"spool .*spool.db was deleted while it was in use"):
            spool.check_room()


def test_too_many_waiting_records_stop_collection_but_kept_ones_make_room(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool.db", SpoolConfig(size_max_mb=0.2, free_min_mb=0.001), BALLAST) as spool:
        spool.begin_boot("a", a_contract())
        spool.append("a", some_records(0, 2000))
        with pytest.raises(StorageError, match=r"MB of records, limit 0 MB") as full:
            spool.check_room()
        assert full.value.command == LEARN, "where this robot looks for a learner, not anywhere"
        spool.ack("a", 1999, "run")
        spool.check_room()
        assert spool.counts() == {"a": (2000, 2000, 2000)}


def test_a_full_disk_takes_what_is_on_its_way_out_of_the_ballast(tiny_disk: Path) -> None:
    with Spool(tiny_disk / "spool.db", CONFIG, 1_500_000) as spool:
        spool.begin_boot("a", a_contract())
        fill(tiny_disk)
        for first in range(0, 4000, 500):
            assert spool.append("a", some_records(first, 500)) == 500
        assert not (tiny_disk / "spool.db.ballast").exists()
        with pytest.raises(StorageError, match="MB free"):
            spool.check_room()
        assert seqs(spool) == list(range(4000))


def test_a_disk_that_is_full_for_good_says_so_and_loses_nothing(tiny_disk: Path) -> None:
    with Spool(tiny_disk / "spool.db", CONFIG, 200_000) as spool:
        spool.begin_boot("a", a_contract())
        fill(tiny_disk)
        stored = 0
        with pytest.raises(DiskFullError, match="disk full") as refused:
            for first in range(0, 100_000, 500):
                spool.append("a", some_records(first, 500))
                stored = first + 500
        assert refused.value.command == f"df -h {tiny_disk}"
        assert seqs(spool) == list(range(stored))
        (tiny_disk / "filler").unlink()
        spool.append("a", some_records(stored, 500))
    with Spool(tiny_disk / "spool.db", CONFIG, 200_000) as spool:
        assert seqs(spool) == list(range(stored + 500))
        spool.check_room()
        assert (tiny_disk / "spool.db.ballast").exists()


def test_a_read_only_folder_is_refused_in_words(tiny_disk: Path) -> None:
    with Spool(tiny_disk / "spool.db", CONFIG, BALLAST) as spool:
        spool.begin_boot("a", a_contract())
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with pytest.raises(StorageError, match="Read-only file system") as refused:
        Spool(tiny_disk / "spool.db", CONFIG, BALLAST).open()
    assert refused.value.command == f"findmnt -T {tiny_disk}"


WRITER = """
import sys
from pathlib import Path
from link_world import a_contract, some_records
from robotsac.config.schema import SpoolConfig
from robotsac.spool import Spool

with Spool(Path(sys.argv[1]), SpoolConfig(free_min_mb=0.001, keep_acked_mb=0), 100_000) as spool:
    spool.begin_boot("a", a_contract())
    (info,) = spool.boots()
    first = info.last_seq + 1
    while True:
        spool.append("a", some_records(first, 7))
        first += 7
        print(first, flush=True)
        if first % 21 == 0:
            spool.ack("a", first - 15, "run")
"""


def test_a_writer_killed_at_any_moment_has_kept_all_it_promised(tmp_path: Path) -> None:
    rng = random.Random(0)
    promised = 0
    for _ in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "spool.db")],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )
        assert child.stdout is not None
        line = child.stdout.readline()  # it has begun to write
        time.sleep(rng.random() * 0.1)
        child.send_signal(signal.SIGKILL)
        lines = [line, *child.stdout.read().splitlines()]
        child.wait(60)
        promised = max([promised] + [int(text) for text in lines if text.strip()])
        with Spool(tmp_path / "spool.db", SpoolConfig(free_min_mb=0.001, keep_acked_mb=0), 100_000) as spool:
            (info,) = spool.boots()
            assert info.last_seq + 1 in (promised, promised + 7), "committed what was promised, whole batches only"
            assert seqs(spool) == list(range(info.acked_seq + 1, info.last_seq + 1))
            assert (info.committed, info.acked) == (info.last_seq + 1, info.acked_seq + 1)
            promised = info.last_seq + 1
