"""Bus Watchdog (98). Source: e-manual, "Bus Watchdog"; what the page leaves open is marked assumed."""

from __future__ import annotations

UNIT_NS = 20_000_000
EXPIRED = 0xFF


class BusWatchdog:
    """Stops the servo when the bus falls silent.

    Counts only while torque is on; any instruction packet on the bus feeds it, to whomever it is addressed.
    """

    def __init__(self) -> None:
        self.expired = False
        self._period_ns = 0
        self._fed_ns = 0
        self._running = False

    def reset(self) -> None:
        """Power came back: off, and torque is off too."""
        self.expired = False
        self._period_ns = 0
        self._running = False

    @property
    def due_ns(self) -> int | None:
        """When it will expire if nothing comes; ``None`` while it does not count."""
        if not self._running or self.expired or not self._period_ns:
            return None
        return self._fed_ns + self._period_ns

    def feed(self, t_ns: int) -> None:
        """An instruction packet was seen."""
        self._fed_ns = t_ns

    def accepts(self, value: int) -> bool:
        """Whether 98 may be written: after expiry only 0 may (assumed; the page says to write 0 to clear)."""
        return value == 0 or not self.expired

    def arm(self, units: int, t_ns: int) -> None:
        """98 was written: 0 clears and switches off, 1-127 sets the period."""
        self.expired = False
        self._period_ns = units * UNIT_NS
        self._fed_ns = t_ns

    def torque(self, on: bool, t_ns: int) -> None:
        """Torque was switched."""
        self._running = on
        self._fed_ns = t_ns
