"""Stop signals: none is lost, whenever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from robotsac.early_interrupt import EarlyInterrupt
from robotsac.signals import STOP_SIGNALS, counted_signals, signals_deferred, stop_signals_call

# Ctrl-C at a known place of the imports, and an extension module that makes nothing of it.
SWALLOWED = """
import signal
import sys
import time


class Swallows:
    def find_spec(self, name, path=None, target=None):
        if name == "pydantic":
            try:
                signal.raise_signal(signal.SIGINT)
                time.sleep(10)
            except KeyboardInterrupt:
                print("swallowed", file=sys.stderr)


sys.meta_path.insert(0, Swallows())
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["collect", "--robot", "arm0-twin", "--run", "bot", "--offline"],
        ["train", "--robot", "arm0-sim", "--run", "all"],
        ["twin", "--robot", "arm0"],
        ["learn", "--run", "brain"],
        ["train", "--sync", "--env", "Pendulum-v1", "--run", "swing"],
    ],
)
def test_a_ctrl_c_that_a_library_swallows_while_it_loads_ends_the_command(tmp_path, arguments):
    """Modules of MuJoCo do; the arm once moved on until the second one."""
    (tmp_path / "sitecustomize.py").write_text(SWALLOWED)
    done = subprocess.run(
        [sys.executable, "-m", "robotsac", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("swallowed\n")
    assert "homing" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_early_interrupt_is_raised_at_once_and_once_more(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # as it is now afterwards
    before, early = signal.getsignal(signal.SIGINT), EarlyInterrupt()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        early.listen()
        early.raise_if_seen()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            early.raise_if_seen()
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_ignored_interrupt_stays_ignored():
    """As a shell starts what it runs in the background."""
    before, early = signal.getsignal(signal.SIGINT), EarlyInterrupt()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        early.listen()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_each_stop_signal_counts_and_a_closed_terminal_once():
    """Shell and kernel may both tell of the terminal."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    with counted_signals() as signals:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert signals.count == 4
    assert {number: signal.getsignal(number) for number in STOP_SIGNALS} == before


def test_a_thread_leaves_signals_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def listen() -> None:
        with stop_signals_call(seen.append):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join(10)
    assert seen == [before]


CALLBACK = """
import signal
import time
import weakref

from robotsac.early_interrupt import EARLY


class Thing:
    pass


def callback(_):
    signal.raise_signal(signal.SIGINT)
    time.sleep(10)


EARLY.listen()
thing = Thing()
gone = weakref.ref(thing, callback)
del thing
assert EARLY.seen
broken = Thing()
gone = weakref.ref(broken, lambda _: 1 / 0)
del broken
"""


def test_an_interrupt_where_python_cannot_raise_is_silent_and_remembered():
    done = subprocess.run([sys.executable, "-c", CALLBACK], capture_output=True, text=True, timeout=60, check=True)
    assert "KeyboardInterrupt" not in done.stderr
    assert "ZeroDivisionError" in done.stderr, "anything else is told of as ever"


def test_a_deferred_signal_comes_after_the_block():
    came = []
    with stop_signals_call(came.append):
        with signals_deferred():
            signal.raise_signal(signal.SIGINT)
            assert taken_by_another_thread(signal.SIGINT)
            assert taken_by_another_thread(signal.SIGTERM)
            assert came == []
        assert came == [signal.SIGTERM, signal.SIGINT, signal.SIGINT], "those that may raise come last"


def taken_by_another_thread(number: signal.Signals) -> bool:
    """As a library's own thread may, which blocks nothing."""
    taken = []

    def take() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        signal.raise_signal(number)
        taken.append(number)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join(10)
    return taken == [number]


def test_a_signal_that_is_ignored_is_ignored_when_deferred():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_deferred():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
