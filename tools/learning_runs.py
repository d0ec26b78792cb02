"""Runs of ``bench_learning.py``: one process each, finished ones kept, cut ones gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import chdir
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from learning_machine import ROOT, Machine
from learning_tasks import Task

from robotsac.config import load_config, load_learner_settings
from robotsac.errors import ConfigError
from robotsac.learner.durable import write_file
from robotsac.learner.resume_rules import tree_differences
from robotsac.lock import FileLock
from robotsac.signals import counted_signals

ASKED, LOG = "asked.json", "log.txt"
CONFIG, METRICS, SUMMARY, LOCK = "config.json", "metrics.jsonl", "summary.json", "sync.lock"
OPTIONS = ("--robot", "--config", "--set")
POLL_S = 0.2
PATIENCE_S = 60.0


class State(Enum):
    """How a run stands."""

    NEW = "new"
    RUNNING = "running in another process"
    CUT = "cut short"
    DIVERGED = "diverged"
    FINISHED = "finished"


TO_DO = (State.NEW, State.CUT)
"""What has diverged is a result: made again until it does not, it would be left out of the mean."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One seed of one variant of one task; its files lie in ``folder``."""

    task: Task
    variant: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.task.name}/{self.variant}/seed {self.seed}"

    def arguments(self) -> list[str]:
        """Of ``robotsac train --sync``, but for the run folder; from the repository's root."""
        task = self.task
        plan = ["--steps", str(task.steps), "--eval-every", str(task.eval_every)]
        plan += ["--eval-episodes", str(task.eval_episodes), "--seed", str(self.seed)]
        options = [word for option in (*task.options, *task.variants[self.variant]) for word in ("--set", option)]
        return [*task.arguments, *plan, *options]

    def settings(self) -> dict[str, Any]:
        """What these arguments come to now, files and defaults included, as JSON data.

        Raises:
            ConfigError: a mistake in them.
        """
        words = self.arguments()
        given = {option: [words[k + 1] for k, word in enumerate(words) if word == option] for option in OPTIONS}
        with chdir(ROOT):
            files = [Path(file) for file in given["--config"]]
            if "--env" in words:
                return {"learn": load_learner_settings(files, given["--set"]).learn.model_dump(mode="json")}
            tree = load_config(given["--robot"][-1], files, given["--set"]).model_dump(mode="json")
        del tree["robot"]["model"]  # a path: the same one is another one in another checkout
        return tree

    def state(self) -> State:
        """What its folder says.

        Raises:
            ConfigError: it was made with other settings, or is no run of this benchmark.
        """
        if not self.folder.exists():
            return State.NEW
        self._require_same(_read(self.folder / ASKED))
        summary = self.summary()
        if summary.get("finished"):
            return State.FINISHED
        lock = FileLock(self.folder / LOCK)
        if not lock.acquire():
            return State.RUNNING
        lock.release()
        return State.DIVERGED if summary.get("diverged") else State.CUT

    def _require_same(self, asked: dict[str, Any]) -> None:
        """Refuse what was asked for otherwise, in words or in the files that they name. Raises ConfigError."""
        found = [f"it was asked for {asked.get('arguments', 'nothing that is known')}"]
        if asked.get("arguments") == self.arguments():
            made = asked.get("settings") or _read(self.folder / CONFIG)
            found = tree_differences(made, self.settings(), of_both=True)
        if found:
            raise ConfigError(
                f"{self.folder} holds a run with other settings",
                reason="; ".join(found),
                command=f"mv {self.folder} {self.folder}-old",
            )

    def start(self, machine: Machine) -> subprocess.Popen[bytes]:
        """Start it, or go on with it where it was cut; what earlier starts said stays in its log."""
        goes_on = (self.folder / CONFIG).exists()
        asked = {"arguments": self.arguments(), "settings": self.settings(), "machine": machine.described()}
        self.folder.mkdir(parents=True, exist_ok=True)
        if goes_on:
            asked = _read(self.folder / ASKED)
            asked["resumed_on"] = [*asked.get("resumed_on", []), machine.described()]
        write_file(self.folder / ASKED, json.dumps(asked, indent=2).encode())
        command = [sys.executable, "-m", "robotsac", "train", "--sync", "--json", "--run", str(self.folder)]
        with (self.folder / LOG).open("ab") as log:
            # A session of its own: what ends it is asked for in `run_all`, once.
            return subprocess.Popen(
                [*command, *["--resume"] * goes_on, *self.arguments(), *machine.options()],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def evaluations(self) -> list[dict[str, Any]]:
        """Its lines so far."""
        path = self.folder / METRICS
        if not path.is_file():
            return []
        found = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:  # a last line that was cut
                break
        return found

    def machine(self) -> dict[str, Any]:
        """Where it was made, and where else it went on."""
        asked = _read(self.folder / ASKED)
        found: dict[str, Any] = asked.get("machine", {})
        others = [machine for machine in asked.get("resumed_on", []) if machine != found]
        return {**found, "resumed_on": others} if others else found

    def summary(self) -> dict[str, Any]:
        """Its last word; empty while it has none."""
        return _read(self.folder / SUMMARY)


def runs_of(tasks: Sequence[Task], out: Path, seeds: int | None, variants: Sequence[str]) -> list[Run]:
    """All runs of ``tasks``, seed by seed, so that every variant has some results early."""
    return [
        Run(task, variant, seed, out.resolve() / task.name / variant / f"seed-{seed}")
        for task in tasks
        for seed in range(seeds or task.seeds)
        for variant in task.variants
        if not variants or variant in variants
    ]


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


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
