"""``tools/bench_realtime.py``: real processes, ended in order."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = (sys.executable, str(ROOT / "tools/bench_realtime.py"))
SHORT = ("--robot", "arm0-sim", "--set", "learn.start_steps=50", "--set", "task.episode_s=1", "--json")


def test_ctrl_c_parks_the_arm_ends_the_learner_and_what_there_is_is_told(tmp_path: Path) -> None:
    command = [*TOOL, *SHORT, "--seconds", "60", "--seeds", "2", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    database = tmp_path / "out/seed-0/learner/replay.db"
    deadline_s = time.monotonic() + 120.0
    while not database.exists():
        assert process.poll() is None and time.monotonic() < deadline_s, process.communicate(timeout=10)
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    report = json.loads(out)
    assert report["interrupted"] and report["runs"] == [] and report["failed"] == {}
    (said,) = (tmp_path / "out/seed-0.json").read_text().splitlines()
    assert json.loads(said)["torque_off"] and json.loads(said)["interrupted"]
    assert not (tmp_path / "out/seed-1").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--seconds", "1"), "1 s of robot time are too few"),
        (("--seconds", "nan"), "--seconds nan must be above 0"),
        (("--robot", "arm9"), "there is no robot 'arm9'"),
        (("--set", "learn.seed=3"), "would make all seeds the same"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    command = [*TOOL, *SHORT, "--out", "out", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert "usage" in done.stderr or json.loads(done.stdout)["error"]["message"]
    assert not list(tmp_path.iterdir())
