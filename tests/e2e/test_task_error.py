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


@pytest.mark.parametrize("at", ["judge", "reward"])
def test_a_task_that_fails_ends_collection_in_order_with_its_own_exit_code(tmp_path, at):
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
    report = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == report["error"]["exit_code"] == 9, done.stderr
    assert report["error"]["message"].startswith("task 'broken'")
    assert str(plugin / "broken_task.py") in report["error"]["command"]
    assert report["torque_off"] is True
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "runs").rglob("fault-*.json")), "the arm is not to blame"
