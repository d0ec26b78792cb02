"""The tree of errors.

Every error a user can meet says three things: what happened (one sentence), why (one reason) and what to run next
(one command). A program that catches one reads ``exit_code``; the command line prints it without a traceback.
"""

from __future__ import annotations

import enum
import errno
import os
import shlex
from pathlib import Path

AGAIN = "the same command again"
"""As a ``command``: what was typed, once more. Only the command line knows it, and puts it in (``robotsac.cli.console``)."""

ROBOT_FILE = "the robot's file"
"""As a ``command``: look at the robot that was typed, or edit its file. The command line knows which (the same place)."""

LEARN = "a learner where this robot looks for one"
"""As a ``command``: start one. Whoever has the configuration knows the address (``robotsac.cli.collect``)."""

ANOTHER_RUN = "robotsac learn --run run-$(date +%m%d-%H%M%S)"
"""As a ``command``: learn in a run of another name, which the shell makes up."""

POWERED = "torque was not read back as off; treat the arm as powered until its watchdog or you have stopped it"
"""What an operator must know of an arm that no longer answers."""


class RobotsacError(Exception):
    """Base of every error raised on purpose.

    Args:
        message: what happened, one sentence, naming the thing, the value, the limit and the unit.
        reason: why, one sentence.
        command: the command that helps, exactly as it would be typed; :data:`AGAIN`, :data:`ROBOT_FILE` or
            :data:`LEARN`; or, where it begins with ``--``, one option and its value, for the end of the command that was
            typed. Without one, the class's ``usual_command``.
    """

    exit_code = 1
    usual_command = ""

    def __init__(self, message: str, *, reason: str = "", command: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.command = command or self.usual_command

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})" if self.reason else self.message

    def to_dict(self) -> dict[str, str | int]:
        """What every command prints under ``"error"`` with ``--json``: message, reason, command, exit_code."""
        return {
            "message": self.message,
            "reason": self.reason,
            "command": self.command,
            "exit_code": self.exit_code,
        }


class ConfigError(RobotsacError):
    """A configuration file, an override or a command-line value is wrong."""

    exit_code = 2
    usual_command = ROBOT_FILE


class DriverUnavailable(RobotsacError):
    """A plug-in is not installed, or its port is not there."""

    exit_code = 3


class ArmError(RobotsacError):
    """Something about the arm itself: bus, joint, configuration, state."""

    exit_code = 4
    usual_command = AGAIN  # once what the reason asks for is done


class ArmStateError(ArmError):
    """A call that is not legal in the arm's present lifecycle state: a programmer's mistake, not an operator's."""

    usual_command = ""


class ArmSetupError(ArmError):
    """The arm answered, but is not the arm of the config, or refused a value that was read back."""


class BusError(ArmError):
    """A bus round failed. The driver raises it; the guard counts and decides."""


class BusTimeout(BusError):
    """No complete reply before the deadline."""


class BusCorrupt(BusError):
    """A reply arrived that cannot be trusted: CRC, length, id or instruction wrong."""


class BusLost(BusError):
    """The port itself is gone (unplugged, closed by the other side)."""


class JointFault(ArmError):
    """One joint reports a fault of its own.

    Args:
        joint: index in config joint order.
        name: joint name.
        what: the fault in words, e.g. ``"overheating"``.
        bits: the device's raw fault bits.
        remedy: what to do before trying again, in words.
    """

    def __init__(self, joint: int, name: str, what: str, bits: int = 0, *, remedy: str = "") -> None:
        reason = f"fault bits 0x{bits:02x}" + (f"; {remedy}" if remedy else "")
        super().__init__(f"joint {joint} ({name}): {what}", reason=reason, command=AGAIN)
        self.joint = joint
        self.name = name
        self.what = what
        self.bits = bits


class FaultCode(enum.Enum):
    """Why the guard stopped the arm; the value is the sentence that says it."""

    NOT_FINITE = "a number is not finite"
    WRONG_SHAPE = "a torque has the wrong shape"
    POSITION = "position {value} {unit} is beyond the hard limit of {limit} {unit}"
    VELOCITY = "velocity {value} {unit} is beyond the fault threshold of {limit} {unit}"
    TEMPERATURE = "temperature {value} {unit} has reached the limit of {limit} {unit}"
    BUS = "no valid reply in {value} bus rounds in a row, the limit is {limit}"
    JOINT = "{detail}"
    DEADLINE = "no bus tick for {value} {unit}, the limit is {limit} {unit}"


class GuardFault(ArmError):
    """The guard stopped the arm.

    ``latched`` is True when it stays stopped until an operator clears it; False when the guard holds the arm at rest and
    may go on (a missed deadline).

    Args:
        code: kind of fault.
        joint: index in config joint order, or ``None`` when it concerns the whole arm.
        name: joint name, or ``""``.
        value: the offending value.
        limit: the limit it broke.
        unit: unit of both.
        detail: further words; of a joint's own fault, all there is to say.
        reason: why, where ``detail`` does not tell.
    """

    def __init__(
        self,
        code: FaultCode,
        *,
        joint: int | None = None,
        name: str = "",
        value: float = float("nan"),
        limit: float = float("nan"),
        unit: str = "",
        detail: str = "",
        reason: str = "",
    ) -> None:
        where = f"joint {joint} ({name}): " if joint is not None else ""
        shown, shown_limit = _apart(value, limit)
        words = code.value.format(value=shown, limit=shown_limit, unit=unit, detail=detail)
        super().__init__(where + words, reason=reason or detail, command=AGAIN)
        self.code = code
        self.latched = True
        self.joint = joint
        self.name = name
        self.value = value
        self.limit = limit
        self.unit = unit
        self.detail = detail

    def recorded(self, path: Path) -> None:
        """Say that the flight recorder wrote ``path``, and how to look at it."""
        told = f"what came before is in {path}; once the cause is gone, the same command goes on"
        self.reason = f"{self.reason}; {told}" if self.reason else told
        self.command = f"robotsac fault show {shlex.quote(str(path))}"


class LinkError(RobotsacError):
    """The conversation between robot and learner failed or was refused."""

    exit_code = 5


class StorageError(RobotsacError):
    """A disk is full, read-only or broken, or a file on it is not what it should be."""

    exit_code = 6


class BundleRejected(RobotsacError):
    """A policy bundle was not accepted; the policy in use stays in use."""

    exit_code = 7


class CheckpointError(RobotsacError):
    """A checkpoint is missing, incomplete or belongs to something else."""

    exit_code = 8


class TaskError(RobotsacError):
    """A task's or an environment's own code raised, or gave what none may give. The arm is not to blame."""

    exit_code = 9


def path_command(error: Exception, path: Path) -> str:
    """The command that shows why ``path`` could not be used: its disk where that is full, else who may do what there.

    Args:
        error: what was raised: an ``OSError``, or an error of SQLite, which carries no errno.
        path: what it was about; it need not exist.
    """
    there = path
    while not os.access(there, os.F_OK) and there != there.parent:
        there = there.parent
    code = getattr(error, "errno", None)
    if code in (errno.EMFILE, errno.ENFILE):
        return "ulimit -n"
    if code == errno.EROFS:
        return f"findmnt -T {shlex.quote(str(there))}"
    access = isinstance(error, OSError) and code not in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    return f"{'ls -ld' if access else 'df -h'} {shlex.quote(str(there))}"


def _apart(value: float, limit: float) -> tuple[str, str]:
    """Both in as few digits as tell their sizes apart, four at least."""
    for digits in range(4, 18):
        if abs(value) == abs(limit) or f"{abs(value):.{digits}g}" != f"{abs(limit):.{digits}g}":
            break
    return f"{value:.{digits}g}", f"{limit:.{digits}g}"
