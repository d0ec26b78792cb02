"""A run of ``bench_learning.py``: what it is asked for, how it stands, its process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from learning_machine import ROOT, Machine
from learning_tasks import Task, shortened

from robotsac.child_error import read_logged_error
from robotsac.cli.enough_steps import require_enough
from robotsac.config import load_config, load_gym_settings
from robotsac.errors import ConfigError, RobotsacError
from robotsac.learner.durable import write_file
from robotsac.learner.resume_rules import tree_differences
from robotsac.lock import FileLock

ASKED, LOG = "asked.json", "log.txt"
CONFIG, METRICS, SUMMARY, LOCK = "config.json", "metrics.jsonl", "summary.json", "sync.lock"
OPTIONS = ("--robot", "--config", "--set")


class State(Enum):
    """How a run stands."""

    NEW = "new"
    RUNNING = "running in another process"
    CUT = "cut short"
    DIVERGED = "diverged"
    FINISHED = "finished"


TO_DO = (State.NEW, State.CUT)
"""What has diverged is a result: made again until it does not, it would be left out of the mean."""


@dataclass(frozen=True, slots=True)
class Life:
    """One start of a run; what it says stands in the run's log from byte ``log_start`` on."""

    process: subprocess.Popen[bytes]
    log_start: int


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

    @property
    def label(self) -> str:
        """The name, where a line must have room for more."""
        return f"{shortened(self.task.name)}/{self.variant}/seed {self.seed}"

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
            ConfigError: a mistake in them, or steps that are too few to learn anything from.
        """
        words = self.arguments()
        given = {option: [words[k + 1] for k, word in enumerate(words) if word == option] for option in OPTIONS}
        with chdir(ROOT):
            files = [Path(file) for file in given["--config"]]
            if self.task.env_id is not None:
                settings = load_gym_settings(files, given["--set"])
                require_enough(self.task.steps, settings.learn)
                return settings.model_dump(mode="json", exclude={"link"})
            config = load_config(given["--robot"][-1], files, given["--set"])
        require_enough(self.task.steps, config.learn)
        tree = config.model_dump(mode="json")
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

    def start(self, machine: Machine) -> Life:
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
            log_start = log.tell()
            # A session of its own: what ends it is asked for in `learning_queue`, once.
            process = subprocess.Popen(
                [*command, *["--resume"] * goes_on, *self.arguments(), *machine.options()],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return Life(process, log_start)

    def error(self, life: Life) -> RobotsacError | None:
        """What ``life`` ended with; ``None`` where it ended without a word."""
        return read_logged_error(self.folder / LOG, life.log_start)

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


def runs_of(
    tasks: Sequence[Task], out: Path, seeds: int | None, variants: Sequence[str], first_seed: int = 0
) -> list[Run]:
    """All runs of ``tasks``, seed by seed, so that every variant has some results early."""
    return [
        Run(task, variant, seed, out.resolve() / task.name / variant / f"seed-{seed}")
        for task in tasks
        for seed in range(first_seed, first_seed + seeds if seeds else task.seeds)
        for variant in task.variants
        if not variants or variant in variants
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
