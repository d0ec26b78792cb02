"""``robotsac eval``."""

from __future__ import annotations

import json
from pathlib import Path

from robotsac.actor.contract import robot_contract
from robotsac.actor.evaluate import Evaluation, evaluate
from robotsac.cli.console import StatusLine
from robotsac.cli.inspect import find_bundle
from robotsac.config import Config, load_config
from robotsac.errors import BundleRejected
from robotsac.policy.accept import accept


def run_evaluate(
    robot: str, policy: Path, episodes: int, seed: int, files: list[Path], overrides: list[str], as_json: bool
) -> int:
    """See ``robotsac eval --help``. Returns the exit code."""
    result = evaluate_bundle(load_config(robot, files, overrides), find_bundle(policy), episodes, seed, as_json)
    if as_json:
        print(evaluation_json(result))
    elif result.interrupted:
        print(f"interrupted after {result.episodes} of {episodes} episodes; torque {_torque(result)}")
    else:
        print(
            f"mean return {result.mean_return:.2f}, {result.mean_steps:.0f} steps an episode, torque {_torque(result)}"
        )
        print(result.line())
    return 130 if result.interrupted else 0


def _torque(result: Evaluation) -> str:
    return "off, read back" if result.torque_off else "NOT read back as off"


def evaluate_bundle(config: Config, bundle: Path, episodes: int, seed: int, quiet: bool) -> Evaluation:
    """Accept the bundle as the robot would, then evaluate it, with a status line.

    Raises:
        BundleRejected: naming the file.
        RobotsacError: from the arm.
    """
    try:
        policy = accept(bundle.read_bytes(), robot_contract(config), config.policy)
    except BundleRejected as error:
        raise BundleRejected(
            f"{bundle}: {error.message}", reason=error.reason, command=f"robotsac policy show {bundle}"
        ) from error
    with StatusLine(plain=quiet) as status:
        return evaluate(
            config,
            policy,
            episodes,
            seed,
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
            "mean_return": round(result.mean_return, 4),
            "mean_steps": round(result.mean_steps, 2),
            "seconds": round(result.seconds, 2),
            "faults": result.faults,
            "torque_off": result.torque_off,
        }
    )
