"""What is written down while training: ``metrics.jsonl`` always, TensorBoard events where it is installed.

Lines of two kinds: ``episode``, one per finished episode, and ``train``, about one per second. Each names the log row and
the update it stands at, so that a resumed run can take back what came after its checkpoint, and no episode stands twice.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec

from robotsac.errors import StorageError, path_command
from robotsac.learner.assembler import Episode

FILE_NAME = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
RECENT_EPISODES = 20
"""Success rate and mean return are over this many episodes: about a minute of 2 s episodes."""


class EventWriter(Protocol):
    """The part of TensorBoard's SummaryWriter that is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Queue one point of the curve ``tag``; ``global_step`` is its place on the x axis."""
        ...

    def flush(self) -> None:
        """Wait until all that is queued is written. Raises OSError."""
        ...

    def close(self) -> None:
        """Write what is left and close. Raises OSError."""
        ...


class Recent:
    """Success rate and mean return of the last episodes that count."""

    def __init__(self) -> None:
        self.episodes = 0
        self._last: deque[tuple[bool, float]] = deque(maxlen=RECENT_EPISODES)

    def add(self, episode: Episode) -> None:
        """Take one more finished episode into account."""
        self.episodes += 1
        if episode.counts:
            self._last.append((episode.success, episode.return_ if math.isfinite(episode.return_) else 0.0))

    @property
    def success_rate(self) -> float:
        """0…1; 0 before the first episode."""
        return sum(success for success, _ in self._last) / len(self._last) if self._last else 0.0

    @property
    def mean_return(self) -> float:
        """Undiscounted; 0 before the first episode. A return that is no number counts as 0."""
        return sum(value for _, value in self._last) / len(self._last) if self._last else 0.0


class Metrics:
    """The files. Use as :meth:`open` … :meth:`close`.

    Args:
        run_dir: of the run.
        control_rate_hz: turns control steps into robot time.
    """

    def __init__(self, run_dir: Path, control_rate_hz: int) -> None:
        self._run_dir = run_dir
        self._path = run_dir / FILE_NAME
        self._control_rate_hz = control_rate_hz
        self._file: BinaryIO | None = None
        self._events: EventWriter | None = None

    def open(self, row: int = 0, updates: int = 0) -> None:
        """Start writing behind log row ``row`` and update ``updates``; later lines of an earlier life are dropped.

        Raises:
            StorageError: the disk refused.
        """
        with self._errors():
            _rewind(self._path, row, updates)
            self._file = self._path.open("ab")
            self._events = _event_writer(self._run_dir / TENSORBOARD_FOLDER, updates)

    def close(self) -> None:
        """Close the files; what :meth:`flush` has not handed over may be lost. Idempotent, never raises."""
        for part in (self._file, self._events):
            if part is not None:
                with contextlib.suppress(OSError):
                    part.close()
        self._file = self._events = None

    def episode(self, episode: Episode, row: int, updates: int) -> None:
        """Note one finished episode. Raises StorageError."""
        robot_time_s = episode.env_steps / self._control_rate_hz
        self._write(
            {
                "kind": "episode",
                "row": row,
                "updates": updates,
                "robot_time_s": round(robot_time_s, 3),
                "env_steps": episode.env_steps,
                "robot": episode.robot,
                "episode": episode.episode,
                "steps": episode.steps,
                "return": episode.return_,
                "end": episode.end.name,
                "success": episode.success,
                "counts": episode.counts,
                "deterministic": episode.deterministic,
                "random": episode.random,
                "policy_version": episode.policy_version,
            }
        )
        if episode.counts:
            points = {"return": episode.return_, "success": float(episode.success), "steps": episode.steps}
            self._plot("episode", points, episode.env_steps)

    def train(self, row: int, updates: int, values: Mapping[str, float]) -> None:
        """Note the state of training; ``values`` by name. Raises StorageError."""
        self._write({"kind": "train", "row": row, "updates": updates, **values})
        self._plot("train", values, updates)

    def flush(self) -> None:
        """Hand everything to the operating system. Raises StorageError: only here a full disk is sure to be noticed."""
        with self._errors():
            if self._file is not None:
                self._file.flush()
            if self._events is not None:
                self._events.flush()

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            raise StorageError(f"{self._path} is not open")
        with self._errors():
            self._file.write(msgspec.json.encode(line) + b"\n")

    def _plot(self, group: str, values: Mapping[str, float], step: int) -> None:
        if self._events is not None:
            with self._errors():
                for name, value in values.items():
                    self._events.add_scalar(f"{group}/{name}", value, step)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"metrics in {self._run_dir} cannot be written",
                reason=str(error),
                command=path_command(error, self._run_dir),
            ) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All complete lines; a last one cut off by a crash is left out. Empty when there is no file."""
    if not path.is_file():
        return []
    lines = []
    for raw in path.read_bytes().splitlines():
        try:
            lines.append(msgspec.json.decode(raw, type=dict[str, Any]))
        except msgspec.DecodeError:
            continue
    return lines


def _rewind(path: Path, row: int, updates: int) -> None:
    before = read_lines(path)
    kept = [line for line in before if line.get("row", 0) <= row and line.get("updates", 0) <= updates]
    if path.is_file():
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in kept))
        temporary.replace(path)


def _event_writer(folder: Path, updates: int) -> EventWriter | None:
    # Imported here: it takes a second, and a learner without TensorBoard loses nothing else.
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer: EventWriter = SummaryWriter(str(folder), purge_step=updates + 1 if updates else None)
    return writer
