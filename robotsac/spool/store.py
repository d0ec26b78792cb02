"""A durable, bounded store of records on the robot.

SQLite in WAL mode with ``synchronous=FULL``: a record is safe once :meth:`Spool.append` has returned, also from a power
cut. Records leave the spool only after a learner has acknowledged them as durable, and then only when more than
``keep_acked_mb`` of acknowledged ones are kept. Records nobody has acknowledged are never pruned: when room runs out,
:meth:`Spool.check_room` says so early, and collection stops in order. What is on its way at that moment still fits,
because a ballast file reserves the room for it and is given up when the disk is full.
"""

from __future__ import annotations

import shlex
import sqlite3
from pathlib import Path
from typing import Self

import numpy as np

from robotsac.config.schema import SpoolConfig
from robotsac.contract import Contract
from robotsac.disk import MB, free_bytes, require_free
from robotsac.errors import AGAIN, LEARN, StorageError
from robotsac.records import Records, record_dtype
from robotsac.spool.database import Database
from robotsac.spool.tables import (
    ROW_OVERHEAD_BYTES,
    BootInfo,
    move_ack,
    prune_acked,
    record_crc,
    take_ack_back,
)

BALLAST_BYTES = 8_000_000
# Boots of which nothing is left are forgotten beyond this many, oldest first, so the table is bounded.
BOOTS_KEPT = 1000


class Spool:
    """The store. Use as a context manager, or :meth:`open` and :meth:`close`. One process at a time.

    Args:
        path: the database file; its folder is made.
        config: bounds.
        ballast_bytes: room reserved for what is on its way when the disk fills up; several times a full ring.

    Attributes:
        damaged: records read back so far that were no longer what was written, and were left out.
    """

    def __init__(self, path: Path, config: SpoolConfig, ballast_bytes: int = BALLAST_BYTES) -> None:
        self.path = path
        self.damaged = 0
        self._config = config
        self._database = Database(path, ballast_bytes)
        self._file_id = (0, 0)
        self._known: dict[str, tuple[int, Contract]] = {}
        self._digests: dict[str, str] = {}

    def open(self) -> None:
        """Open or create the store; records of earlier boots are there again.

        Raises:
            StorageError: in use by another process, disk full, read-only, damaged, or not a spool.
        """
        self._database.open()
        self._file_id = self._id_of_file()
        self._restore_ballast()

    def close(self) -> None:
        """Let go of the store; idempotent, never raises."""
        self._database.close()
        self._known.clear()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin_boot(self, boot: str, contract: Contract) -> None:
        """Register a boot before its first record. The same boot may begin again with the same contract.

        Raises:
            StorageError: the boot is there with another contract, or the disk refused.
        """
        known = self._boots().get(boot)
        if known is not None:
            if known[1] != contract:
                raise StorageError(
                    f"boot {boot} is in spool {self.path} with another contract",
                    reason="a boot's id is drawn anew at each start: this one was started twice with different settings",
                    command=AGAIN,
                )
            return

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO boots (boot, contract) VALUES (?, ?)", (boot, contract.to_json()))
            connection.execute(
                "DELETE FROM boots WHERE committed = pruned AND id <= (SELECT MAX(id) FROM boots) - ?", (BOOTS_KEPT,)
            )

        self._database.write(work)
        self._known.clear()

    def append(self, boot: str, records: Records) -> int:
        """Store records of a boot that has begun, in one transaction; those already there are left as they are.

        Args:
            boot: boot id.
            records: (k,) of the boot's ``record_dtype``, ``seq`` strictly increasing.

        Returns:
            How many were new. All are durable when this returns.

        Raises:
            StorageError: the disk is full even without the ballast, read-only or broken; nothing was stored.
        """
        boot_id, contract = self._boot(boot)
        seq = records["seq"].astype(np.int64)
        if records.dtype != _dtype(contract) or not (np.diff(seq, prepend=-1) > 0).all():
            raise ValueError(f"records for boot {boot} are of another layout or out of order")
        if len(records) == 0:
            return 0
        new = 0

        def work(connection: sqlite3.Connection) -> None:
            nonlocal new
            acked_seq = connection.execute("SELECT acked_seq FROM boots WHERE id = ?", (boot_id,)).fetchone()[0]
            before = connection.total_changes
            # Rows at or below acked_seq may have been pruned: to insert them again would make them new.
            rows = _rows(boot_id, records[seq > acked_seq])
            connection.executemany("INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?)", rows)
            new = connection.total_changes - before
            connection.execute(
                "UPDATE boots SET committed = committed + ?, last_seq = MAX(last_seq, ?) WHERE id = ?",
                (new, int(seq[-1]), boot_id),
            )

        self._database.write(work)
        return new

    def pending(self, boot: str, after_seq: int, limit: int) -> Records:
        """The next records of a boot above ``after_seq``, oldest first, at most ``limit``.

        A record that is no longer what was written (a damaged disk) is left out and counted in ``damaged``.
        """
        boot_id, contract = self._boot(boot)
        dtype = _dtype(contract)
        while True:
            with self._database.errors("read"):
                rows = self._database.connection.execute(
                    "SELECT seq, crc, record FROM records WHERE boot = ? AND seq > ? ORDER BY seq LIMIT ?",
                    (boot_id, after_seq, limit),
                ).fetchall()
            good = [blob for seq, crc, blob in rows if len(blob) == dtype.itemsize and record_crc(blob, seq) == crc]
            self.damaged += len(rows) - len(good)
            if good or not rows:
                return np.frombuffer(b"".join(good), dtype)
            after_seq = rows[-1][0]

    def boots(self) -> list[BootInfo]:
        """All boots the spool knows, oldest first."""
        with self._database.errors("read"):
            rows = self._database.connection.execute(
                "SELECT boot, (SELECT MIN(seq) FROM records WHERE records.boot = boots.id), last_seq, acked_seq,"
                " acked_run, committed, acked, pruned FROM boots ORDER BY id"
            ).fetchall()
        infos = []
        for boot, first, last, *rest in rows:
            contract = self._boot(boot)[1]
            if boot not in self._digests:
                self._digests[boot] = contract.digest()
            first_seq = last + 1 if first is None else first
            infos.append(BootInfo(boot, self._digests[boot], contract, first_seq, last, *rest))
        return infos

    def ack(self, boot: str, durable_seq: int, run_id: str = "") -> None:
        """Note that a learner run holds everything up to ``durable_seq``; prune the oldest acknowledged records.

        A number below an earlier one takes nothing back: see :meth:`unack`.
        """
        boot_id, _ = self._boot(boot)
        row_bytes, keep_bytes = self._row_bytes(), int(self._config.keep_acked_mb * MB)

        def work(connection: sqlite3.Connection) -> None:
            move_ack(connection, boot_id, durable_seq, run_id)
            prune_acked(connection, row_bytes, keep_bytes)

        self._database.write(work)

    def unack(self, boot: str, durable_seq: int) -> None:
        """The learner has lost what it acknowledged above ``durable_seq``: what is still here waits for it again."""
        boot_id, _ = self._boot(boot)
        self._database.write(lambda connection: take_ack_back(connection, boot_id, durable_seq))

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """Per boot: records ever committed, acknowledged, pruned."""
        return {info.boot: (info.committed, info.acked, info.pruned) for info in self.boots()}

    def unacked(self) -> int:
        """Records of all boots that wait for a learner."""
        with self._database.errors("read"):
            row = self._database.connection.execute("SELECT TOTAL(committed - acked) FROM boots").fetchone()
        return int(row[0])

    def check_room(self) -> None:
        """Whether collection may go on.

        Raises:
            StorageError: too little free disk, too many records waiting, or the ballast is used up; names folder,
                MB and limit. Or the file has been deleted.
        """
        if self._id_of_file() != self._file_id:
            raise StorageError(
                f"spool {self.path} was deleted while it was in use",
                reason="records that no learner has are lost with it; collection stops",
                command=shlex.join(("ls", "-la", str(self.path.parent))),
            )
        folder, needed_mb = self.path.parent, self._config.free_min_mb
        why = "collection stops before the disk is full; what was taken so far is kept"
        require_free(folder, needed_mb, why)
        if not self._restore_ballast():
            raise StorageError(
                f"disk of {folder}: {free_bytes(folder) / MB:.0f} MB free, {needed_mb:.0f} MB and a reserve of "
                f"{self._database.ballast.size / MB:.0f} MB needed",
                reason=why,
                command=f"df -h {shlex.quote(str(folder))}",
            )
        used_mb, size_max_mb = self._database.used_bytes() / MB, self._config.size_max_mb
        if used_mb > size_max_mb and any(info.acked > info.pruned for info in self.boots()):
            row_bytes = self._row_bytes()
            self._database.write(lambda connection: prune_acked(connection, row_bytes, 0))
            used_mb = self._database.used_bytes() / MB
        if used_mb > size_max_mb:
            raise StorageError(
                f"spool {self.path}: {used_mb:.0f} MB of records, limit {size_max_mb:.0f} MB",
                reason="no learner has taken them",
                command=LEARN,
            )

    def _id_of_file(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except OSError:
            return (0, -1)
        return (found.st_dev, found.st_ino)

    def _boots(self) -> dict[str, tuple[int, Contract]]:
        if not self._known:
            with self._database.errors("read"):
                rows = self._database.connection.execute("SELECT boot, id, contract FROM boots").fetchall()
            try:
                self._known = {boot: (boot_id, Contract.from_json(data)) for boot, boot_id, data in rows}
            except ValueError as error:
                raise StorageError(
                    f"spool {self.path} holds no valid contract",
                    reason=f"{error}; moved aside, a new one is begun in its place",
                    command=shlex.join(("mv", str(self.path), f"{self.path}.damaged")),
                ) from error
        return self._known

    def _boot(self, boot: str) -> tuple[int, Contract]:
        known = self._boots().get(boot)
        if known is None:
            raise ValueError(f"boot {boot!r} has not begun in spool {self.path}")
        return known

    def _row_bytes(self) -> dict[int, int]:
        return {boot_id: _dtype(c).itemsize + ROW_OVERHEAD_BYTES for boot_id, c in self._boots().values()}

    def _restore_ballast(self) -> bool:
        return self._database.ballast.restore(free_bytes(self.path.parent), int(self._config.free_min_mb * MB))


def _dtype(contract: Contract) -> np.dtype[np.void]:
    return record_dtype(contract.obs_dim, contract.act_dim)


def _rows(boot_id: int, records: Records) -> list[tuple[int, int, int, bytes]]:
    data, size = records.tobytes(), records.dtype.itemsize
    blobs = [data[i : i + size] for i in range(0, len(data), size)]
    return [(boot_id, seq, record_crc(b, seq), b) for seq, b in zip(records["seq"].tolist(), blobs, strict=True)]
