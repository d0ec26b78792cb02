"""How a child process tells its supervisor, in words, what it could not get over."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from robotsac.errors import RobotsacError


class ChildError(msgspec.Struct, frozen=True):
    """An error as it crosses a process border: its three sentences and its exit code."""

    message: str
    reason: str
    command: str
    exit_code: int


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
    error = RobotsacError(left.message, reason=left.reason, command=left.command)
    error.exit_code = left.exit_code
    return error
