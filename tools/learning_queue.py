"""The runs of ``bench_learning.py`` made: some at a time, finished ones kept, cut ones gone on with."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from learning_machine import Machine
from learning_runs import LOG, TO_DO, Life, Run, State

from robotsac.errors import ConfigError, RobotsacError
from robotsac.signals import counted_signals

POLL_S = 0.2
PATIENCE_S = 60.0


def run_all(
    runs: Sequence[Run],
    machine: Machine,
    tell: Callable[[str], None],
    show: Callable[[str], None] = lambda line: None,
) -> tuple[list[Run], bool]:
    """Run what is not finished, ``machine.jobs`` at a time; where one is configured wrongly, no other of its variant.

    Args:
        runs: all of them.
        machine: how.
        tell, show: take what has happened, and how things stand.

    Returns:
        Those that failed or have diverged, and whether a signal ended it before all were done.
    """
    waiting = deque(run for run in runs if run.state() in TO_DO)
    tell(f"{len(runs)} runs, {len(waiting)} to do")
    running: dict[Run, Life] = {}
    refused: dict[Path, Run] = {}  # the first one that was, by its variant's folder
    failed = [run for run in runs if run.state() is State.DIVERGED]
    for run in failed:
        tell(f"{run.label}: has diverged; see {run.folder / LOG}")
    with counted_signals() as signals:
        try:
            while (waiting or running) and not signals.count:
                while waiting and len(running) < machine.jobs:
                    run = waiting.popleft()
                    if alike := refused.get(run.folder.parent):
                        tell(f"{run.label}: not started, it would fail as seed {alike.seed} did")
                    elif run.state() in TO_DO:  # still: another one may have been started on the same folder
                        running[run] = run.start(machine)
                time.sleep(POLL_S)
                failed += _reap(running, refused, tell)
                show(_standing(running, len(waiting), len(runs)))
        finally:
            end([life.process for life in running.values()])
    return failed, any(run.state() is not State.FINISHED for run in (*running, *waiting))


def _standing(running: Iterable[Run], waiting: int, asked: int) -> str:
    """On one line, in parts between which it may be folded."""
    at_work = [_progress(run) for run in running]
    left = [f"{waiting} waiting"] if waiting else []
    return " ·  ".join([f"{len(at_work)} of {asked} runs at work", *at_work, *left])


def _progress(run: Run) -> str:
    lines = run.evaluations()
    return f"{run.label}: {lines[-1]['env_steps'] if lines else 0:,}/{run.task.steps:,}"


def _reap(running: dict[Run, Life], refused: dict[Path, Run], tell: Callable[[str], None]) -> list[Run]:
    """Take out what has ended; those that failed. What is wrong with a configuration is told once, and ``refused``."""
    failed = []
    for run, life in list(running.items()):
        if (code := life.process.poll()) is None:
            continue
        del running[run]
        if run.state() is State.FINISHED:
            last = run.evaluations()[-1]
            tell(f"{run.label}: return {last['return_mean']:.2f} after {last['wall_s']:.0f} s")
        else:
            failed.append(run)
            known = code == ConfigError.exit_code and refused.setdefault(run.folder.parent, run) is not run
            error = None if known else run.error(life)
            tell(f"{run.label}: ended with exit code {code}; see {run.folder / LOG}" + _words(error))
    return failed


def _words(error: RobotsacError | None) -> str:
    """Its lines below another one."""
    if error is None:
        return ""
    lines = {"what": error.message, "why": error.reason, "try": error.command}
    return "".join(f"\n{word:>7}: {said}" for word, said in lines.items() if said)


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs, in order: an arm is parked first. What does not end in time is left to the kernel."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    deadline_s = time.monotonic() + PATIENCE_S
    for process in processes:
        try:
            process.wait(max(0.1, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
