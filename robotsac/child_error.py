"""How a child process tells its supervisor, in words, what it could not get over."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from robotsac.errors import RobotsacError


class ChildError(msgspec.Struct, frozen=True):
    """An error as it crosses a process border: its three sentences and its exit code."""

    message: str
    reason: str
    command: str
    exit_code: int


class Printed(msgspec.Struct, frozen=True):
    """What a command with ``--json`` prints when it fails; other keys may stand beside it."""

    error: ChildError


def write_child_error(path: Path, error: RobotsacError) -> None:
    """Leave ``error`` at ``path``. Never raises: where even that cannot be written, the exit code has to do."""
    left = ChildError(error.message, error.reason, error.command, error.exit_code)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(msgspec.json.encode(left))
        temporary.replace(path)
    except OSError:
        return


def read_child_error(path: Path) -> RobotsacError | None:
    """The error that was left at ``path``, ready to be raised; ``None`` when there is none."""
    try:
        left = msgspec.json.decode(path.read_bytes(), type=ChildError)
    except (OSError, msgspec.DecodeError):
        return None
    return _raisable(left)


def read_logged_error(log: Path, start: int = 0) -> RobotsacError | None:
    """The error that a child with ``--json`` printed last into ``log``, ready to be raised; ``None`` when there is none.

    Args:
        log: whatever else stands in it.
        start: bytes of what earlier children said, which are passed over.
    """
    try:
        return read_printed_error(log.read_bytes()[start:])
    except OSError:
        return None


def read_printed_error(said: bytes) -> RobotsacError | None:
    """The error that a child with ``--json`` printed last among what it ``said``; ``None`` when there is none."""
    for line in reversed(said.splitlines()):
        with suppress(msgspec.DecodeError):
            return _raisable(msgspec.json.decode(line, type=Printed).error)
    return None


def _raisable(left: ChildError) -> RobotsacError:
    error = RobotsacError(left.message, reason=left.reason, command=left.command)
    error.exit_code = left.exit_code
    return error
