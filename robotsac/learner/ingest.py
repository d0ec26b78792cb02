"""Ingest: the learner's process on the link. Takes batches of all robots, commits them together, then acknowledges.

It is the replay log's only writer. The trainer tails the log from its own process and publishes policies into the run
folder; ingest announces them at once and hands them out. A trainer that is busy for seconds costs the link nothing.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robotsac.child_error import write_child_error
from robotsac.clock import MonotonicClock
from robotsac.config.schema import LearnerSettings
from robotsac.errors import RobotsacError, StorageError
from robotsac.learner.board import LEARNER_FIELDS
from robotsac.learner.replay_log import FILE_NAME, ReplayLog
from robotsac.learner.run_folder import (
    CHILD_LOCK_WAIT_S,
    INGEST_ERROR_FILE,
    INGEST_LOCK_FILE,
    INGEST_STATUS_FILE,
    POLICIES,
    locked,
    write_json,
)
from robotsac.link.learner_end import LearnerEnd, Progress
from robotsac.link.policy_fetch import PolicyShelf
from robotsac.link.sockets import LearnerSocket
from robotsac.policy.store import BundleStore
from robotsac.policy.watch import FolderWatch
from robotsac.process import end_with_parent, starter
from robotsac.shared import SharedBlock
from robotsac.signals import obey_supervisor

NS_PER_MS = 1_000_000
# One commit takes what arrived meanwhile, but no more than this: the acknowledgement must not wait for a flood.
MESSAGES_PER_COMMIT = 256
STAGED_BYTES_MAX = 16_000_000
STATUS_NS = 500 * NS_PER_MS
WAIT_MS = 20


@dataclass(frozen=True, slots=True)
class IngestArgs:
    """What ``ingest_main`` needs.

    Args:
        settings: ``[link]`` is used.
        run_dir: holds the replay log, the policies and the status files.
        run_id: told to the robots.
        board_name: the ``LEARNER_FIELDS`` block.
    """

    settings: LearnerSettings
    run_dir: Path
    run_id: str
    board_name: str


def ingest_main(args: IngestArgs) -> None:
    """Run until SIGTERM or until the supervisor is gone; the target of the ingest process.

    What makes going on pointless (port in use, disk full) is left in ``ingest-error.json``, where the disk takes it.

    Raises:
        SystemExit: with the error's exit code, after an error that was raised on purpose.
    """
    parent, told = starter(), obey_supervisor()
    end_with_parent(signal.SIGKILL)  # at once when that one is gone already: a successor wants the port
    end_with_parent(signal.SIGTERM)
    (args.run_dir / INGEST_ERROR_FILE).unlink(missing_ok=True)
    try:
        with locked(args.run_dir / INGEST_LOCK_FILE, "ingest", CHILD_LOCK_WAIT_S):
            ingest(args, lambda: told.count > 0 or os.getppid() != parent)
    except RobotsacError as error:
        write_child_error(args.run_dir / INGEST_ERROR_FILE, error)
        raise SystemExit(error.exit_code) from error


def ingest(args: IngestArgs, stopping: Callable[[], bool]) -> None:
    """The loop: receive, commit, acknowledge, heartbeat, until ``stopping()``.

    Raises:
        LinkError: the address cannot be had.
        StorageError: the log cannot be written; nothing unwritten has been acknowledged.
    """
    link, parent = args.settings.link, starter()
    board = SharedBlock.attach(args.board_name, LEARNER_FIELDS)
    try:
        with (
            LearnerSocket(link) as socket,
            ReplayLog(args.run_dir / FILE_NAME) as log,
            FolderWatch(args.run_dir / POLICIES) as published,
        ):
            if published.fd >= 0:
                socket.wake_on(published.fd)
            shelf = PolicyShelf(BundleStore(args.run_dir / POLICIES))
            end = LearnerEnd(log, link, args.run_id, shelf, socket, MonotonicClock())
            status = _Status(args.run_dir / INGEST_STATUS_FILE, end, socket)
            while not stopping():
                # In memory, not on disk: a full disk must not look like a hang.
                board["ingest_beat_ns"] = time.monotonic_ns()
                end.progress = _progress(board)
                _receive(end, socket)
                published.clear()
                end.commit()
                end.poll()
                status.write()
            ended = "has been stopped" if os.getppid() == parent else "has ended: its supervisor is gone"
            end.bye(f"the learner {ended}; it can be resumed")
            status.write(last=True)
    finally:
        board.close()


def _receive(end: LearnerEnd, socket: LearnerSocket) -> None:
    """What arrived, after waiting a little when nothing has; bounded in number and bytes."""
    if not socket.wait(WAIT_MS):
        return
    for _ in range(MESSAGES_PER_COMMIT):
        message = socket.receive()
        if message is None:
            return
        end.receive(*message)
        if end.staged_bytes > STAGED_BYTES_MAX:
            return


def _progress(board: SharedBlock) -> Progress:
    """The trainer's, for the heartbeats. A ``credit_total`` of 0 is a trainer that has not said anything yet."""
    return Progress(
        updates=max(0, board["updates"]),
        transitions=max(0, board["transitions"]),
        policy_version=max(0, board["policy_version"]),
        credit_total=board["credit_total"] or -1,
    )


class _Status:
    """Writes ``ingest-status.json`` about twice a second."""

    def __init__(self, path: Path, end: LearnerEnd, socket: LearnerSocket) -> None:
        self._path = path
        self._end = end
        self._socket = socket
        self._written_ns = 0
        self._unwritten = 0

    def write(self, *, last: bool = False) -> None:
        """Write when it is time. A disk that refuses is counted here; the log's commit says so loudly."""
        now_ns = time.monotonic_ns()
        if not last and now_ns - self._written_ns < STATUS_NS:
            return
        self._written_ns = now_ns
        self._socket.count_events()
        body: dict[str, Any] = {
            "state": "ended" if last else "running",
            "t_ns": now_ns,
            **self._end.status(),
            "connections": self._socket.events,
            "status_not_written": self._unwritten,
        }
        try:
            write_json(self._path, body)
        except StorageError:
            self._unwritten += 1
