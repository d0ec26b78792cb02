"""One holder at a time, whoever it is and however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from robotsac.lock import FileLock

HOLDER = """
import sys, time
from pathlib import Path
from robotsac.lock import FileLock

assert FileLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_one_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "new" / "lock"), FileLock(tmp_path / "new" / "lock")
    assert first.acquire()
    assert first.acquire(), "it is held already"
    assert not second.acquire()
    assert second.holder() == str(os.getpid())
    first.release()
    first.release()
    assert second.acquire()
    assert not first.acquire()
    second.release()


def test_waiting_ends_when_the_holder_lets_go_or_the_time_is_up(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire()
    begin_s = time.monotonic()
    assert not second.acquire(wait_s=0.15)
    assert time.monotonic() - begin_s >= 0.15
    later = threading.Timer(0.1, first.release)
    later.start()
    assert second.acquire(wait_s=60.0)
    later.join()
    second.release()


def test_the_lock_of_a_killed_process_is_free_and_its_number_was_known(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        lock = FileLock(path)
        assert not lock.acquire()
        assert lock.holder() == str(holder.pid)
        holder.kill()
        holder.wait(60)
    assert lock.acquire()
    lock.release()


@pytest.mark.parametrize("noted", [None, b"", b"not a number", b"\xff\xfe", b"\x1b[31m7"])
def test_a_holder_that_left_no_number_is_unknown(tmp_path: Path, noted: bytes | None) -> None:
    path = tmp_path / "lock"
    if noted is not None:
        path.write_bytes(noted)
    assert FileLock(path).holder() == "unknown"


def test_a_shorter_number_replaces_a_longer_one(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"9" * 30)
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    assert lock.holder() == str(os.getpid())
    lock.release()


def test_a_place_where_no_file_can_be_made_is_an_error_and_nothing_is_held(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    lock = FileLock(tmp_path / "file" / "lock")
    with pytest.raises(OSError, match="file"):
        lock.acquire()
    lock.release()


def test_a_full_disk_does_not_hinder_locking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    assert lock.holder() == "unknown"
    assert not FileLock(tmp_path / "lock").acquire()
    lock.release()
