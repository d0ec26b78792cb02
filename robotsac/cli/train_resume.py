"""A run of ``train`` that was cut: what it has done, and whether it can go on as it was begun."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from robotsac.actor.contract import robot_contract
from robotsac.actor.folder import CONFIG_FILE
from robotsac.cli.console import typed_with
from robotsac.config import Config, SpoolConfig
from robotsac.errors import ConfigError, RobotsacError
from robotsac.learner.resume_rules import differences
from robotsac.learner.run_folder import run_option
from robotsac.spool import Spool


@dataclass(frozen=True, slots=True)
class Done:
    """What earlier lives of a run did. An episode that was cut by force may be counted one step short."""

    steps: int = 0
    episodes: int = 0


def require_new(folder: Path, robot: str) -> Done:
    """Refuse a folder that holds a run. Returns what it has done: nothing. Raises ConfigError."""
    if (folder / "learner").exists() or (folder / "robot").exists():
        raise ConfigError(
            f"run folder {folder} exists already",
            reason="without --resume, train begins a new run",
            command=typed_to_resume(folder),
        )
    if (folder / "run.json").exists():
        raise ConfigError(
            f"run folder {folder} exists already",
            reason="it is one of robotsac learn",
            command=f"robotsac train --robot {shlex.quote(robot)}",
        )
    return Done()


def require_resumable(folder: Path, robot: str, config: Config, steps: int) -> Done:
    """What a run that was cut has done.

    Raises:
        ConfigError: there is no such run, it was begun with other settings, or it has all its ``steps``.
        StorageError: its records cannot be read.
    """
    if not (folder / "learner").exists():
        raise ConfigError(
            f"there is no run to resume in {folder}",
            reason="no learner has begun one there",
            command=_typed_anew(folder),
        )
    if changed := _changed(folder / CONFIG_FILE, config):
        raise ConfigError(
            f"run {folder} cannot be resumed with other settings",
            reason="; ".join(changed),
            command=_typed_anew(folder, "-2"),
        )
    done = _done(folder / "robot" / "spool.db")
    if done.steps >= steps:
        raise ConfigError(
            f"run {folder} has done {done.steps:,} of {steps:,} steps",
            reason="at most its evaluation is missing; with more --steps it goes on",
            command=eval_command(robot, folder),
        )
    return done


def typed_to_resume(folder: Path) -> str:
    """What was typed, as it goes on with ``folder``."""
    typed = typed_with(("--run", run_option(folder)))
    return typed if "--resume" in shlex.split(typed) else f"{typed} --resume"


def _typed_anew(folder: Path, suffix: str = "") -> str:
    """What was typed, as it begins a run in ``folder``, or in another one."""
    typed = shlex.split(typed_with(("--run", run_option(folder, suffix))))
    return shlex.join(word for word in typed if word != "--resume")


def eval_command(robot: str, folder: Path) -> str:
    """The evaluation alone."""
    return f"robotsac eval --robot {shlex.quote(robot)} --policy {shlex.quote(str(folder))}"


def _changed(file: Path, config: Config) -> list[str]:
    """What would make it another run, in words; a file that cannot be read says nothing, and the learner will look."""
    try:
        before = Config.model_validate_json(file.read_bytes())
        arm = robot_contract(before).difference(robot_contract(config))
    except (OSError, ValueError, RobotsacError):
        return []
    return ([f"run against command line: {arm}"] if arm else []) + differences(
        before.learn.model_dump(mode="json"), config.learn
    )


def _done(spool: Path) -> Done:
    """From a robot's spool, sent or not: each step has a record, and one more closes each episode."""
    if not spool.exists():
        return Done()
    steps = episodes = 0
    with Spool(spool, SpoolConfig()) as store:
        for boot in store.boots():
            last = store.pending(boot.boot, boot.last_seq - 1, 1)
            ended = int(last["episode"][-1]) if len(last) else 0
            steps, episodes = steps + boot.last_seq + 1 - ended, episodes + ended
    return Done(steps, episodes)
