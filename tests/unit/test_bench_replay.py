"""``tools/bench_replay.py``: what it prints, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    tool = [sys.executable, str(ROOT / "tools/bench_replay.py"), *words]
    return subprocess.run(tool, capture_output=True, text=True, timeout=240)


def test_it_prints_bytes_that_are_those_of_shared_observations_and_what_calls_cost():
    done = bench("--json", "--capacity", "20000", "--robots", "2", "--turns", "1")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    found = report["replay"]
    # 48 bytes of numbers and references; one observation of 136 bytes, and 1/75 for the ends of episodes.
    assert 20_000 * (48 + 136) < found["mb_full"] * 1e6 < 20_000 * (48 + 136 * 1.06)
    assert found["mb_full"] <= found["mb_wrapped"] <= found["mb_reserved"] + 0.1
    assert all(found[name] > 0 for name in ("us_sample", "us_append_one", "us_append_of_many"))
    assert report["machine"]["threads"] == 1 and report["settings"]["robots"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "learn.nonsense=1"), "nonsense"),
        (("--capacity", "0"), "--capacity 0 is below 1"),
    ],
)
def test_what_makes_no_sense_is_refused(words, said):
    done = bench(*words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
