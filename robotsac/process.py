"""What a process can know and arrange: that it ends with its parent, that another one has been stopped, the cores it has."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
STOPPED = ("T", "t")  # by a signal, by a debugger: proc(5)


def starter() -> int:
    """Process id of the one that started this process, also once that one is gone."""
    parent = multiprocessing.parent_process()
    # A child that has been spawned was told; its own look may come after the parent's end.
    return os.getppid() if parent is None or parent.pid is None else parent.pid


def end_with_parent(number: signal.Signals) -> None:
    """From now on the kernel sends ``number`` to this process when its parent ends, however that ends: prctl(2).

    The parent is the thread that started this process. Where it is gone already, the signal comes at once.

    Args:
        number: SIGKILL while there is nothing to save: it needs no cooperation, of an import that lasts, or of a process
            that was stopped. Later SIGTERM.
    """
    # Another system than Linux has no such call: there the process's own look at its parent has to do.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != starter():
        os.kill(os.getpid(), number)


def cores() -> int:
    """That this process may use: of a large machine a container has a few."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def is_stopped(pid: int) -> bool:
    """Whether a process of this computer stands still because of SIGSTOP, Ctrl-Z or a debugger; False when unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[:1] in ([letter] for letter in STOPPED)
