"""Memory that several processes of one host share: named integers, and a ring of records.

Segments are files in ``/dev/shm``, mapped. ``multiprocessing.shared_memory`` is not used: its resource tracker takes a
segment away as soon as *any* process that attached to it exits, so the restart of one process would pull the memory
from under the others. Here the creator unlinks; every process that uses a segment holds a shared lock on it, and
segments that nobody holds any more (their creator was killed) are swept when the next one is created.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import secrets
import zlib
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from robotsac.errors import StorageError
from robotsac.records import Records

FOLDER = Path("/dev/shm")
PREFIX = "robotsac-"
BLOCK_MAGIC = 0x524F424C4B303031  # "ROBLK001"
RING_MAGIC = 0x524F52494E473031  # "RORING01"
SEGMENT_BYTES_MAX = 1 << 30


class Segment:
    """One mapped file in ``/dev/shm``; what :class:`SharedBlock` and :class:`RecordRing` stand on."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self._fd = fd
        self.memory = mmap.mmap(fd, 0)

    @classmethod
    def create(cls, size: int) -> Self:
        """A new zeroed segment of ``size`` bytes. Raises StorageError when there is no room for it."""
        if not 0 < size <= SEGMENT_BYTES_MAX:
            raise ValueError(f"a shared segment of {size} bytes is not in 1..{SEGMENT_BYTES_MAX}")
        _sweep()
        name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
        hidden = FOLDER / f".{name}"
        fd = -1
        try:
            fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # Pages are reserved now: without this a full /dev/shm shows up later, as SIGBUS in the control loop.
            os.posix_fallocate(fd, 0, size)
            fcntl.flock(fd, fcntl.LOCK_SH)
            hidden.rename(FOLDER / name)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
                hidden.unlink(missing_ok=True)
            raise StorageError(
                f"no shared memory of {size} bytes in {FOLDER}", reason=str(error), command=f"df -h {FOLDER}"
            ) from error
        return cls(name, fd)

    @classmethod
    def attach(cls, name: str) -> Self:
        """The existing segment ``name``. Raises StorageError when it is not there."""
        if Path(name).name != name or not name.startswith(PREFIX):
            raise ValueError(f"{name!r} is not the name of a shared segment")
        try:
            fd = os.open(FOLDER / name, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(
                f"shared memory {name} is not there", reason="the process that made it has ended"
            ) from error
        fcntl.flock(fd, fcntl.LOCK_SH)
        return cls(name, fd)

    def close(self) -> None:
        """Let go of the mapping. The segment lives on until :meth:`unlink`. Idempotent."""
        if self._fd >= 0:
            # A view still held by a caller keeps the mapping alive until it is gone; that is no error.
            with contextlib.suppress(BufferError):
                self.memory.close()
            os.close(self._fd)
            self._fd = -1

    def unlink(self) -> None:
        """Take the name away: nobody can attach any more, those attached keep their mapping. Idempotent."""
        (FOLDER / self.name).unlink(missing_ok=True)


class SharedBlock:
    """Named int64 fields in shared memory.

    Each field is an aligned 8-byte word, read and written whole. One process writes a field; any number read it. Fields
    are independent: nothing orders a write of one field against a write of another.
    """

    def __init__(self, segment: Segment, fields: tuple[str, ...]) -> None:
        self._segment = segment
        self._words = memoryview(segment.memory).cast("q")
        self._index = {field: 2 + i for i, field in enumerate(fields)}
        self.fields = fields

    @classmethod
    def create(cls, fields: tuple[str, ...]) -> Self:
        """A new block, all zero. Raises StorageError when there is no shared memory."""
        if len(set(fields)) != len(fields) or not fields:
            raise ValueError(f"field names must differ and be at least one: {fields}")
        block = cls(Segment.create(8 * (2 + len(fields))), fields)
        block._words[0], block._words[1] = BLOCK_MAGIC, _digest(fields)
        return block

    @classmethod
    def attach(cls, name: str, fields: tuple[str, ...]) -> Self:
        """The block ``name``. Raises StorageError when it is gone or was made with other fields."""
        segment = Segment.attach(name)
        words = memoryview(segment.memory).cast("q") if len(segment.memory) == 8 * (2 + len(fields)) else None
        fits = words is not None and words[0] == BLOCK_MAGIC and words[1] == _digest(fields)
        if words is not None:
            words.release()
        if not fits:
            segment.close()
            raise StorageError(
                f"shared block {name} does not have the fields {fields}", reason="made by other software"
            )
        return cls(segment, fields)

    @property
    def name(self) -> str:
        """What another process attaches by."""
        return self._segment.name

    def __getitem__(self, field: str) -> int:
        return int(self._words[self._index[field]])

    def __setitem__(self, field: str, value: int) -> None:
        self._words[self._index[field]] = value

    def snapshot(self) -> dict[str, int]:
        """All fields, each read once."""
        return {field: self[field] for field in self.fields}

    def close(self) -> None:
        """Let go; idempotent."""
        self._words.release()
        self._segment.close()

    def unlink(self) -> None:
        """Take the block's name away; idempotent."""
        self._segment.unlink()


# Ring header, in 8-byte words; head and tail sit in cache lines of their own.
_HEADER_WORDS = 24
_CAPACITY, _ITEMSIZE, _TAIL, _HEAD = 1, 2, 8, 16


class RecordRing:
    """Bounded ring of records in shared memory: one process pushes, one takes away.

    ``push`` never waits. The consumer copies with ``peek`` and calls ``advance`` only once the copies are durable, so a
    consumer that is killed loses nothing: its successor finds the head where it stood. Each slot carries a CRC of its
    record and position, so a slot is seen only when all of it is visible, also on a CPU that reorders stores.
    """

    def __init__(self, segment: Segment, dtype: np.dtype[np.void], capacity: int) -> None:
        self._segment = segment
        self.dtype = dtype
        self.capacity = capacity
        self._words = memoryview(segment.memory)[: 8 * _HEADER_WORDS].cast("q")
        offset = 8 * _HEADER_WORDS
        self._crcs = np.frombuffer(segment.memory, "<u4", capacity, offset)
        offset += 4 * capacity
        self._slots = np.frombuffer(segment.memory, dtype, capacity, offset)
        self._bytes = self._slots.view("u1").reshape(capacity, dtype.itemsize)

    @classmethod
    def create(cls, dtype: np.dtype[np.void], capacity: int) -> Self:
        """A new empty ring of ``capacity`` records. Raises StorageError when there is no shared memory."""
        if capacity < 1:
            raise ValueError(f"capacity {capacity} must be at least 1")
        ring = cls(Segment.create(8 * _HEADER_WORDS + (4 + dtype.itemsize) * capacity), dtype, capacity)
        ring._words[0], ring._words[_CAPACITY], ring._words[_ITEMSIZE] = RING_MAGIC, capacity, dtype.itemsize
        return ring

    @classmethod
    def attach(cls, name: str, dtype: np.dtype[np.void]) -> Self:
        """The ring ``name``. Raises StorageError when it is gone or holds records of another layout."""
        segment = Segment.attach(name)
        header = np.frombuffer(segment.memory, "<i8", min(_HEADER_WORDS, len(segment.memory) // 8)).tolist()
        fits = (
            len(header) == _HEADER_WORDS
            and header[0] == RING_MAGIC
            and header[_ITEMSIZE] == dtype.itemsize
            and len(segment.memory) == 8 * _HEADER_WORDS + (4 + dtype.itemsize) * header[_CAPACITY]
        )
        if not fits:
            segment.close()
            raise StorageError(f"shared ring {name} does not hold records of {dtype.itemsize} bytes")
        return cls(segment, dtype, header[_CAPACITY])

    @property
    def name(self) -> str:
        """What another process attaches by."""
        return self._segment.name

    @property
    def fill(self) -> int:
        """Records pushed and not yet taken away."""
        return int(self._words[_TAIL] - self._words[_HEAD])

    def push(self, record: np.void | Records) -> bool:
        """Put one record in. False, and nothing done, when the ring is full. Never waits."""
        if record.dtype != self.dtype:
            raise TypeError(f"record of dtype {record.dtype} pushed into a ring of {self.dtype}")
        tail = self._words[_TAIL]
        if tail - self._words[_HEAD] >= self.capacity:
            return False
        i = tail % self.capacity
        self._slots[i] = record
        self._crcs[i] = _slot_crc(self._bytes[i], tail)
        self._words[_TAIL] = tail + 1
        return True

    def peek(self, limit: int) -> Records:
        """A copy of the oldest records, at most ``limit``; they stay in the ring."""
        head = self._words[_HEAD]
        count = min(limit, self._words[_TAIL] - head)
        where = np.arange(head, head + count) % self.capacity
        copy = self._slots[where]
        raw = copy.view("u1").reshape(count, self.dtype.itemsize)
        for k in range(count):
            if _slot_crc(raw[k], head + k) != self._crcs[where[k]]:
                return copy[:k]
        return copy

    def advance(self, count: int) -> None:
        """Take the oldest ``count`` records away."""
        if not 0 <= count <= self.fill:
            raise ValueError(f"cannot take {count} records from a ring that holds {self.fill}")
        self._words[_HEAD] += count

    def close(self) -> None:
        """Let go; idempotent."""
        empty = np.empty(0, self.dtype)
        self._crcs, self._slots, self._bytes = np.empty(0, "<u4"), empty, np.empty((0, 0), "u1")
        self._words.release()
        self._segment.close()

    def unlink(self) -> None:
        """Take the ring's name away; idempotent."""
        self._segment.unlink()


def _slot_crc(raw: NDArray[np.uint8], index: int) -> int:
    # The position is the CRC's start value, so a record left over from the last time round does not pass.
    return zlib.crc32(raw.data, (index + 1) & 0xFFFFFFFF)


def _digest(fields: tuple[str, ...]) -> int:
    return int.from_bytes(hashlib.sha256("\n".join(fields).encode()).digest()[:7], "little")


def _sweep() -> None:
    """Remove segments that no process holds: a shared lock is on every one that is in use."""
    for path in FOLDER.glob(f"{PREFIX}*"):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except OSError:
            continue
        finally:
            os.close(fd)
