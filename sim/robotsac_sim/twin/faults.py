"""Faults on order. A bus takes them only when it was built with ``allow_faults=True``.

``at_ns`` is the bus time when a fault sets in; ``None`` is at once. Faults of replies count from then on: ``nth`` = 0 is
the next reply. One reply is one status packet, or the whole of a fast read.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robotsac.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Any fault."""

    at_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyFault(Fault):
    """Something happens to ``count`` replies, from the ``nth`` on."""

    nth: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DropReply(ReplyFault):
    """The reply does not reach the host; the other devices heard it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptReply(ReplyFault):
    """Bits of one byte turn over."""

    index: int = -1
    mask: int = 0x01


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayReply(ReplyFault):
    """The reply comes late."""

    delay_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncateReply(ReplyFault):
    """A fast read stops after ``devices`` devices."""

    devices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServoFault(Fault):
    """Something happens to one servo."""

    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mute(ServoFault):
    """It hears and obeys, but does not answer, for ``duration_ns``; ``None`` for ever."""

    duration_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RebootServo(ServoFault):
    """It loses power for a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareError(ServoFault):
    """It detects a fault of its own; ``causes`` are bits of :class:`Cause`."""

    causes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheat(ServoFault):
    """Its case is suddenly this warm; the servo's own limit does the rest."""

    temperature_c: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckEncoder(ServoFault):
    """Its position reading freezes, for ``duration_ns``; ``None`` for ever."""

    duration_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrownOut(Fault):
    """The supply drops to ``volt_v`` for ``duration_ns``."""

    volt_v: float
    duration_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Babble(Fault):
    """A device sends ``size`` bytes of noise without being asked."""

    size: int = 64
    seed: int = 0

    def noise(self) -> bytes:
        """The bytes; the same for the same ``seed``."""
        return random.Random(self.seed).randbytes(self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplug(Fault):
    """The adapter is pulled out: the port closes; the servos keep their power."""


KINDS: dict[str, type[Fault]] = {
    "drop_reply": DropReply,
    "corrupt_reply": CorruptReply,
    "delay_reply": DelayReply,
    "truncate_reply": TruncateReply,
    "mute": Mute,
    "reboot_servo": RebootServo,
    "hardware_error": HardwareError,
    "overheat": Overheat,
    "stuck_encoder": StuckEncoder,
    "brown_out": BrownOut,
    "babble": Babble,
    "unplug": Unplug,
}


def parse_fault(entry: Mapping[str, Any]) -> Fault:
    """A fault from its kind and its fields, as ``[robot.sim]`` writes it.

    Raises:
        ConfigError: no such kind, or a field that it does not have.
    """
    fields = dict(entry)
    kind = fields.pop("kind", None)
    if kind not in KINDS:
        raise ConfigError(f"robot.sim.faults: there is no fault {kind!r}", reason=f"known: {', '.join(KINDS)}")
    try:
        return KINDS[kind](**fields)
    except TypeError as error:
        known = ", ".join(field.name for field in dataclasses.fields(KINDS[kind]))
        raise ConfigError(
            f"robot.sim.faults: a {kind} cannot be made from {fields}", reason=f"its keys are {known}"
        ) from error


@dataclass(slots=True)
class _Armed:
    fault: ReplyFault
    seen: int = 0


@dataclass(slots=True)
class FaultInjector:
    """Which faults are waiting and which act on replies.

    Attributes:
        scheduled: (time, fault) of those that have not set in; a fault that ends by itself is scheduled twice.
    """

    scheduled: list[tuple[int, Fault, bool]] = field(default_factory=list)
    _replies: list[_Armed] = field(default_factory=list)

    def schedule(self, fault: Fault, t_ns: int, *, ends: bool = False) -> None:
        """Let ``fault`` set in, or end, at ``t_ns``."""
        self.scheduled.append((t_ns, fault, ends))
        self.scheduled.sort(key=lambda entry: entry[0])

    @property
    def due_ns(self) -> int | None:
        """When the next one sets in or ends."""
        return self.scheduled[0][0] if self.scheduled else None

    def pop_due(self, t_ns: int) -> list[tuple[Fault, bool]]:
        """Those whose time has come, with whether they end."""
        due = [(fault, ends) for at, fault, ends in self.scheduled if at <= t_ns]
        self.scheduled = [entry for entry in self.scheduled if entry[0] > t_ns]
        return due

    def arm(self, fault: ReplyFault) -> None:
        """Let a fault of replies act from the next reply on."""
        self._replies.append(_Armed(fault))

    def on_reply(self, parts: list[bytes]) -> tuple[bytes, int]:
        """What becomes of one reply, given as the parts its devices send.

        Returns:
            The bytes that reach the host, and the extra delay, ns.
        """
        delay_ns = 0
        for armed in self._replies:
            fault, turn = armed.fault, armed.seen - armed.fault.nth
            armed.seen += 1
            if not 0 <= turn < fault.count:
                continue
            if isinstance(fault, DropReply):
                parts = []
            elif isinstance(fault, TruncateReply):
                parts = parts[: fault.devices]
            elif isinstance(fault, DelayReply):
                delay_ns += fault.delay_ns
            elif isinstance(fault, CorruptReply):
                parts = [_flip(b"".join(parts), fault.index, fault.mask)]
        self._replies = [armed for armed in self._replies if armed.seen < armed.fault.nth + armed.fault.count]
        return b"".join(parts), delay_ns


def _flip(data: bytes, index: int, mask: int) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[index % len(data)] ^= mask
    return bytes(changed)
