"""``tools/bench_update.py``: what it prints, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    tool = [sys.executable, str(ROOT / "tools/bench_update.py"), *words]
    return subprocess.run(tool, capture_output=True, text=True, timeout=240)


def test_it_prints_the_cost_of_each_member_against_the_default():
    small = ("--set", "learn.hidden=[8]", "--set", "learn.batch_size=8", "--turns", "2", "--updates", "2")
    done = bench("--json", *small)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["cases"]["default"]["times_default"] == 1.0
    assert {"sac_v1", "ddpg", "mixture", "batch_norm", "symplectic"} < set(report["cases"])
    assert all(row["ms"] > 0 and row["times_default"] > 0 for row in report["cases"].values())
    assert report["machine"]["threads"] == 1 and report["settings"]["set"] == ["learn.hidden=[8]", "learn.batch_size=8"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "learn.nonsense=1", "--device", "cuda:99"), "nonsense"),
        (("--turns", "0"), "--turns 0 is below 1"),
    ],
)
def test_what_makes_no_sense_is_refused(words, said):
    done = bench(*words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
