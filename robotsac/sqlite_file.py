"""What spool and replay log share as SQLite files: a transaction, and errors in words."""

from __future__ import annotations

import contextlib
import shlex
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robotsac.disk import MB, free_bytes
from robotsac.errors import StorageError, path_command

# Below this much free disk an I/O error is taken for a full disk: shared memory and sync report it as one.
FULL_BYTES = 1_000_000


class DiskFullError(StorageError):
    """The disk has no room for one more write."""


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is done in the ``with`` block, or nothing of it; durable when it is left.

    Args:
        connection: in autocommit mode (``isolation_level=None``).

    Raises:
        sqlite3.Error: the database or the disk refused; nothing was written.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite rolls back by itself after some errors, such as a full disk.
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """A database file as error messages speak of it.

    Args:
        what: e.g. ``"spool"``.
        path: of the file.
        when_damaged: the command that helps when its content is damaged.
    """

    what: str
    path: Path
    when_damaged: str

    @contextlib.contextmanager
    def errors(self, done: str) -> Iterator[None]:
        """SQLite's and the disk's errors in the ``with`` block, in words: the file "cannot be ``done``".

        Raises:
            DiskFullError: no room.
            StorageError: read-only, damaged or broken.
        """
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._in_words(error, done) from error

    def _in_words(self, error: sqlite3.Error | OSError, done: str) -> StorageError:
        folder, reason = self.path.parent, str(error)
        free, code = free_bytes(folder), (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
        failure = f"{self.what} {self.path} cannot be {done}"
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and free < FULL_BYTES):
            message = f"{failure}: disk full, {free / MB:.1f} MB free in {folder}"
            return DiskFullError(message, reason=reason, command=path_command(error, folder))
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return StorageError(f"{self.what} {self.path} is damaged", reason=reason, command=self.when_damaged)
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            message = f"{failure}: folder {folder} does not allow it"
            return StorageError(message, reason=reason, command=f"ls -ld {shlex.quote(str(folder))}")
        return StorageError(failure, reason=reason, command=path_command(error, folder))
