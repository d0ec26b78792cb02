"""Signals as a count that a loop reads, instead of an exception in the middle of something."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
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


def obey_supervisor(on_terminate: Callable[[], object] = lambda: None) -> SignalCount:
    """In a child process: only SIGTERM ends it. Returns the count of them; each also calls ``on_terminate``.

    What a terminal sends to the whole group is the supervisor's to decide about. A SIGTERM that came since the process
    was started (see ``signals_held``) counts.
    """
    told = SignalCount()

    def terminate(_number: int, _frame: FrameType | None) -> None:
        told.count += 1
        on_terminate()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    return told


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back the stop signals in a ``with`` block, also in every process started in it until ``obey_supervisor``.

    A child inherits what is blocked. Without this a Ctrl-C or a ``systemctl stop``, which reach every process at once,
    would end a child that still imports, before it knows how to end in order. Nothing is lost: a signal that came
    meanwhile is delivered afterwards.
    """
    # It would lift the blockade if it had to start its tracker in the block.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
