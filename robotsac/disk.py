"""How much room a disk has left, and the refusal to begin without enough."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path

from robotsac.errors import StorageError

MB = 1_000_000
UNBOUNDED = 2**63 - 1


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write below ``folder``, which need not be there yet; 0 when that cannot be told.

    A file system without a size (``/proc``, tmpfs without a limit) has no bound: :data:`UNBOUNDED`. What keeps one from
    writing there is not room, and shows when it is tried.
    """
    try:
        disk = os.statvfs(_reachable(folder))
    except OSError:
        return 0
    if disk.f_blocks == 0:
        return UNBOUNDED
    return disk.f_bavail * disk.f_frsize


def require_free(folder: Path, needed_mb: float, reason: str) -> None:
    """Refuse a disk that is nearly full.

    Args:
        folder: where will be written; need not be there yet.
        needed_mb: least free room, MB of 10⁶ bytes.
        reason: why less will not do, one sentence.

    Raises:
        StorageError: less is free; names folder, free and needed MB.
    """
    free_mb = free_bytes(folder) / MB
    if free_mb < needed_mb:
        raise StorageError(
            f"disk of {folder}: {free_mb:.0f} MB free, {needed_mb:.0f} MB needed",
            reason=reason,
            command=f"df -h {shlex.quote(str(_reachable(folder)))}",
        )


def _reachable(folder: Path) -> Path:
    """``folder``, or the nearest one above it that is there and may be looked at."""
    for place in (folder, *folder.absolute().parents):
        with contextlib.suppress(OSError):
            place.stat()
            return place
    return folder
