"""The robot's run folder: made, held by one collector at a time, and taken away again where nothing came of it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robotsac.actor.actor import ERROR_FILE
from robotsac.errors import StorageError, path_command
from robotsac.lock import FileLock

LOCK_FILE, CONFIG_FILE = ".lock", "config.json"


def take_away(made: list[Path]) -> None:
    """Of the folders ``made``, innermost first, those that hold nothing but what every start writes."""
    for name in (LOCK_FILE, CONFIG_FILE, ERROR_FILE):
        (made[0] / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for folder in made:
            folder.rmdir()


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make ``folder``; whatever the disk refuses in the ``with`` block is said in words.

    Raises:
        StorageError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise StorageError(
            f"run folder {folder} cannot be written", reason=str(error), command=path_command(error, folder)
        ) from error


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """One collector per run folder: two would mix their records in one spool.

    Raises:
        StorageError: another one holds it.
    """
    lock = FileLock(folder / LOCK_FILE)
    with writable(folder):
        free = lock.acquire()
    if not free:
        raise StorageError(
            f"another collector uses {folder}",
            reason=f"process {lock.holder()} holds its lock; end it, or take another run with --run",
            command=f"fuser -v {shlex.quote(str(lock.path))}",
        )
    try:
        yield
    finally:
        lock.release()
