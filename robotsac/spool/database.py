"""The spool's database file: one owner, transactions, and the ballast behind them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from robotsac.errors import StorageError
from robotsac.spool.ballast import Ballast
from robotsac.spool.tables import DiskFullError, in_words, set_up

BUSY_TIMEOUT_S = 2.0
MB = 1_000_000

Work = Callable[[sqlite3.Connection], None]


class Database:
    """A SQLite file in WAL mode, synchronous FULL, owned by one process through a lock file beside it.

    Args:
        path: the file; its folder is made.
        ballast_bytes: room reserved for the last writes.
    """

    def __init__(self, path: Path, ballast_bytes: int) -> None:
        self.path = path
        self.ballast = Ballast(path.with_name(f"{path.name}.ballast"), ballast_bytes)
        self._connection: sqlite3.Connection | None = None
        self._lock_fd = -1

    def open(self) -> None:
        """Open or create. Raises StorageError: in use, disk full, read-only, damaged, or not a spool."""
        if self._connection is not None:
            return
        try:
            with self.errors("opened"):
                self._lock()
            try:
                self._connect()
            except DiskFullError:
                self.ballast.release()
                self._connect()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go; idempotent, never raises."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    @property
    def connection(self) -> sqlite3.Connection:
        """For reading. Raises StorageError when not open."""
        if self._connection is None:
            raise StorageError(f"spool {self.path} is not open")
        return self._connection

    def write(self, work: Work) -> None:
        """Do ``work`` in one transaction; durable on return. On a full disk the ballast goes and it is tried again.

        Raises:
            StorageError: nothing of it was written.
        """
        try:
            self._transact(work)
        except DiskFullError:
            if not self.ballast.release():
                raise
            self._transact(work)

    @contextlib.contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """SQLite's and the disk's errors become StorageError: the file "cannot be ``what``"."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise in_words(error, self.path, what, self.free_bytes()) from error

    def free_bytes(self) -> int:
        """Free disk in the spool's folder; 0 when that cannot be told."""
        try:
            disk = os.statvfs(self.path.parent)
        except OSError:
            return 0
        return disk.f_bavail * disk.f_frsize

    def used_bytes(self) -> int:
        """Pages of the file that hold something."""
        with self.errors("read"):
            pages, free, size = (
                int(self.connection.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
        return (pages - free) * size

    def _lock(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_name(f"{self.path.name}.lock")
        self._lock_fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"spool {self.path} is in use", reason="another collector has it open", command=f"fuser -v {lock}"
            ) from None

    def _connect(self) -> None:
        with self.errors("opened"):
            connection = sqlite3.connect(self.path, isolation_level=None, timeout=BUSY_TIMEOUT_S)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                # The WAL file is cut back to this after a checkpoint, so a long outage does not leave it large.
                connection.execute(f"PRAGMA journal_size_limit = {8 * MB}")
                set_up(connection, self.path)
                # Says now, not at the first record, that the file cannot be written.
                connection.execute("UPDATE boots SET pruned = pruned WHERE id = (SELECT MAX(id) FROM boots)")
            except BaseException:
                connection.close()
                raise
            self._connection = connection

    def _transact(self, work: Work) -> None:
        connection = self.connection
        with self.errors("written"):
            connection.execute("BEGIN IMMEDIATE")
            try:
                work(connection)
                connection.execute("COMMIT")
            except BaseException:
                # SQLite rolls back by itself after some errors, such as a full disk.
                if connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                raise
