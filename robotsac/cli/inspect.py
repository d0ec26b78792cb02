"""``robotsac config show`` and ``config check``, and where a policy lies."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

from robotsac.actor.contract import robot_contract
from robotsac.arm import open_arm
from robotsac.cli.console import say
from robotsac.cli.sync_settings import METRICS_FILE, environment_of
from robotsac.config import load_config
from robotsac.dynamics import RigidBody
from robotsac.env.stability import check_gains, largest_inertias
from robotsac.errors import ConfigError, RobotsacError, StorageError, path_command
from robotsac.link.address import endpoint
from robotsac.policy.store import BundleStore


def find_bundle(path: Path) -> Path:
    """The bundle file that a command means: a file itself, or the latest of a run folder.

    Raises:
        ConfigError: there is none; also of a run that exports none.
    """
    if path.is_file():
        return path
    for folder in (path, path / "policies", path / "learner" / "policies"):
        store = BundleStore(folder)
        if (entry := store.latest()) is not None and (folder / entry.file).is_file():
            return folder / entry.file
    if (env := environment_of(path)) is not None:
        raise ConfigError(
            f"run {path} has no policy bundle",
            reason=f"a bundle holds an arm's contract, and there is no arm in {env}: train --sync --env exports none",
            command=f"cat {shlex.quote(str(path / METRICS_FILE))}",
        )
    raise ConfigError(
        f"there is no policy at {path}",
        reason="neither a bundle file nor a run folder with policies in it",
        command="find . -name 'policy-v*.onnx'",
    )


def read_bundle(file: Path) -> bytes:
    """The bytes of a bundle file. Raises StorageError when it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise StorageError(
            f"policy file {file} cannot be read", reason=str(error), command=path_command(error, file)
        ) from error


def show_config(robot: str, files: list[Path], overrides: list[str]) -> int:
    """Print the resolved tree. Returns the exit code. Raises ConfigError."""
    say(load_config(robot, files, overrides).model_dump_json(indent=2))
    return 0


def _require_all(*checks: Callable[[], object]) -> None:
    """Make all checks; of several errors the first is raised, and tells of the others. Raises RobotsacError."""
    wrong: list[RobotsacError] = []
    for check in checks:
        try:
            check()
        except RobotsacError as error:
            wrong.append(error)
    if not wrong:
        return
    if others := wrong[1:]:
        wrong[0].reason += "; besides, " + "; ".join(map(str, others))
    raise wrong[0]


def check_config(robot: str, files: list[Path], overrides: list[str], as_json: bool) -> int:
    """Resolve, build the driver without opening it, compile the model, look at the gains, open the task, compute the contract.

    Returns the exit code.

    Raises:
        ConfigError: a value is wrong.
        TaskError: the task's own code is.
        DriverUnavailable: a plug-in that the robot names is not installed.
        LinkError: the learner's address cannot be used.
    """
    config = load_config(robot, files, overrides)
    _require_all(lambda: open_arm(config.robot), lambda: robot_contract(config), lambda: endpoint(config.link.address))
    contract = robot_contract(config)
    body = RigidBody.from_config(config.robot)
    warnings = check_gains(config.robot, body, largest_inertias(config.robot, body))
    summary = {
        "robot": config.robot.name,
        "driver": config.robot.driver.name,
        "joints": len(config.robot.joints),
        "bus_rate_hz": config.robot.bus_rate_hz,
        "control_rate_hz": config.robot.control_rate_hz,
        "task": contract.task,
        "obs_dim": contract.obs_dim,
        "act_dim": contract.act_dim,
        "learner": config.link.address,
        "device": config.learn.device,
        "contract_digest": contract.digest()[:16],
        "config_digest": config.digest()[:16],
    }
    if as_json:
        say(json.dumps(summary | {"warnings": warnings}))
    else:
        say("\n".join(f"{key:<16} {value}" for key, value in summary.items()))
        for warning in warnings:
            say(f"warning: {warning}")
    return 0
