"""The runs of ``bench_learning.py`` made: some at a time, finished ones kept, cut ones gone on with."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence

from learning_machine import Machine
from learning_runs import LOG, TO_DO, Run, State

from robotsac.signals import counted_signals

POLL_S = 0.2
PATIENCE_S = 60.0


def run_all(
    runs: Sequence[Run],
    machine: Machine,
    tell: Callable[[str], None],
    show: Callable[[str], None] = lambda line: None,
) -> tuple[list[Run], bool]:
    """Run what is not finished, ``machine.jobs`` at a time.

    Args:
        runs: all of them.
        machine: how.
        tell, show: take what has happened, and how things stand.

    Returns:
        Those that failed or have diverged, and whether a signal ended it before all were done.
    """
    waiting = deque(run for run in runs if run.state() in TO_DO)
    tell(f"{len(runs)} runs, {len(waiting)} to do")
    running: dict[Run, subprocess.Popen[bytes]] = {}
    failed = [run for run in runs if run.state() is State.DIVERGED]
    for run in failed:
        tell(f"{run.name}: has diverged; see {run.folder / LOG}")
    with counted_signals() as signals:
        try:
            while (waiting or running) and not signals.count:
                while waiting and len(running) < machine.jobs:
                    run = waiting.popleft()
                    if run.state() in TO_DO:  # still: another one may have been started on the same folder
                        running[run] = run.start(machine)
                time.sleep(POLL_S)
                failed += _reap(running, tell)
                show(f"{len(waiting)} waiting  " + "  ".join(_progress(run) for run in running))
        finally:
            _stop(running)
    return failed, signals.count > 0


def _progress(run: Run) -> str:
    lines = run.evaluations()
    return f"{run.name} {lines[-1]['env_steps'] if lines else 0:,}/{run.task.steps:,}"


def _reap(running: dict[Run, subprocess.Popen[bytes]], tell: Callable[[str], None]) -> list[Run]:
    """Take out what has ended; those that failed."""
    failed = []
    for run, process in list(running.items()):
        if process.poll() is None:
            continue
        del running[run]
        if run.state() is State.FINISHED:
            last = run.evaluations()[-1]
            tell(f"{run.name}: return {last['return_mean']:.2f} after {last['wall_s']:.0f} s")
        else:
            failed.append(run)
            tell(f"{run.name}: ended with exit code {process.returncode}; see {run.folder / LOG}")
    return failed


def _stop(running: dict[Run, subprocess.Popen[bytes]]) -> None:
    """End what still runs, in order; what does not end in time is left to the kernel."""
    for process in running.values():
        process.send_signal(signal.SIGTERM)
    deadline_s = time.monotonic() + PATIENCE_S
    for process in running.values():
        try:
            process.wait(max(0.1, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
