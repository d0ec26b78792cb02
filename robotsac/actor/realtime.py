"""What the control loop asks of the operating system. Everything degrades: what is not permitted is said and left."""

from __future__ import annotations

import ctypes
import gc
import os
import sys

PR_SET_TIMERSLACK = 29
MCL_CURRENT, MCL_FUTURE = 1, 2
# A thread that computes keeps the interpreter for this long before the loop gets it back; the default is 5 ms.
SWITCH_INTERVAL_S = 0.0005


def make_realtime(priority: int) -> list[str]:
    """Real-time scheduling, locked memory, exact timers, no garbage collection pauses.

    Args:
        priority: SCHED_FIFO priority, 1..90; 0 leaves the scheduler alone.

    Returns:
        What was not permitted, in words; empty when all was.
    """
    refused = []
    libc = ctypes.CDLL(None, use_errno=True)
    if priority > 0:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        except OSError as error:
            refused.append(f"real-time scheduling ({error.strerror})")
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE) != 0:
        refused.append(f"locked memory ({os.strerror(ctypes.get_errno())})")
    if libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0) != 0:
        refused.append(f"exact timers ({os.strerror(ctypes.get_errno())})")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    freeze_garbage()
    return refused


def freeze_garbage() -> None:
    """Collect once, then never in the loop: what is alive now stays, what comes is collected between episodes."""
    gc.collect()
    gc.freeze()
    gc.disable()


def collect_garbage() -> None:
    """Between episodes, while the guard holds the arm: young objects only."""
    gc.collect(1)
