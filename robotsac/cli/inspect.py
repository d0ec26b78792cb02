"""``robotsac policy show``, ``robotsac config show`` and ``config check``."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from robotsac.actor.contract import robot_contract
from robotsac.arm import open_arm
from robotsac.config import load_config
from robotsac.errors import BundleRejected, ConfigError
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
        command="ls runs/*/policies runs/*/learner/policies",
    )


def show_policy(path: Path, as_json: bool) -> int:
    """Print a bundle's metadata."""
    file = find_bundle(path)
    try:
        info = read_info(file.read_bytes())
    except BundleRejected as error:
        raise BundleRejected(
            f"{file}: {error.message}", reason=error.reason, command=f"robotsac policy show {file.parent}"
        ) from error
    if as_json:
        print(json.dumps({"file": str(file), **_summary(info)}))
        return 0
    console = Console(highlight=False)
    console.print(f"[bold]{file}[/bold]")
    for key, value in _summary(info).items():
        if key not in ("observation", "action"):
            console.print(f"  {key:<16} {value}")
    table = Table("", "channel", "size", "unit", "scale", box=None, pad_edge=False)
    for kind, channels in (("observation", info.contract.observation), ("action", info.contract.action)):
        for channel in channels:
            scales = sorted(set(channel.scale))
            scale = ", ".join(f"{s:.4g}" for s in scales[:4]) + (" …" if len(scales) > 4 else "")
            table.add_row(kind, channel.name, str(channel.size), channel.unit, scale)
    console.print(table)
    return 0


def _summary(info: BundleInfo) -> dict[str, object]:
    contract = info.contract
    return {
        "run": info.run_id,
        "version": info.version,
        "updates": info.updates,
        "task": contract.task,
        "joints": list(contract.joint_names),
        "control_rate_hz": contract.control_rate_hz,
        "history_steps": contract.history_steps,
        "model_digest": contract.model_digest[:16],
        "contract_digest": contract.digest()[:16],
        "config_digest": info.config_digest[:16],
        "versions": info.versions,
        "observation": [[c.name, c.size, c.unit] for c in contract.observation],
        "action": [[c.name, c.size, c.unit] for c in contract.action],
    }


def show_config(robot: str, files: list[Path], overrides: list[str]) -> int:
    """Print the resolved tree."""
    print(load_config(robot, files, overrides).model_dump_json(indent=2))
    return 0


def check_config(robot: str, files: list[Path], overrides: list[str], as_json: bool) -> int:
    """Resolve, build the driver without opening it, compile the model, open the task, compute the contract."""
    config = load_config(robot, files, overrides)
    open_arm(config.robot)
    contract = robot_contract(config)
    summary = {
        "robot": config.robot.name,
        "driver": config.robot.driver.name,
        "joints": len(config.robot.joints),
        "bus_rate_hz": config.robot.bus_rate_hz,
        "control_rate_hz": config.robot.control_rate_hz,
        "task": contract.task,
        "obs_dim": contract.obs_dim,
        "act_dim": contract.act_dim,
        "contract_digest": contract.digest()[:16],
        "config_digest": config.digest()[:16],
    }
    if as_json:
        print(json.dumps(summary))
    else:
        for key, value in summary.items():
            print(f"{key:<16} {value}")
    return 0
