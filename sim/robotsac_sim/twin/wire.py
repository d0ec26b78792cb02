"""The wire: half duplex, one byte after another, each lasting ten bit times.

Who speaks while another does garbles both. What a garbled byte reads as depends on levels and phases; here it is the byte
with some bits turned over, so that no overlap ever passes for a clean frame.
"""

from __future__ import annotations

from dataclasses import dataclass

GARBLE = 0x5A


def garbled(data: bytes) -> bytes:
    """``data`` with somebody else speaking at the same time."""
    return bytes(byte ^ GARBLE for byte in data)


@dataclass(slots=True)
class Burst:
    """Bytes that one device sends back to back."""

    start_ns: int
    byte_ns: int
    data: bytearray
    taken: int = 0

    @property
    def end_ns(self) -> int:
        """When its last byte is complete."""
        return self.start_ns + len(self.data) * self.byte_ns

    def garble(self, from_ns: int, to_ns: int) -> None:
        """Spoil the bytes that are on the wire in a window."""
        first = max(self.taken, (from_ns - self.start_ns) // self.byte_ns)
        last = min(len(self.data), -((self.start_ns - to_ns) // self.byte_ns))
        for index in range(first, last):
            self.data[index] ^= GARBLE


class Wire:
    """What is on the wire, and what will be.

    Attributes:
        host_free_ns: when the host's last byte has gone out.
        collisions: how often two spoke at once.
    """

    def __init__(self) -> None:
        self.host_free_ns = 0
        self.collisions = 0
        self._bursts: list[Burst] = []

    def host_sends(self, data: bytes, t_ns: int, byte_ns: int) -> tuple[bytes, int]:
        """The host hands over bytes at ``t_ns``; they leave after what it handed over before.

        Returns:
            The bytes as the devices hear them, and when the first one starts.
        """
        start_ns = max(t_ns, self.host_free_ns)
        self.host_free_ns = end_ns = start_ns + len(data) * byte_ns
        hit = [burst for burst in self._bursts if burst.start_ns < end_ns and burst.end_ns > start_ns]
        if not hit:
            return data, start_ns
        self.collisions += 1
        heard = Burst(start_ns, byte_ns, bytearray(data))
        for burst in hit:
            heard.garble(burst.start_ns, burst.end_ns)
            burst.garble(start_ns, end_ns)
        return bytes(heard.data), start_ns

    def device_sends(self, data: bytes, start_ns: int, byte_ns: int) -> int:
        """A device sends ``data`` from ``start_ns`` on; returns when it is done."""
        burst = Burst(start_ns, byte_ns, bytearray(data))
        if start_ns < self.host_free_ns:
            self.collisions += 1
            burst.garble(start_ns, self.host_free_ns)
        for other in list(self._bursts):
            if other.start_ns < burst.end_ns and other.end_ns > burst.start_ns:
                self.collisions += 1
                other.garble(burst.start_ns, burst.end_ns)
                # One wire carries one byte at a time: what was sent under the other's bytes is gone.
                _cut(burst, other)
        if burst.data:
            self._bursts.append(burst)
            self._bursts.sort(key=lambda each: each.start_ns)
        return start_ns + len(data) * byte_ns

    def take(self, t_ns: int) -> bytes:
        """Bytes whose end has come by ``t_ns``, in order, each once."""
        bursts = self._bursts
        if not bursts:
            return b""
        out = bytearray()
        for burst in bursts:
            count = min(len(burst.data), (t_ns - burst.start_ns) // burst.byte_ns)
            if count > burst.taken:
                out += burst.data[burst.taken : count]
                burst.taken = count
        self._bursts = [burst for burst in bursts if burst.taken < len(burst.data)]
        return bytes(out)

    def next_byte_ns(self) -> int | None:
        """When the next byte not yet taken will be complete."""
        ends = [burst.start_ns + (burst.taken + 1) * burst.byte_ns for burst in self._bursts]
        return min(ends, default=None)

    def next_burst_ns(self) -> int | None:
        """When the first burst not yet taken will be complete."""
        return min((burst.end_ns for burst in self._bursts), default=None)

    def discard(self) -> int:
        """Forget everything not yet taken; returns how many bursts that were."""
        count = len(self._bursts)
        self._bursts = []
        return count


def _cut(burst: Burst, other: Burst) -> None:
    """Take out of ``burst`` what lies under ``other``: its head where it starts inside, else its tail."""
    if burst.start_ns >= other.start_ns:
        count = min(len(burst.data), -((burst.start_ns - other.end_ns) // burst.byte_ns))
        del burst.data[:count]
        burst.start_ns += count * burst.byte_ns
    else:
        del burst.data[(other.start_ns - burst.start_ns) // burst.byte_ns :]
