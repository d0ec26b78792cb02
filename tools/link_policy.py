"""How long a published policy takes to the robot: from ``latest.json`` in place to the first action that it computed.

``robotsac train`` on a robot in real time, as anybody would type it: learner's supervisor, ingest, trainer that learns,
collector, uplink, actor, virtual servo bus. Nothing in them is changed for the measurement.

The clock starts when the trainer's export has renamed ``latest.json`` into place in the learner's folder: the file's
change time, which a rename sets. The kernel takes it from its last timer tick, so up to one tick (4 ms at 250 Hz) too much
is counted and never too little. It stops at the control tick in which the slot's new policy computed an action: the first
record of that version, whose observation was made at ``t_ns`` of the record before, plus its ``latency_us``. Both are turned
into monotonic time. On loopback the clocks are one.

On the way stands the robot's own ``latest.json``: what comes before it is the link's share, what comes after it is the time to
accept the policy and to wait for a control tick.

A policy that was replaced before it acted, and one whose first record begins an episode (the arm was between two), are
counted and left out. Publications are due every half second after the last, and last as long as they last, so where they
fall between two control ticks, heartbeats or polls is by chance.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robotsac.config import load_config
from robotsac.errors import ConfigError, LinkError
from robotsac.learner.replay_log import FILE_NAME, ReplayLog
from robotsac.policy.store import LATEST
from robotsac.records import Flag, Records

PUBLISH_EVERY_S = 0.5
START_STEPS = 100
CONTROL_RATE_HZ = 50
LOOK_S = 0.02
PATIENCE_S = 120.0
SETTINGS = (
    f"learn.publish_every_s={PUBLISH_EVERY_S}",
    f"learn.start_steps={START_STEPS}",
    # The trainer keeps up with the robot on a shared core, and the arm is never held for it.
    "learn.updates_per_step=0.5",
    "learn.slack_steps=1000000",
    "learn.device='cpu'",
    # Long episodes and no ways home: between episodes no policy acts.
    "task.episode_s=10",
    "task.home_after=[]",
    "task.home_every_episodes=1000000",
)


def measure(robot: str, publications: int) -> dict[str, Any]:
    """One run of about ``publications`` policies at least.

    Raises:
        ConfigError: there is no such robot, or its time is not this computer's.
        LinkError: the run failed, or no publication can be told.
    """
    if load_config(robot, overrides=SETTINGS).robot.driver.name == "mujoco":
        raise ConfigError(
            f"robot {robot} has a time of its own", reason="a simulated arm runs faster", command="--robot arm0-twin"
        )
    steps = START_STEPS + int(publications * (PUBLISH_EVERY_S + 0.1) * CONTROL_RATE_HZ)
    with tempfile.TemporaryDirectory(prefix="bench-link-") as folder:
        run_dir = Path(folder) / "run"
        folders = [run_dir / "learner" / "policies", run_dir / "robot" / "policies"]
        published, arrived = watch(command(robot, run_dir, steps), folders, steps / CONTROL_RATE_HZ)
        return summary(published, arrived, acted(run_dir / "learner"))


def command(robot: str, run_dir: Path, steps: int) -> list[str]:
    """What is typed."""
    words = [sys.executable, "-m", "robotsac", "train", "--robot", robot, "--run", str(run_dir), "--steps", str(steps)]
    words += ["--episodes", "0", "--json"]
    return words + [word for setting in SETTINGS for word in ("--set", setting)]


def watch(words: Sequence[str], folders: Sequence[Path], seconds: float) -> list[dict[int, int]]:
    """Run it to its end; of each folder, when each version became its latest, ns on the monotonic clock."""
    since: list[dict[int, int]] = [{} for _ in folders]
    deadline_s = time.monotonic() + seconds + PATIENCE_S
    # What it says goes to a file: a pipe that nobody empties would stop it.
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=said)
        try:
            while process.poll() is None:
                if time.monotonic() > deadline_s:
                    raise LinkError(f"robotsac train did not end within {seconds + PATIENCE_S:.0f} s")
                time.sleep(LOOK_S)
                for folder, versions in zip(folders, since, strict=True):
                    if seen := look(folder / LATEST):
                        versions.setdefault(*seen)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(PATIENCE_S)
        if process.returncode:
            said.seek(0)
            raise LinkError("robotsac train failed", reason=said.read()[-2000:].decode(errors="replace"))
    return since


def look(latest: Path) -> tuple[int, int] | None:
    """The latest version, and since when; ``None`` while there is none, or while it is being replaced."""
    try:
        with latest.open("rb") as file:
            version = int(json.load(file)["version"])
            changed_ns = os.fstat(file.fileno()).st_ctime_ns
    except (OSError, ValueError):
        return None
    return version, changed_ns - (time.time_ns() - time.monotonic_ns())


def acted(learner: Path) -> dict[int, int | None]:
    """When each version computed its first action, ns on the arm's clock; ``None`` where that cannot be told."""
    with ReplayLog(learner / FILE_NAME, read_only=True) as log:
        batches = log.read_after(0, 1_000_000)
    records: Records = np.concatenate([batch.records for batch in batches])
    first: dict[int, int | None] = {}
    for here in np.flatnonzero((records["flags"] & Flag.FINAL) == 0).tolist():
        version = int(records["policy_version"][here])
        if version and version not in first:
            inside = here > 0 and records["episode"][here - 1] == records["episode"][here]
            observed_ns, latency_us = int(records["t_ns"][here - 1]), int(records["latency_us"][here])
            first[version] = observed_ns + 1000 * latency_us if inside else None
    return first


def summary(
    published: Mapping[int, int], arrived: Mapping[int, int], first: Mapping[int, int | None]
) -> dict[str, Any]:
    """Percentiles, ms. Raises LinkError when there is nothing to tell."""
    told = {version: stop_ns for version, stop_ns in first.items() if stop_ns is not None and version in published}
    seen = told.keys() & arrived.keys()  # now and then a look into the folder comes too late for one
    if not seen:
        raise LinkError(
            "no policy was seen to be published, to arrive and to act",
            reason=f"{len(published)} were published, {len(arrived)} arrived, {len(first)} acted",
        )
    ms = np.array([(stop_ns - published[version]) / 1e6 for version, stop_ns in told.items()])
    link_ms = [(arrived[version] - published[version]) / 1e6 for version in seen]
    return {
        **{f"p{q}_ms": round(float(np.percentile(ms, q)), 1) for q in (50, 90, 99)},
        "min_ms": round(float(ms.min()), 1),
        "max_ms": round(float(ms.max()), 1),
        "link_p50_ms": round(float(np.median(link_ms)), 1),
        "publications": len(ms),
        "replaced_before_acting": len(published.keys() - first.keys()),
        "between_episodes": sum(stop_ns is None for stop_ns in first.values()),
        "all_ms": [round(float(value), 1) for value in ms],
    }
