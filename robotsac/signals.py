"""Signals as a count that a loop reads, instead of an exception in the middle of something."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from types import FrameType

from robotsac.early_interrupt import EARLY

# SIGHUP is what a closed terminal or a dropped ssh connection sends: as much a reason to stop in order as Ctrl-C.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None


@dataclass(slots=True)
class SignalCount:
    """How many stop signals have arrived."""

    count: int = 0


@contextmanager
def stop_signals_call(on_stop: Callable[[int], object]) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP call ``on_stop`` with their number in a ``with`` block; the old handlers come back afterwards.

    Outside the main thread, where Python takes no signals, nothing changes.

    Raises:
        KeyboardInterrupt: Ctrl-C came before, and a library that was being imported has swallowed it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, lambda which, _frame: on_stop(which)) for number in STOP_SIGNALS}
    try:
        EARLY.raise_if_seen()
        yield
    finally:
        _put_back(old)


@contextmanager
def counted_signals() -> Iterator[SignalCount]:
    """Count SIGINT, SIGTERM and SIGHUP in a ``with`` block; the rest as in ``stop_signals_call``."""
    seen = SignalCount()
    hung_up = False

    def count(number: int) -> None:
        nonlocal hung_up
        # Shell and kernel may both send SIGHUP for one closed terminal; that is no second request.
        if number != signal.SIGHUP or not hung_up:
            seen.count += 1
        hung_up = hung_up or number == signal.SIGHUP

    with stop_signals_call(count):
        yield seen


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
def signals_deferred() -> Iterator[None]:
    """Stop signals come after the ``with`` block instead of in it, and never to a process that is started in it.

    Meanwhile only SIGKILL and SIGQUIT (Ctrl-\\) end this process: for what is short. Outside the main thread they are only
    kept from this thread and from what it starts.
    """
    came: list[int] = []
    old: dict[signal.Signals, Handler] = {}
    # What this thread blocks, one that a library has started may take; Python's handlers run in the main thread all the same.
    if threading.current_thread() is threading.main_thread():
        heard = [number for number in STOP_SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        old = {number: signal.signal(number, lambda which, _frame: came.append(which)) for number in heard}
    try:
        with _signals_blocked():
            yield
    finally:
        _put_back(old)
        for late in sorted(came, reverse=True):
            signal.raise_signal(late)


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back the stop signals in a ``with`` block, also in every process started in it until ``obey_supervisor``.

    Without this a Ctrl-C or a ``systemctl stop``, which reach every process at once, would end a child that still imports,
    before it knows how to end in order. Nothing is lost: a signal that came meanwhile is delivered afterwards.
    """
    # It would lift the blockade if it had to start its tracker in the block.
    resource_tracker.ensure_running()
    with _signals_blocked():
        yield


def _put_back(handlers: dict[signal.Signals, Handler]) -> None:
    """SIGINT's last, which may raise."""
    for number, handler in sorted(handlers.items(), reverse=True):
        if handler is not None:  # one that was not set from Python cannot be set again from there
            signal.signal(number, handler)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """In this thread and, since what is blocked is inherited, in every process that it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
