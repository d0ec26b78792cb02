"""``robotsac eval``."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

from robotsac.actor.contract import robot_contract
from robotsac.actor.evaluate import Evaluation, evaluate
from robotsac.cli.collect import torque_words
from robotsac.cli.console import StatusLine, say
from robotsac.cli.inspect import find_bundle, read_bundle
from robotsac.cli.options import run_folder
from robotsac.config import Config, load_config
from robotsac.errors import BundleRejected
from robotsac.policy.accept import accept


def run_evaluate(
    robot: str, policy: Path, episodes: int, seed: int, files: list[Path], overrides: list[str], as_json: bool
) -> int:
    """See ``robotsac eval --help``. Returns the exit code.

    Raises:
        ConfigError, BundleRejected, RobotsacError: see :func:`evaluate_bundle`.
    """
    config = load_config(robot, files, overrides)
    faults = run_folder(None, config.robot.name) / "faults"
    result = evaluate_bundle(config, find_bundle(policy), episodes, seed, as_json, faults)
    torque = torque_words(result.energized, result.torque_off)
    if as_json:
        say(evaluation_json(result))
    elif result.interrupted:
        say(f"interrupted after {result.episodes} of {episodes} episodes; torque {torque}")
    else:
        say(f"mean return {result.mean_return:.2f}, {result.mean_steps:.0f} steps an episode, torque {torque}")
        say(result.line())
    return 130 if result.interrupted else 0


def evaluate_bundle(config: Config, bundle: Path, episodes: int, seed: int, plain: bool, faults: Path) -> Evaluation:
    """Accept the bundle as the robot would, then evaluate it, with a status line.

    Args:
        config: resolved.
        bundle: file of the policy.
        episodes: how many.
        seed: of the first goal.
        plain: no live line.
        faults: folder for the guard's faults, made when there is one.

    Raises:
        StorageError: the file cannot be read.
        BundleRejected: naming the file.
        RobotsacError: from the arm.
    """
    try:
        policy = accept(read_bundle(bundle), robot_contract(config), config.policy)
    except BundleRejected as error:
        raise BundleRejected(
            f"{bundle}: {error.message}",
            reason=error.reason,
            command=f"robotsac policy show {shlex.quote(str(bundle))}",
        ) from error
    with StatusLine(plain=plain) as status:
        return evaluate(
            config,
            policy,
            episodes,
            seed,
            faults,
            on_phase=lambda words: status.update(f"{config.robot.name} {words}"),
            on_episode=lambda done, won: status.update(
                f"{config.robot.name} evaluating policy v{policy.version}: {done}/{episodes} episodes, {won} reached"
            ),
        )


def evaluation_json(result: Evaluation) -> str:
    """One JSON object."""
    return json.dumps(
        {
            "success_rate": result.success_rate,
            "successes": result.successes,
            "episodes": result.episodes,
            "mean_return": _finite(result.mean_return, 4),
            "mean_steps": _finite(result.mean_steps, 2),
            "action_rate": None if result.action_rate is None else round(result.action_rate, 4),
            "seconds": round(result.seconds, 2),
            "faults": result.faults,
            "energized": result.energized,
            "torque_off": result.torque_off,
            "interrupted": result.interrupted,
        }
    )


def _finite(value: float, digits: int) -> float | None:
    """JSON has no number for the mean of nothing."""
    return round(value, digits) if math.isfinite(value) else None
