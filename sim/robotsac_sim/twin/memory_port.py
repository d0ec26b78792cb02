"""The bus in memory, on a clock turned by hand: fast, exact, repeatable.

bus = build_bus(robot)
clock = ManualClock(on_advance=bus.advance)
port = MemoryPort(bus, clock)
"""

from __future__ import annotations

from robotsac.clock import Clock
from robotsac.errors import BusLost
from robotsac_sim.twin.bus import VirtualBus


class MemoryPort:
    """The host's end of the bus.

    Args:
        bus: advanced by ``clock``.
        clock: passes only inside :meth:`read`, and by whoever else sleeps on it.
        name: shown in errors.
        byte_by_byte: return each byte as it comes, as a native UART may; else whole bursts, as a USB adapter does.
    """

    def __init__(self, bus: VirtualBus, clock: Clock, *, name: str = "memory", byte_by_byte: bool = False) -> None:
        self.name = name
        self._bus = bus
        self._clock = clock
        self._whole_bursts = not byte_by_byte
        self._received = bytearray()
        self._closed = False

    def write(self, data: bytes) -> None:
        """Hand ``data`` to the wire; returns at once.

        Raises:
            BusLost: the port is closed or unplugged.
        """
        self._require_open()
        self._bus.feed(bytes(data), self._clock.now_ns())

    def read(self, size_max: int, deadline_ns: int) -> bytes:
        """Up to ``size_max`` bytes, as soon as there is one; ``b""`` after sleeping to ``deadline_ns``.

        Raises:
            BusLost: the port is closed or unplugged.
        """
        while True:
            self._require_open()
            now_ns = self._clock.now_ns()
            self._received += self._bus.take(now_ns)
            if self._received:
                data = bytes(self._received[:size_max])
                del self._received[:size_max]
                return data
            if now_ns >= deadline_ns:
                return b""
            event_ns = self._bus.next_event_ns(whole_bursts=self._whole_bursts)
            self._clock.sleep_until(deadline_ns if event_ns is None else min(event_ns, deadline_ns))

    def discard_input(self) -> None:
        """Forget what has arrived and was not read."""
        self._bus.take(self._clock.now_ns())
        self._received.clear()

    def close(self) -> None:
        """Let go of the bus. Idempotent; the servos keep running."""
        self._closed = True

    def _require_open(self) -> None:
        if self._closed or self._bus.unplugged:
            raise BusLost(f"{self.name}: the port is gone")
