"""The bus in real time: one loop that sleeps until a byte comes, a reply is due, or physics has waited long enough.

Bus time is host time minus what has slipped. When this process was not run for a while, the bytes that waited are handled
first and bus time goes on where it stopped: a servo's watchdog must not expire, and an arm must not fall, because the twin
was late. What slipped is counted and reported.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import stat
import time
from dataclasses import dataclass

from robotsac_sim.twin.bus import VirtualBus
from robotsac_sim.twin.pty_port import PtyPort

NS_PER_S = 1_000_000_000
# Longest sleep: how far physics may fall behind while nobody speaks.
IDLE_NS = 5_000_000
# A loop later than this was not run; time stops for it.
SLIP_NS = 20_000_000
# An instruction whose last byte is this close is dealt with at once, which saves a wake-up.
LEAD_NS = 1_000_000
# How long to stay after the parent has gone: long enough to see the servos' watchdogs act.
LINGER_NS = 2_000_000_000
PRIORITY = 60
PR_SET_TIMERSLACK = 29
STDIN = 0


@dataclass(slots=True)
class LoopReport:
    """What the loop can say about itself."""

    wakeups: int = 0
    slips: int = 0
    slipped_ns: int = 0
    late_max_ns: int = 0


class RealTimeLoop:
    """Serves a bus on a pty.

    Args:
        bus: with ``Overlap.SUPERSEDE``.
        port: the host's end.
        seconds: how long; ``None`` until :meth:`stop`.
        watch_parent: end ``LINGER_NS`` after the end of standard input, when that is a pipe.
    """

    def __init__(self, bus: VirtualBus, port: PtyPort, *, seconds: float | None, watch_parent: bool = True) -> None:
        self.report = LoopReport()
        self._bus = bus
        self._port = port
        self._stopping = False
        self._origin_ns = time.monotonic_ns()
        self._end_ns = None if seconds is None else self._origin_ns + int(seconds * NS_PER_S)
        self._linger_end_bus_ns: int | None = None
        self._inputs = [port.fd]
        if watch_parent and stdin_is_pipe():
            self._inputs.append(STDIN)

    def stop(self) -> None:
        """End after the present turn; may be called from a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Serve until told to stop, until the time is over, or for a while after the parent has gone."""
        now_ns = time.monotonic_ns()
        while not self._stopping and not self._over(now_ns):
            planned_ns = self._next_wake_ns(now_ns)
            ready = select.select(self._inputs, (), (), max(0, planned_ns - now_ns) / NS_PER_S)[0]
            now_ns = time.monotonic_ns()
            self._count(now_ns - planned_ns)
            if STDIN in ready:
                self._read_stdin(now_ns)
            if self._port.fd in ready:
                self._listen(min(now_ns, planned_ns))
            self._bus.advance(self._to_bus(now_ns))
            self._speak(now_ns)

    def _over(self, now_ns: int) -> bool:
        """Whether the time is over, or the linger: that one in bus time, so that a pause does not eat what it is for."""
        lingered = self._linger_end_bus_ns is not None and self._to_bus(now_ns) >= self._linger_end_bus_ns
        return lingered or (self._end_ns is not None and now_ns >= self._end_ns)

    def _next_wake_ns(self, now_ns: int) -> int:
        wake_ns = now_ns + IDLE_NS
        event_ns = self._bus.next_event_ns(whole_bursts=True)
        return wake_ns if event_ns is None else min(wake_ns, self._to_host(event_ns))

    def _count(self, late_ns: int) -> None:
        report = self.report
        report.wakeups += 1
        report.late_max_ns = max(report.late_max_ns, late_ns)
        if late_ns > SLIP_NS:
            report.slips += 1
            report.slipped_ns += late_ns

    def _listen(self, seen_ns: int) -> None:
        """Bytes that are here had come by the time this loop meant to wake; more is not known."""
        data = self._port.read()
        if not data:
            return
        baud = self._port.baud()
        if baud:
            self._bus.host_baud = baud
        t_ns = self._to_bus(seen_ns)
        self._bus.feed(data, t_ns)
        arrival_ns = self._bus.last_arrival_ns
        if arrival_ns is not None and arrival_ns - t_ns < LEAD_NS:
            self._bus.advance(arrival_ns)

    def _speak(self, now_ns: int) -> None:
        if self._bus.unplugged:
            self._unplug(now_ns)
            return
        t_ns = self._to_bus(now_ns)
        burst_ns = self._bus.wire.next_burst_ns()
        if burst_ns is not None and burst_ns <= t_ns:
            self._port.write(self._bus.take(t_ns))

    def _unplug(self, now_ns: int) -> None:
        if self._port.fd in self._inputs:
            self._inputs.remove(self._port.fd)
            self._port.close()
            self._linger(now_ns)

    def _read_stdin(self, now_ns: int) -> None:
        if not os.read(STDIN, 4096):
            self._inputs.remove(STDIN)
            self._linger(now_ns)

    def _linger(self, now_ns: int) -> None:
        if self._linger_end_bus_ns is None:
            self._linger_end_bus_ns = self._to_bus(now_ns) + LINGER_NS

    def _to_bus(self, host_ns: int) -> int:
        return host_ns - self._origin_ns - self.report.slipped_ns

    def _to_host(self, bus_ns: int) -> int:
        return bus_ns + self._origin_ns + self.report.slipped_ns


def become_real_time() -> str:
    """Ask for real-time scheduling and exact timers; returns in words what was granted."""
    gc.collect()
    gc.freeze()
    gc.disable()
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except (OSError, AttributeError) as error:
        return f"normal scheduling ({error})"
    return f"SCHED_FIFO {PRIORITY}"


def stdin_is_pipe() -> bool:
    """Whether standard input tells when the parent dies."""
    try:
        return stat.S_ISFIFO(os.fstat(STDIN).st_mode)
    except OSError:
        return False
