"""``robotsac policy show``, ``robotsac config show`` and ``config check``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Column, Table

from robotsac.actor.contract import robot_contract
from robotsac.arm import open_arm
from robotsac.cli.console import say
from robotsac.config import load_config
from robotsac.contract import Channel
from robotsac.dynamics import RigidBody
from robotsac.env.stability import check_gains, largest_inertias
from robotsac.errors import BundleRejected, ConfigError, StorageError, path_command
from robotsac.link.sockets import endpoint
from robotsac.policy.accept import read_info
from robotsac.policy.bundle import BundleInfo
from robotsac.policy.store import BundleStore


def find_bundle(path: Path) -> Path:
    """The bundle file that a command means: a file itself, or the latest of a run folder.

    Raises:
        ConfigError: there is none.
    """
    if path.is_file():
        return path
    for folder in (path, path / "policies", path / "learner" / "policies"):
        store = BundleStore(folder)
        if (entry := store.latest()) is not None and (folder / entry.file).is_file():
            return folder / entry.file
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


def show_policy(path: Path, as_json: bool) -> int:
    """Print a bundle's metadata. Returns the exit code.

    Raises:
        ConfigError: there is no bundle.
        StorageError: it cannot be read.
        BundleRejected: it is none; names the file.
    """
    file = find_bundle(path)
    try:
        info = read_info(read_bundle(file))
    except BundleRejected as error:
        raise BundleRejected(
            f"{file}: {error.message}", reason=error.reason, command=f"ls -la {shlex.quote(str(file.parent))}"
        ) from error
    if as_json:
        say(json.dumps({"file": str(file), **_summary(info)}))
        return 0
    console = Console(highlight=False)
    console.print(f"[bold]{file}[/bold]")
    for key, value in _summary(info).items():
        if key not in ("observation", "action"):
            console.print(f"  {key:<16} {value}")
    table = Table("", "channel", "size", "unit", Column("scale", overflow="fold"), box=None, pad_edge=False)
    for kind, channels in (("observation", info.contract.observation), ("action", info.contract.action)):
        for channel in channels:
            table.add_row(kind, channel.name, str(channel.size), channel.unit, _scale(channel))
    console.print(table)
    return 0


def _scale(channel: Channel) -> str:
    """Of each number, in the contract's order; once where all are the same."""
    same = len(set(channel.scale)) == 1
    return f"{channel.scale[0]:.4g}" if same else ", ".join(f"{scale:.4g}" for scale in channel.scale)


def _summary(info: BundleInfo) -> dict[str, object]:
    contract = info.contract
    return {
        "run": info.run_id,
        "version": info.version,
        "updates": info.updates,
        "task": contract.task,
        "task_parameters": contract.task_parameters,
        "joints": list(contract.joint_names),
        "control_rate_hz": contract.control_rate_hz,
        "history_steps": contract.history_steps,
        "model_digest": contract.model_digest[:16],
        "contract_digest": contract.digest()[:16],
        "config_digest": info.config_digest[:16],
        "versions": info.versions,
        "observation": [msgspec.to_builtins(channel) for channel in contract.observation],
        "action": [msgspec.to_builtins(channel) for channel in contract.action],
    }


def show_config(robot: str, files: list[Path], overrides: list[str]) -> int:
    """Print the resolved tree. Returns the exit code. Raises ConfigError."""
    say(load_config(robot, files, overrides).model_dump_json(indent=2))
    return 0


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
    endpoint(config.link.address)
    open_arm(config.robot)
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
