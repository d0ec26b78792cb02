"""How a child process tells its supervisor what went wrong, in words."""

from __future__ import annotations

from pathlib import Path

import msgspec

from robotsac.errors import RobotsacError


class Outcome(msgspec.Struct, frozen=True):
    """An error as it crosses a process border."""

    message: str
    reason: str
    command: str
    exit_code: int


def write_outcome(path: Path, error: RobotsacError) -> None:
    """Leave ``error`` at ``path``. Never raises: the exit code says it as well."""
    outcome = Outcome(error.message, error.reason, error.command, error.exit_code)
    try:
        path.write_bytes(msgspec.json.encode(outcome))
    except OSError:
        return


def read_outcome(path: Path) -> RobotsacError | None:
    """The error left at ``path``, or ``None``."""
    try:
        outcome = msgspec.json.decode(path.read_bytes(), type=Outcome)
    except (OSError, msgspec.DecodeError):
        return None
    error = RobotsacError(outcome.message, reason=outcome.reason, command=outcome.command)
    error.exit_code = outcome.exit_code
    return error
