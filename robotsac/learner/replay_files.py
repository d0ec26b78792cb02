"""A replay on disk, in files that are written once: a checkpoint writes what is new and, of what is old, the last file.

Transitions are numbered from 0 on. A file holds those from ``first`` to ``end`` - 1; as long as it is short of
``ROWS_MIN``, the next checkpoint writes it again, longer. So a million transitions lie in some sixty files, and a checkpoint
writes at most ``ROWS_MIN`` rows that were there before.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from robotsac.errors import CheckpointError
from robotsac.learner.durable import write_file
from robotsac.learner.replay import Replay

ROWS_MIN = 16_384
ROWS = "rows"


class Rows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file: transitions ``first`` to ``end`` - 1, and the file's sha256."""

    first: int
    end: int
    sha256: str

    @property
    def name(self) -> str:
        """Of the file."""
        return f"rows-{self.first:012d}-{self.end:012d}.safetensors"


class ReplayFiles:
    """The files of one run's replay.

    Args:
        folder: created when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: tuple[Rows, ...] = ()

    def write(self, replay: Replay) -> tuple[Rows, ...]:
        """Write what is new; all files that make up ``replay`` now. Raises OSError: the disk refused."""
        kept = [rows for rows in self._last if rows.end > replay.oldest]
        first = kept[-1].end if kept else replay.oldest
        if first < replay.total:
            if kept and kept[-1].end - kept[-1].first < ROWS_MIN:
                first = max(kept.pop().first, replay.oldest)
            kept.append(self._write(first, replay.total, replay.rows(first, replay.total)))
        self._last = tuple(kept)
        return self._last

    def keep(self, files: tuple[Rows, ...]) -> None:
        """Take away all but ``files``. Raises OSError."""
        names = {rows.name for rows in files}
        for path in self._folder.glob("*"):
            if path.name not in names:
                path.unlink()

    def read(self, replay: Replay, files: tuple[Rows, ...], total: int) -> None:
        """Fill an empty ``replay`` with ``files``, after ``total`` transitions.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        try:
            replay.refill(total, self._parts(files))
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(
                f"the replay in {self._folder} is damaged",
                reason=f"{error}; without it and the checkpoint beside it, --resume begins the run anew",
                command=shlex.join(("rm", "-r", str(self._folder.parent))),
            ) from error
        self._last = files

    def _write(self, first: int, end: int, rows: Tensor) -> Rows:
        data = save({ROWS: rows.contiguous()})
        made = Rows(first, end, hashlib.sha256(data).hexdigest())
        self._folder.mkdir(parents=True, exist_ok=True)
        write_file(self._folder / made.name, data)
        return made

    def _parts(self, files: tuple[Rows, ...]) -> Iterator[tuple[int, Tensor]]:
        for rows in files:
            data = (self._folder / rows.name).read_bytes()
            if hashlib.sha256(data).hexdigest() != rows.sha256:
                raise ValueError(f"sha256 of {rows.name} differs from the manifest's")
            yield rows.first, load(data)[ROWS]
