"""The spool's database file: one owner, transactions, and the ballast behind them."""

from __future__ import annotations

import contextlib
import shlex
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from robotsac.disk import MB
from robotsac.errors import StorageError
from robotsac.lock import FileLock
from robotsac.spool.ballast import Ballast
from robotsac.spool.tables import set_up
from robotsac.sqlite_file import DiskFullError, SqliteFile, transaction

BUSY_TIMEOUT_S = 2.0

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
        self._file = SqliteFile("spool", path, shlex.join(("mv", str(path), f"{path}.damaged")))
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open or create. Raises StorageError: in use, disk full, read-only, damaged, or not a spool."""
        if self._connection is not None:
            return
        try:
            self._own()
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
        self._lock.release()

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

    def errors(self, done: str) -> AbstractContextManager[None]:
        """SQLite's and the disk's errors in the ``with`` block become StorageError: the file "cannot be ``done``"."""
        return self._file.errors(done)

    def used_bytes(self) -> int:
        """Pages of the file that hold something."""
        with self.errors("read"):
            pages, free, size = (
                int(self.connection.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
        return (pages - free) * size

    def _own(self) -> None:
        with self.errors("opened"):
            if not self._lock.acquire():
                raise StorageError(
                    f"spool {self.path} is in use",
                    reason=f"another collector has it open, process {self._lock.holder()}",
                    command=shlex.join(("fuser", "-v", str(self._lock.path))),
                )

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
        with self.errors("written"), transaction(connection):
            work(connection)
