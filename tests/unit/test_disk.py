"""Room on the disk: what is free, and the refusal in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from robotsac.disk import MB, UNBOUNDED, free_bytes, require_free
from robotsac.errors import StorageError


def test_a_folder_that_is_not_there_yet_is_on_the_disk_of_the_nearest_one_above(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    assert free_bytes(tmp_path / "not" / "yet") == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.1)
    assert free_bytes(Path("not/yet")) > 0


def test_too_little_room_is_refused_with_folder_free_and_needed(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    with pytest.raises(StorageError) as refused:
        require_free(folder, 1e12, "it would fill up")
    error = refused.value
    assert error.message.startswith(f"disk of {folder}: ")
    assert error.message.endswith(" MB free, 1000000000000 MB needed")
    assert (error.reason, error.command) == ("it would fill up", f"df -h {tmp_path}")


def test_exactly_enough_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robotsac.disk.free_bytes", lambda _folder: 64 * MB)
    require_free(tmp_path, 64.0, "why")
    with pytest.raises(StorageError, match="64 MB free, 65 MB needed"):
        require_free(tmp_path, 65.0, "why")


def test_a_disk_that_cannot_be_asked_counts_as_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_place: Path) -> os.statvfs_result:
        raise OSError("stale handle")

    monkeypatch.setattr(os, "statvfs", refuse)
    assert free_bytes(tmp_path) == 0


def test_a_file_system_without_a_size_is_not_full() -> None:
    """What is wrong with ``learn --run /proc/x`` is not that 0 MB are free there."""
    assert free_bytes(Path("/proc/x")) == UNBOUNDED
    require_free(Path("/proc/x"), 64.0, "why")
