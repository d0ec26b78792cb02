"""The spool's tables, and the statements that change them."""

from __future__ import annotations

import sqlite3
import zlib
from dataclasses import dataclass
from pathlib import Path

from robotsac.contract import Contract
from robotsac.errors import StorageError

APPLICATION_ID = 0x52535350  # "RSSP"
SCHEMA_VERSION = 1
# SQLite's own cost of a row (keys, index entry, page overhead), for turning bytes into rows.
ROW_OVERHEAD_BYTES = 40

_TABLES = """
BEGIN IMMEDIATE;
CREATE TABLE boots (
    id INTEGER PRIMARY KEY AUTOINCREMENT, boot TEXT NOT NULL UNIQUE, contract BLOB NOT NULL,
    last_seq INTEGER NOT NULL DEFAULT -1, acked_seq INTEGER NOT NULL DEFAULT -1, acked_run TEXT NOT NULL DEFAULT '',
    committed INTEGER NOT NULL DEFAULT 0, acked INTEGER NOT NULL DEFAULT 0, pruned INTEGER NOT NULL DEFAULT 0);
CREATE TABLE records (
    boot INTEGER NOT NULL, seq INTEGER NOT NULL, crc INTEGER NOT NULL, record BLOB NOT NULL, PRIMARY KEY (boot, seq));
PRAGMA application_id = {application_id};
PRAGMA user_version = {schema_version};
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class BootInfo:
    """One boot of the robot in the spool.

    Attributes:
        boot, contract_digest, contract: whose records these are and what they mean.
        first_seq: lowest ``seq`` still stored; ``last_seq + 1`` when none is.
        last_seq: highest ``seq`` ever committed, -1 for none.
        acked_seq: every record up to here is durable at a learner; -1 for none.
        acked_run: the learner run that said so last; ``""`` for none.
        committed, acked, pruned: how many records, ever.
    """

    boot: str
    contract_digest: str
    contract: Contract
    first_seq: int
    last_seq: int
    acked_seq: int
    acked_run: str
    committed: int
    acked: int
    pruned: int

    @property
    def unacked(self) -> int:
        """Records that wait for a learner."""
        return self.committed - self.acked


def record_crc(record: bytes, seq: int) -> int:
    """Checksum of a stored record; ``seq`` is its start value, so a record under another number does not pass."""
    return zlib.crc32(record, seq & 0xFFFFFFFF)


def set_up(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables in a new file; refuse a file that is something else."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if (application_id, version) == (0, 0) and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        # executescript and not execute: one transaction, so a kill in between leaves an empty file.
        connection.executescript(_TABLES.format(application_id=APPLICATION_ID, schema_version=SCHEMA_VERSION))
    elif (application_id, version) != (APPLICATION_ID, SCHEMA_VERSION):
        raise StorageError(
            f"{path} is not a spool of schema {SCHEMA_VERSION}",
            reason=f"application id 0x{application_id:08x}, schema {version}",
        )


def move_ack(connection: sqlite3.Connection, boot_id: int, durable_seq: int, run_id: str) -> None:
    """Raise a boot's ``acked_seq`` to ``durable_seq``; a lower one changes nothing but the run."""
    connection.execute(
        "UPDATE boots SET acked_seq = MAX(acked_seq, ?2), acked_run = ?3, acked = acked + (SELECT COUNT(*)"
        " FROM records WHERE boot = ?1 AND seq > acked_seq AND seq <= ?2) WHERE id = ?1",
        (boot_id, durable_seq, run_id),
    )


def take_ack_back(connection: sqlite3.Connection, boot_id: int, durable_seq: int) -> None:
    """Lower a boot's ``acked_seq`` to ``durable_seq``; records above it that are still here wait again."""
    connection.execute(
        "UPDATE boots SET acked_seq = ?2, acked = acked - (SELECT COUNT(*) FROM records"
        " WHERE boot = ?1 AND seq > ?2 AND seq <= acked_seq) WHERE id = ?1 AND acked_seq > ?2",
        (boot_id, durable_seq),
    )


def prune_acked(connection: sqlite3.Connection, row_bytes: dict[int, int], keep_bytes: int) -> None:
    """Delete the oldest acknowledged records until at most ``keep_bytes`` of them are left; no others, ever.

    Args:
        connection: in a transaction.
        row_bytes: by boot id, bytes that one of its rows takes.
        keep_bytes: bound.
    """
    kept = connection.execute("SELECT id, acked - pruned FROM boots WHERE acked > pruned ORDER BY id").fetchall()
    excess = sum(rows * row_bytes[boot_id] for boot_id, rows in kept) - keep_bytes
    for boot_id, rows in kept:
        if excess <= 0:
            return
        count = min(rows, -(-excess // row_bytes[boot_id]))
        deleted = connection.execute(
            "DELETE FROM records WHERE boot = ?1 AND seq <= (SELECT acked_seq FROM boots WHERE id = ?1) AND seq <="
            " (SELECT seq FROM records WHERE boot = ?1 ORDER BY seq LIMIT 1 OFFSET ?2)",
            (boot_id, count - 1),
        ).rowcount
        connection.execute("UPDATE boots SET pruned = pruned + ? WHERE id = ?", (deleted, boot_id))
        excess -= deleted * row_bytes[boot_id]
