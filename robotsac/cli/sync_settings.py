"""What a run of ``train --sync`` is made with: read from the command line, kept in the run folder, read again to go on."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robotsac.cli.enough_steps import require_enough
from robotsac.cli.options import run_folder
from robotsac.cli.sync_options import ARM_ID, SyncOptions
from robotsac.config import CollectConfig, Config, LearnConfig, load_config, load_gym_settings
from robotsac.config.folders import find_robot
from robotsac.config.loading import gym_settings_of, laid_over, merge, read_tree, validate
from robotsac.errors import ConfigError
from robotsac.learner.prior_data import require_no_prior_data
from robotsac.learner.resume_rules import tree_differences
from robotsac.learner.run_folder import run_argument
from robotsac.learner.sync_progress import Plan

CONFIG_FILE, METRICS_FILE, SUMMARY_FILE = "config.json", "metrics.jsonl", "summary.json"
HELD_OUT = ("env", "plan", "versions")
"""Keys of ``config.json`` beside the configuration's."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one run; ``config`` is ``None`` in an environment that is no arm, which has ``learn`` and ``collect`` alone."""

    env: str
    plan: Plan
    learn: LearnConfig
    collect: CollectConfig
    config: Config | None
    folder: Path

    def to_json(self) -> str:
        """As it is kept; the inverse is :func:`_read`."""
        from robotsac.learner.run_folder import versions

        shared = {"env": self.env, "plan": asdict(self.plan), "versions": versions()}
        return json.dumps(shared | self._tree(), indent=2)

    def _tree(self) -> dict[str, Any]:
        if self.config is not None:
            return self.config.model_dump(mode="json")
        return {"learn": self.learn.model_dump(mode="json"), "collect": self.collect.model_dump(mode="json")}

    def differences(self, other: Settings) -> list[str]:
        """What ``other`` would make another run, in words."""
        found = [f"--env was {self.env}, now {other.env}"] if self.env != other.env else []
        before, now = asdict(self.plan), asdict(other.plan)
        found += [f"{_option(key)} was {before[key]}, now {now[key]}" for key in before if before[key] != now[key]]
        return found + tree_differences(self._tree(), other._tree())


def new_settings(options: SyncOptions, files: Sequence[Path], overrides: Sequence[str]) -> Settings:
    """Of a run that begins, with a folder that is free.

    Raises:
        ConfigError: a mistake in the configuration, prior data, steps that are too few, or a folder with a run in it.
    """
    env = options.env or ARM_ID
    config = load_config(options.robot, files, overrides) if env == ARM_ID else None
    tables = load_gym_settings(files, overrides) if config is None else config
    require_no_prior_data(tables.learn)
    require_enough(options.steps, tables.learn)
    name = options.run or f"{_slug(env)}-s{tables.learn.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = run_folder(name, name)
    require_free(folder)
    plan = Plan(options.steps, options.eval_every, options.eval_episodes)
    return Settings(env, plan, tables.learn, tables.collect, config, folder)


def kept_settings(options: SyncOptions, files: Sequence[Path], overrides: Sequence[str]) -> Settings:
    """Of a run that goes on. What is typed again may not say anything else; operational keys of ``[learn]`` may.

    Raises:
        ConfigError: there is no such run, it is finished or has diverged, or it would become another one; names
            everything that differs.
    """
    folder = run_folder(options.run, "")
    kept, tree = _read(folder, options)
    _require_unfinished(folder, kept)
    if options.env not in (None, kept.env) or ("robot" in options.typed and kept.config is None):
        asked = options.env or f"the arm {options.robot}"
        raise _other(folder, [f"it learns in {kept.env}, not in {asked}"])
    if "robot" in options.typed:
        tree = merge(tree, read_tree(find_robot(options.robot)))
    plan = asdict(kept.plan) | {key: getattr(options, key) for key in asdict(kept.plan) if key in options.typed}
    now = _of(folder, kept.env, Plan(**plan), laid_over(tree, files, overrides))
    if found := kept.differences(now):
        raise _other(folder, found)
    return now


def require_free(folder: Path) -> None:
    """Refuse a folder that holds a run. Raises ConfigError: with the command that goes on with it, if it can."""
    present = [file for file in (CONFIG_FILE, METRICS_FILE, "learner", "robot", "run.json") if (folder / file).exists()]
    if present:
        ended = any(summary_of(folder).get(how) for how in ("finished", "diverged"))
        cut = CONFIG_FILE in present and not ended and "learner" not in present
        raise ConfigError(
            f"run folder {folder} exists already",
            reason="train begins a new run" + (", and goes on with one only with --resume" if cut else ""),
            command=f"robotsac train --sync --resume --run {run_argument(folder)}"
            if cut
            else f"--run {run_argument(folder, '-2')}",
        )


def summary_of(folder: Path) -> dict[str, Any]:
    """A run's last word; empty while it has none."""
    try:
        found: dict[str, Any] = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def environment_of(folder: Path) -> str | None:
    """The ``--env`` that a run learned in; ``None`` where it was an arm's, or no run of ``train --sync`` at all."""
    try:
        env = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))["env"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if env == ARM_ID else str(env)


def _read(folder: Path, options: SyncOptions) -> tuple[Settings, dict[str, Any]]:
    """The settings, and the tree that they were read from."""
    path = folder / CONFIG_FILE
    try:
        tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        env, plan, _ = (tree.pop(key) for key in HELD_OUT)
        plan = Plan(**plan)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if (folder / "learner").exists():
            raise ConfigError(
                f"run {folder} was not made with --sync",
                reason="its learner and collector are processes of their own",
                command=f"robotsac train --resume --robot {shlex.quote(options.robot)} --run {run_argument(folder)}",
            ) from error
        raise ConfigError(
            f"there is no run to resume in {folder}",
            reason=f"{CONFIG_FILE} is missing or not one of --sync: {error!r}",
            command=f"robotsac train --sync --robot arm0-sim --run {run_argument(folder)}"
            if options.env is None
            else f"robotsac train --sync --env {shlex.quote(options.env)} --run {run_argument(folder)}",
        ) from error
    return _of(folder, env, plan, tree), tree


def _of(folder: Path, env: str, plan: Plan, tree: dict[str, Any]) -> Settings:
    if env == ARM_ID:
        config = validate(Config, tree, f"run {folder}")
        return Settings(env, plan, config.learn, config.collect, config, folder)
    tables = gym_settings_of(tree)
    return Settings(env, plan, tables.learn, tables.collect, None, folder)


def _require_unfinished(folder: Path, kept: Settings) -> None:
    summary, path = summary_of(folder), shlex.quote(str(folder / SUMMARY_FILE))
    if summary.get("finished"):
        raise ConfigError(
            f"run {folder} is finished",
            reason=f"it has done all of its {kept.plan.steps:,} steps",
            command=f"cat {path}",
        )
    if summary.get("diverged"):
        raise ConfigError(
            f"run {folder} has diverged",
            reason="going on from before that would leave a seed out that did not learn; a new run is honest",
            command=f"cat {path}",
        )


def _other(folder: Path, found: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"run {folder} cannot go on with other settings",
        reason="; ".join(found),
        command=f"robotsac train --sync --resume --run {run_argument(folder)}",
    )


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")


def _slug(env: str) -> str:
    """An id as a folder's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", env).strip("-").lower()
