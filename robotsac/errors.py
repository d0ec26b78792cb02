"""The tree of errors.

Every error a user can meet says three things: what happened (one sentence), why (one reason) and what to run next
(one command). A program that catches one reads ``exit_code``; the command line prints it without a traceback.
"""

from __future__ import annotations

import enum


class RobotsacError(Exception):
    """Base of every error raised on purpose.

    Args:
        message: what happened, one sentence, naming the thing, the value, the limit and the unit.
        reason: why, one sentence.
        command: the command that helps, exactly as it would be typed.
    """

    exit_code = 1

    def __init__(self, message: str, *, reason: str = "", command: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.command = command

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})" if self.reason else self.message


class ConfigError(RobotsacError):
    """A configuration file, an override or a command-line value is wrong."""

    exit_code = 2


class DriverUnavailable(RobotsacError):
    """A plug-in is not installed, or its port is not there."""

    exit_code = 3


class ArmError(RobotsacError):
    """Something about the arm itself: bus, joint, configuration, state."""

    exit_code = 4


class ArmStateError(ArmError):
    """A call that is not legal in the arm's present lifecycle state."""


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
    """

    def __init__(self, joint: int, name: str, what: str, bits: int = 0, *, command: str = "") -> None:
        super().__init__(f"joint {joint} ({name}): {what}", reason=f"fault bits 0x{bits:02x}", command=command)
        self.joint = joint
        self.name = name
        self.what = what
        self.bits = bits


class FaultCode(enum.Enum):
    """Why the guard stopped the arm."""

    NOT_FINITE = "not finite"
    WRONG_SHAPE = "wrong shape"
    POSITION = "position beyond the hard limit"
    VELOCITY = "velocity beyond the hard limit"
    TEMPERATURE = "temperature"
    BUS = "bus"
    JOINT = "joint fault"
    DEADLINE = "deadline"
    EXCEPTION = "exception"


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
        detail: further words.
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
    ) -> None:
        where = f"joint {joint} ({name}): " if joint is not None else ""
        size = f" {value:.4g} {unit} against a limit of {limit:.4g} {unit}" if unit else ""
        super().__init__(f"{where}{code.value}{size}", reason=detail)
        self.code = code
        self.latched = True
        self.joint = joint
        self.name = name
        self.value = value
        self.limit = limit
        self.unit = unit
        self.detail = detail


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
