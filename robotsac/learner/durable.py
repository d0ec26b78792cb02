"""Files and folders that are there as a whole or not at all, whatever ends the process or the power."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder ``path`` with ``files`` in it: written beside, synced and renamed.

    What earlier attempts left beside it goes. Raises OSError: the disk refused, or ``path`` exists.
    """
    prefix = path.name.partition("-")[0]
    for left_over in path.parent.glob(f".{prefix}*.tmp"):
        shutil.rmtree(left_over, ignore_errors=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    temporary.mkdir(parents=True)
    for name, data in files.items():
        _write_synced(temporary / name, data)
    sync_folder(temporary)
    temporary.rename(path)
    sync_folder(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write the file ``path``, or replace it, in the same way. Raises OSError: the disk refused."""
    temporary = path.with_name(f".{path.name}.tmp")
    _write_synced(temporary, data)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """See that the names in ``folder`` survive a power cut. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
