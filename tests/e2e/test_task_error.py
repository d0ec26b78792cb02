"""A task that fails while the arm moves: through the real processes, the arm is parked and off, and the words arrive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import free_address
from task_plugins import install_broken

ROOT = Path(__file__).parents[2]


def collect_broken(tmp_path: Path, at: str) -> tuple[Path, subprocess.CompletedProcess[str]]:
    plugin = install_broken(tmp_path / "site")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "robotsac", "collect", "--robot", str(ROOT / "configs/arm0-sim.toml")),
            *("--offline", "--steps", "100", "--learner", free_address(), "--json"),
            *("--set", "task.name=broken", "--set", f"task.at={at}"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(plugin)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return plugin, done


@pytest.mark.parametrize("at", ["judge", "exit"])
def test_a_task_that_fails_ends_collection_in_order_with_its_own_exit_code(tmp_path, at):
    plugin, done = collect_broken(tmp_path, at)
    report = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == report["error"]["exit_code"] == 9, done.stderr
    assert report["error"]["message"].startswith("task 'broken'")
    assert str(plugin / "broken_task.py") in report["error"]["command"]
    assert report["torque_off"] is True
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "runs").rglob("fault-*.json")), "the arm is not to blame"


def test_an_actor_that_ends_before_it_is_done_is_no_success(tmp_path):
    _, done = collect_broken(tmp_path, "gone")
    report = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == report["error"]["exit_code"] == 4, done.stderr
    assert report["error"]["message"] == "the actor process ended before it was done, with exit code 0"
    assert "treat the arm as powered" in report["error"]["reason"]
    assert report["energized"] and not report["torque_off"]
