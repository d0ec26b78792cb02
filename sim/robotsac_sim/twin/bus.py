"""The virtual servo bus: bytes in, bytes out, each at its time.

Time is an argument everywhere: ``feed`` bytes at a time, ``advance`` to a time, ``take`` what has come by a time.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence

from robotsac.errors import ConfigError
from robotsac_sim.twin.assumed import ASSUMED, Assumptions
from robotsac_sim.twin.codec import Instruction, InstructionParser
from robotsac_sim.twin.dialogue import Counters, Dialogue
from robotsac_sim.twin.fault_effects import apply_fault
from robotsac_sim.twin.faults import Fault, FaultInjector
from robotsac_sim.twin.physics import Physics
from robotsac_sim.twin.protocol import BITS_PER_BYTE
from robotsac_sim.twin.servo import Servo, WriteObserver
from robotsac_sim.twin.wire import Wire
from robotsac_sim.twin.world import World

NS_PER_S = 1_000_000_000


class Overlap(enum.Enum):
    """What becomes of a reply that is still under way when the host speaks again."""

    # Both are garbled, as on the wire. For exact time.
    COLLIDE = "collide"
    # The reply is lost, the instruction is heard. For real time, where being late may be the twin's own fault.
    SUPERSEDE = "supersede"


class VirtualBus:
    """Servos on one wire.

    Args:
        servos: in config joint order; ``physics`` has as many joints.
        physics: what the servos move; its time starts at 0, as the bus's does.
        supply_v: open-circuit voltage.
        assumed: named assumptions.
        overlap: see :class:`Overlap`.
        allow_faults: whether :meth:`inject` is open.

    Attributes:
        unplugged: fault: the port to the host is gone.
        counters: packets, replies, errors.
        parser, wire, world: for what they count.
    """

    def __init__(
        self,
        servos: Sequence[Servo],
        physics: Physics,
        *,
        supply_v: float = 12.0,
        assumed: Assumptions = ASSUMED,
        overlap: Overlap = Overlap.COLLIDE,
        allow_faults: bool = False,
    ) -> None:
        self.servos = tuple(servos)
        self.world = World(self.servos, physics, supply_v, assumed)
        self.wire = Wire()
        self.parser = InstructionParser()
        self.counters = Counters()
        self.unplugged = False
        self._dialogue = Dialogue(self.servos, self._send, self.counters, assumed)
        self._overlap = overlap
        self._injector = FaultInjector() if allow_faults else None
        self._pending: deque[Instruction] = deque()
        self.host_baud = self.servos[0].configured.baud

    @property
    def host_baud(self) -> int:
        """Bit/s at which the host sends; a servo set to another rate hears nothing."""
        return self._host_baud

    @host_baud.setter
    def host_baud(self, baud: int) -> None:
        self._host_baud = baud
        self._byte_ns = BITS_PER_BYTE * NS_PER_S // baud

    @property
    def byte_ns(self) -> int:
        """How long one byte lasts."""
        return self._byte_ns

    @property
    def t_ns(self) -> int:
        """How far time has come."""
        return self.world.t_ns

    def feed(self, data: bytes, t_ns: int) -> None:
        """The host hands ``data`` to its adapter at ``t_ns``; the bytes leave at the host's baud rate."""
        self.advance(t_ns)
        if self.unplugged or not data:
            return
        if self._overlap is Overlap.SUPERSEDE:
            self.counters.superseded += self.wire.discard()
        heard, start_ns = self.wire.host_sends(data, max(t_ns, self.t_ns), self._byte_ns)
        self._pending.extend(self.parser.push(heard, start_ns, self._byte_ns))

    def advance(self, t_ns: int) -> None:
        """Let everything happen that happens up to ``t_ns``. A time in the past changes nothing."""
        while (next_ns := self._next_cause_ns()) is not None and next_ns <= t_ns:
            self.world.run_to(next_ns)
            if self._injector is not None and self._injector.due_ns == next_ns:
                for fault, ends in self._injector.pop_due(next_ns):
                    apply_fault(self, self._injector, fault, ends=ends)
            else:
                self._dialogue.handle(self._pending.popleft(), self._host_baud)
        self.world.run_to(t_ns)

    def take(self, t_ns: int) -> bytes:
        """Bytes that have reached the host by ``t_ns``, each once. Call :meth:`advance` first."""
        return b"" if self.unplugged else self.wire.take(t_ns)

    def next_byte_ns(self) -> int | None:
        """When the next reply byte is complete, as far as that is known at :attr:`t_ns`."""
        return self.wire.next_byte_ns()

    def next_event_ns(self, *, whole_bursts: bool = False) -> int | None:
        """When something next happens on the wire: an instruction is complete, or a reply byte (or burst) is.

        Of an unplugged port, replies are nobody's event: they would stay the next one for ever, as nobody takes them.
        """
        reply_ns = self.wire.next_burst_ns() if whole_bursts else self.wire.next_byte_ns()
        return _earliest(self._next_cause_ns(), None if self.unplugged else reply_ns)

    @property
    def last_arrival_ns(self) -> int | None:
        """When the last instruction now on the wire is complete; ``None`` when there is none."""
        return self._pending[-1].t_ns if self._pending else None

    def watch(self, observer: WriteObserver | None) -> None:
        """Report every accepted register write of every servo to ``observer``."""
        for servo in self.servos:
            servo.on_write = observer

    def inject(self, *faults: Fault) -> None:
        """Let faults happen.

        Raises:
            ConfigError: this bus was not built for faults.
        """
        if self._injector is None:
            raise ConfigError("the virtual bus was asked for a fault", reason="it was built with allow_faults=False")
        for fault in faults:
            if fault.at_ns is None or fault.at_ns <= self.t_ns:
                apply_fault(self, self._injector, fault, ends=False)
            else:
                self._injector.schedule(fault, fault.at_ns)

    def _next_cause_ns(self) -> int | None:
        arrival_ns = self._pending[0].t_ns if self._pending else None
        return _earliest(arrival_ns, self._injector.due_ns if self._injector is not None else None)

    def _send(self, parts: list[bytes], start_ns: int) -> int:
        """Put one reply on the wire; the end is the one that the other devices hear."""
        end_ns = start_ns + sum(map(len, parts)) * self._byte_ns
        data = b"".join(parts)
        if self._injector is not None:
            data, delay_ns = self._injector.on_reply(parts)
            start_ns += delay_ns
            end_ns += delay_ns
        self.counters.replies += 1
        if self._pending and self._overlap is Overlap.SUPERSEDE:
            self.counters.superseded += 1
        elif data:
            self.wire.device_sends(data, start_ns, self._byte_ns)
            self._drown(start_ns, end_ns)
        return end_ns

    def _drown(self, start_ns: int, end_ns: int) -> None:
        """Instructions that arrive while a reply is on the wire are not understood."""
        clear = [each for each in self._pending if each.start_ns >= end_ns or each.t_ns <= start_ns]
        if len(clear) != len(self._pending):
            self._pending = deque(clear)


def _earliest(first: int | None, second: int | None) -> int | None:
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)
