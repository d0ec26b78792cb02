"""What ``robotsac train`` was asked for, and what of it does not go together: with ``--sync``, and without."""

from __future__ import annotations

import shlex
from collections.abc import Set
from dataclasses import dataclass

from robotsac.errors import ConfigError

ARM_ID = "robotsac/Arm-v0"
ONLY_WITH_SYNC = ("seed", "eval_every", "eval_episodes")


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """What ``--sync`` takes besides the configuration: no ``env`` is the arm; a seed replaces ``learn.seed``.

    ``typed``: names of what stood on the command line; the rest are defaults.
    """

    env: str | None
    robot: str
    run: str | None
    steps: int
    eval_every: int
    eval_episodes: int
    seed: int | None
    resume: bool = False
    typed: frozenset[str] = frozenset()


def require_fitting(typed: Set[str], sync: bool, env: str | None) -> None:
    """Refuse what would be silently left aside.

    Args:
        typed: names of the options on the command line.
        sync, env: their values.

    Raises:
        ConfigError: an option that means nothing here.
    """
    if sync:
        _require_fitting_sync(typed, env)
    else:
        _require_fitting_processes(typed, env)
    if "resume" in typed and "run" not in typed:
        raise ConfigError(
            "--resume without --run", reason="it takes the name of a run that was cut", command="ls -t runs"
        )


def _require_fitting_sync(typed: Set[str], env: str | None) -> None:
    if "until_success" in typed:
        raise ConfigError(
            "there is no --until-success with --sync",
            reason="it trains for --steps, so that runs can be compared",
            command="robotsac train --sync --robot arm0-sim",
        )
    if "episodes" in typed:
        raise ConfigError(
            "there is no --episodes with --sync",
            reason="it evaluates again and again, over --eval-episodes each time",
            command="robotsac train --sync --robot arm0-sim --eval-episodes 50"
            if env is None
            else f"robotsac train --sync --env {shlex.quote(env)} --eval-episodes 50",
        )
    if "robot" in typed and env is not None and env != ARM_ID:
        raise ConfigError(
            f"there is no --robot with --env {env}",
            reason="no arm is in that environment, and no robot's file is read for it",
            command=f"robotsac train --sync --env {shlex.quote(env)}",
        )


def _require_fitting_processes(typed: Set[str], env: str | None) -> None:
    if env is not None:
        raise ConfigError(
            f"--env {env} without --sync",
            reason="the arm's processes know no environment but the arm's",
            command=f"robotsac train --sync --env {shlex.quote(env)}",
        )
    for name in ONLY_WITH_SYNC:
        if name in typed:
            option = "--" + name.replace("_", "-")
            raise ConfigError(
                f"{option} without --sync",
                reason="the arm's processes evaluate once, over --episodes; their seed is learn.seed",
                command="robotsac train --episodes 50 --set learn.seed=0",
            )
