"""``robotsac policy show``: what a bundle says about itself, and whether it does here what it did at the learner."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from robotsac.cli.console import print_error, say
from robotsac.cli.inspect import find_bundle, read_bundle
from robotsac.config.schema import PolicyConfig
from robotsac.contract import Channel
from robotsac.errors import BundleRejected
from robotsac.policy.accept import golden_deviation, read_info, require_bounded, require_golden
from robotsac.policy.bundle import BundleInfo
from robotsac.policy.runner import Policy
from robotsac.policy.store import BundleStore


def show_policy(path: Path, as_json: bool) -> int:
    """Print a bundle's metadata, and whether it is the file that was published and computes here what it did there.

    Returns the exit code: that of :class:`BundleRejected` where it is not, or does not.

    Raises:
        ConfigError: there is no bundle.
        StorageError: it cannot be read.
        BundleRejected: it is none; names the file.
    """
    file = find_bundle(path)
    data = read_bundle(file)
    try:
        info = read_info(data)
    except BundleRejected as refused:
        raise _named(refused, file) from refused
    check = check_bundle(file, data, info)
    error = None if check.error is None else _named(check.error, file)
    if as_json:
        told = {"file": str(file), **_summary(info), "golden_outputs": check.to_dict(), "sha256": check.sha256}
        say(json.dumps({**told, "as_published": check.as_published, "error": error and error.to_dict()}))
    else:
        _show(file, info, check)
    if error is None:
        return 0
    print_error(error)
    return error.exit_code


def _named(error: BundleRejected, file: Path) -> BundleRejected:
    return BundleRejected(
        f"{file}: {error.message}", reason=error.reason, command=f"ls -la {shlex.quote(str(file.parent))}"
    )


@dataclass(frozen=True, slots=True)
class BundleCheck:
    """What became of looking closer at a bundle.

    Attributes:
        deviation: largest difference to the golden outputs; ``None`` when the policy could not be run.
        tolerance: what is tolerated.
        sha256: of the file.
        as_published: whether ``latest.json`` beside it says so; ``None`` where that tells nothing of this file.
        error: why a robot would not take it; ``None`` when nothing was found.
    """

    deviation: float | None
    tolerance: float
    sha256: str
    as_published: bool | None
    error: BundleRejected | None

    @property
    def golden(self) -> str:
        """In words."""
        if self.deviation is None:
            return "not computed"
        if self.deviation <= self.tolerance:
            return "match"
        return f"differ (by {self.deviation:.2g}, tolerance {self.tolerance:.2g})"

    def to_dict(self) -> dict[str, object]:
        """For JSON, which has no NaN."""
        number = self.deviation is not None and math.isfinite(self.deviation)
        return {
            "match": self.deviation is not None and self.deviation <= self.tolerance,
            "deviation": self.deviation if number else None,
            "tolerance": self.tolerance,
        }


def check_bundle(file: Path, data: bytes, info: BundleInfo) -> BundleCheck:
    """What a robot would check of a bundle, but for its own contract and latency, with the usual tolerance; and the hash."""
    tolerance, sha256 = PolicyConfig().golden_tolerance, hashlib.sha256(data).hexdigest()
    entry = BundleStore(file.parent).latest()
    as_published = entry.sha256 == sha256 if entry is not None and entry.file == file.name else None
    error = None
    if as_published is False:
        error = BundleRejected("the file is not the one that was published", reason="its sha256 is not latest.json's")
    deviation = None
    try:
        policy = Policy(data, info)
        deviation = golden_deviation(policy)
        require_golden(deviation, tolerance)
        require_bounded(policy)
    except BundleRejected as refused:
        error = refused
    return BundleCheck(deviation, tolerance, sha256, as_published, error)


def _show(file: Path, info: BundleInfo, check: BundleCheck) -> None:
    published = {True: "as published", False: "NOT as published", None: "nothing here says what was published"}
    facts = Table.grid(padding=(0, 2, 0, 0))
    shown = {key: value for key, value in _summary(info).items() if key not in ("observation", "action")}
    shown["learn"] = info.learn or "the defaults"
    shown |= {"sha256": f"{check.sha256[:16]}, {published[check.as_published]}", "golden outputs": check.golden}
    for key, value in shown.items():
        facts.add_row(f"  {key}", Text(_for_people(value)))
    table = Table("", "channel", "size", "unit", Column("scale", overflow="fold"), box=None, pad_edge=False)
    for kind, channels in (("observation", info.contract.observation), ("action", info.contract.action)):
        for channel in channels:
            table.add_row(kind, Text(channel.name), str(channel.size), Text(channel.unit), _scale(channel))
    console = Console(highlight=False)
    console.print(Text(str(file), style="bold"))
    console.print(facts)
    console.print(table)


def _for_people(value: object) -> str:
    """``a 1, b 2`` and ``a, b`` for tables and lists."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


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
        "learn": info.learn,
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
