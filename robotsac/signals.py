"""Signals as a count that a loop reads, instead of an exception in the middle of something."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

# SIGHUP is what a closed terminal or a dropped ssh connection sends: as much a reason to stop in order as Ctrl-C.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class SignalCount:
    """How many stop signals have arrived."""

    count: int = 0


@contextmanager
def counted_signals() -> Iterator[SignalCount]:
    """Count SIGINT, SIGTERM and SIGHUP in a ``with`` block; the old handlers come back afterwards.

    Outside the main thread, where Python takes no signals, the count stays 0.
    """
    seen = SignalCount()
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return

    hung_up = False

    def count(number: int, _frame: FrameType | None) -> None:
        nonlocal hung_up
        # Shell and kernel may both send SIGHUP for one closed terminal; that is no second request.
        if number != signal.SIGHUP or not hung_up:
            seen.count += 1
        hung_up = hung_up or number == signal.SIGHUP

    old = {number: signal.signal(number, count) for number in STOP_SIGNALS}
    try:
        yield seen
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def leave_signals_to_supervisor() -> None:
    """In a child process: what the terminal sends to the whole group is the supervisor's to decide about."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@contextmanager
def children_spared() -> Iterator[None]:
    """Processes started in this ``with`` block ignore the terminal's signals from their first instruction on.

    A child inherits what is ignored; without this a Ctrl-C in its first second, while it still imports, would end it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
