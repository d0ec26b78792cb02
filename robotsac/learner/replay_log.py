"""The durable replay log: every record a robot was promised is kept, in SQLite, before it is acknowledged.

One file, ``replay.db``. ``ingest`` is its only writer; the trainer tails it from another process, and rebuilds its
replay from it on resume. WAL with ``synchronous=FULL``: when :meth:`ReplayLog.append` has returned, the records survive
a power cut. Each robot boot numbers its records; a record is stored when its number is above the highest stored one of
that boot, so resending is harmless and each record is stored once.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from robotsac.contract import Contract
from robotsac.errors import ANOTHER_RUN, LinkError, StorageError
from robotsac.learner.replay_tables import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    append_new,
    create_tables,
    identity,
    is_empty,
    layout,
)
from robotsac.records import Records, record_dtype
from robotsac.sqlite_file import SqliteFile, transaction

FILE_NAME = "replay.db"
BUSY_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class LoggedBatch:
    """One stored batch: ``row`` in order of arrival, ``records`` of one boot in order of ``seq`` (gaps possible)."""

    row: int
    robot: str
    boot: str
    records: Records


class ReplayLog:
    """The log. Use as a context manager, or :meth:`open` and :meth:`close`.

    Args:
        path: the database file.
        read_only: for a tailing process: the file must exist, and nothing can be written.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        self._file = SqliteFile("replay log", path, ANOTHER_RUN)
        self._connection: sqlite3.Connection | None = None
        self._contract: Contract | None = None
        self._dtype: np.dtype[np.void] | None = None

    def open(self) -> None:
        """Open the file; a writer creates it when it is not there.

        Raises:
            StorageError: cannot be opened, is not a replay log, or is of another schema.
        """
        if self._connection is not None:
            return
        # A reader asks for rw and query_only instead of ro: after a killed writer somebody must be able to recover the
        # WAL, and a strictly read-only connection cannot.
        mode = "rw" if self._read_only else "rwc"
        with self._file.errors("opened"):
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S
            )
            self._connection = connection
            try:
                if self._read_only:
                    connection.execute("PRAGMA query_only = ON")
                elif is_empty(connection):
                    connection.execute("PRAGMA journal_mode = WAL")
                    with transaction(connection):
                        create_tables(connection)
                self._require_schema(connection)
                connection.execute("PRAGMA synchronous = FULL")
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def bind(self, contract: Contract) -> None:
        """Fix what the records mean. The first call stores the contract, later ones must bring the same.

        Raises:
            LinkError: the log belongs to another contract; names the difference.
            StorageError: the disk refused.
        """
        connection = self._open_connection
        with self._file.errors("bound to a contract"), transaction(connection):
            bound = self.contract()
            if bound is None:
                rows = [("contract", contract.to_json()), ("layout", layout(contract))]
                connection.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", rows)
            elif difference := bound.difference(contract):
                raise LinkError(
                    "this run's records are of another robot or task",
                    reason=f"log against robot: {difference}",
                    command=ANOTHER_RUN,
                )

    def contract(self) -> Contract | None:
        """What the records mean; ``None`` before the first :meth:`bind`.

        Raises:
            StorageError: what is stored is not a contract, or its records have another layout than this software's.
        """
        if self._contract is None:
            with self._file.errors("read"):
                meta = dict(self._open_connection.execute("SELECT key, value FROM meta").fetchall())
            if "contract" not in meta:
                return None
            try:
                contract = Contract.from_json(meta["contract"])
            except ValueError as error:
                raise StorageError(
                    f"replay log {self.path} holds no valid contract", reason=str(error), command=ANOTHER_RUN
                ) from error
            if meta.get("layout") != layout(contract):
                raise StorageError(
                    f"replay log {self.path} was written with another record layout",
                    reason="made by another version of robotsac",
                    command=ANOTHER_RUN,
                )
            self._contract, self._dtype = contract, record_dtype(contract.obs_dim, contract.act_dim)
        return self._contract

    def append(self, robot: str, boot: str, records: Records) -> int:
        """Store the records of one boot that are not stored yet, in one transaction.

        Args:
            robot: robot id.
            boot: boot id; ``seq`` counts within it.
            records: (k,) of the contract's ``record_dtype``, ``seq`` strictly increasing.

        Returns:
            How many were new. They are durable when this returns.

        Raises:
            LinkError: no contract is bound, or the records are of another layout or out of order.
            StorageError: the disk is full, read-only or broken; nothing was stored.
        """
        return self.append_many([(robot, boot, records)])[0]

    def append_many(self, batches: Sequence[tuple[str, str, Records]]) -> list[int]:
        """:meth:`append` for several batches in ONE transaction, one sync of the disk: all or none.

        Returns:
            New records of each batch, in order.
        """
        for _, _, records in batches:
            self._require_valid(records)
        connection = self._open_connection
        with self._file.errors("written"), transaction(connection):
            return [append_new(connection, robot, boot, records) for robot, boot, records in batches]

    def durable_all(self, robot: str) -> dict[str, int]:
        """Highest stored ``seq`` of each boot of a robot."""
        with self._file.errors("read"):
            rows = self._open_connection.execute("SELECT boot, durable FROM boots WHERE robot = ?", (robot,))
            return {boot: int(durable) for boot, durable in rows}

    def counts(self) -> dict[str, int]:
        """Totals: ``records``, ``batches``, ``gaps`` (runs of missing numbers between stored records)."""
        with self._file.errors("read"):
            row = self._open_connection.execute(
                "SELECT (SELECT COALESCE(SUM(records), 0) FROM boots),"
                " (SELECT COALESCE(MAX(row), 0) FROM batches), (SELECT COUNT(*) FROM gaps)"
            ).fetchone()
        return {"records": int(row[0]), "batches": int(row[1]), "gaps": int(row[2])}

    def read_after(self, row: int, limit_rows: int) -> list[LoggedBatch]:
        """Batches stored after ``row`` (0 = from the start), oldest first, at most ``limit_rows``.

        Raises:
            StorageError: the file cannot be read, or a batch is not what was written.
        """
        dtype = self._layout()
        if dtype is None:
            return []
        with self._file.errors("read"):
            rows = self._open_connection.execute(
                "SELECT row, robot, boot, count, crc, records FROM batches WHERE row > ? ORDER BY row LIMIT ?",
                (row, limit_rows),
            ).fetchall()
        return [self._decoded(dtype, *stored) for stored in rows]

    def _layout(self) -> np.dtype[np.void] | None:
        """Of the records; ``None`` before :meth:`bind`."""
        return self._dtype if self.contract() is not None else None

    @property
    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StorageError(f"replay log {self.path} is not open")
        return self._connection

    def _decoded(
        self, dtype: np.dtype[np.void], row: int, robot: str, boot: str, count: int, crc: int, blob: bytes
    ) -> LoggedBatch:
        if len(blob) != count * dtype.itemsize or zlib.crc32(blob) != crc:
            raise StorageError(
                f"replay log {self.path}: batch {row} is damaged",
                reason="size or checksum differs",
                command=ANOTHER_RUN,
            )
        return LoggedBatch(row, robot, boot, np.frombuffer(blob, dtype))

    def _require_valid(self, records: Records) -> None:
        dtype = self._layout()
        if dtype is None:
            raise LinkError("records came before a contract", reason="the handshake binds the log first")
        if records.dtype != dtype or records.ndim != 1:
            raise LinkError(f"records of layout {records.dtype} do not fit the contract's layout")
        seq = records["seq"]
        if not (seq[1:] > seq[:-1]).all() or (len(seq) > 0 and int(seq[-1]) >= 1 << 63):
            raise LinkError("records are out of order", reason="seq must increase strictly and stay below 2^63")

    def _require_schema(self, connection: sqlite3.Connection) -> None:
        application, version = identity(connection)
        if (application, version) != (APPLICATION_ID, SCHEMA_VERSION):
            raise StorageError(
                f"{self.path} is not a replay log of schema {SCHEMA_VERSION}",
                reason=f"application id 0x{application:08x}, schema {version}",
                command=ANOTHER_RUN,
            )
