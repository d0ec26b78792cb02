"""The tables of the replay log, and the one statement sequence that fills them."""

from __future__ import annotations

import json
import sqlite3
import zlib

import numpy as np
from numpy.typing import NDArray

from robotsac.contract import Contract
from robotsac.records import Records, record_dtype

SCHEMA_VERSION = 1
APPLICATION_ID = 0x52534C47  # "RSLG", so that `file` and a stray database are told apart

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE boots (
    robot TEXT NOT NULL, boot TEXT NOT NULL, durable INTEGER NOT NULL, records INTEGER NOT NULL,
    PRIMARY KEY (robot, boot)
) WITHOUT ROWID;
CREATE TABLE batches (
    row INTEGER PRIMARY KEY AUTOINCREMENT, robot TEXT NOT NULL, boot TEXT NOT NULL,
    first_seq INTEGER NOT NULL, count INTEGER NOT NULL, crc INTEGER NOT NULL, records BLOB NOT NULL
);
CREATE TABLE gaps (robot TEXT NOT NULL, boot TEXT NOT NULL, first_seq INTEGER NOT NULL, count INTEGER NOT NULL);
"""


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether a database has no tables at all."""
    return bool(connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0)


def create_tables(connection: sqlite3.Connection) -> None:
    """Lay out an empty database; one that another process has laid out meanwhile stays. Call within a transaction."""
    if is_empty(connection):
        for statement in TABLES.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def identity(connection: sqlite3.Connection) -> tuple[int, int]:
    """``(application id, schema version)`` of a database."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    return int(application), int(version)


def append_new(connection: sqlite3.Connection, robot: str, boot: str, records: Records) -> int:
    """Store the records above the boot's highest stored ``seq``; how many those were. Call within a transaction."""
    known = connection.execute("SELECT durable FROM boots WHERE robot = ? AND boot = ?", (robot, boot)).fetchone()
    if known is not None:
        records = records[records["seq"] > np.uint64(known[0])]
    if len(records) == 0:
        return 0
    first, last = int(records["seq"][0]), int(records["seq"][-1])
    # Where a boot starts is not a gap: a learner that lost its disk begins where the robot still has records.
    before = first - 1 if known is None else int(known[0])
    if last - before > len(records):
        _note_gaps(connection, robot, boot, np.concatenate(([before], records["seq"].astype(np.int64))))
    blob = records.tobytes()
    connection.execute(
        "INSERT INTO batches (robot, boot, first_seq, count, crc, records) VALUES (?, ?, ?, ?, ?, ?)",
        (robot, boot, first, len(records), zlib.crc32(blob), blob),
    )
    connection.execute(
        "INSERT INTO boots (robot, boot, durable, records) VALUES (?, ?, ?, ?) ON CONFLICT (robot, boot)"
        " DO UPDATE SET durable = excluded.durable, records = records + excluded.records",
        (robot, boot, last, len(records)),
    )
    return len(records)


def _note_gaps(connection: sqlite3.Connection, robot: str, boot: str, seq: NDArray[np.int64]) -> None:
    """Write down which numbers are missing between those of ``seq``."""
    jumps = np.flatnonzero(np.diff(seq) > 1)
    connection.executemany(
        "INSERT INTO gaps (robot, boot, first_seq, count) VALUES (?, ?, ?, ?)",
        [(robot, boot, int(seq[i]) + 1, int(seq[i + 1] - seq[i]) - 1) for i in jumps],
    )


def layout(contract: Contract) -> bytes:
    """The record layout in words, so that a log outlives a change of :func:`record_dtype` only with an error."""
    dtype = record_dtype(contract.obs_dim, contract.act_dim)
    return json.dumps({"obs_dim": contract.obs_dim, "act_dim": contract.act_dim, "dtype": dtype.descr}).encode()
