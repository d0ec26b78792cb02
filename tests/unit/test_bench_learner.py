"""``tools/bench_learner.py``: what it prints, and what it refuses."""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    tool = [sys.executable, str(ROOT / "tools/bench_learner.py"), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(tool, capture_output=True, text=True, timeout=400, env=environment)


@pytest.mark.slow
def test_it_prints_the_rate_of_each_backend_and_how_they_compare():
    done = bench("--json", "--backends", "eager", "native", "--threads", "1", "--turns", "3", "--updates", "10")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    rates = report["contenders"]
    ours = {f"robotsac {name}" for name in ("eager", "native", "one a call", "ten critics", "defaults")}
    assert set(rates) == ours and report["machine"]["threads"] == 1
    assert [rates[f"robotsac {name}"]["backend"] for name in ("eager", "native")] == ["eager", "native"]
    for each in rates.values():
        assert len(each["of_the_turns"]) == 3 and min(each["of_the_turns"]) > 0 and each["warm_up_s"] > 0
        assert each["updates_per_s"] == pytest.approx(statistics.median(each["of_the_turns"]), rel=0.01)
    native, eager = (rates[f"robotsac {name}"]["of_the_turns"] for name in ("native", "eager"))
    turns = [one / other for one, other in zip(native, eager, strict=True)]
    assert report["ratios"]["robotsac native / robotsac eager"] == pytest.approx(statistics.median(turns), rel=0.01)
    assert rates["robotsac one a call"]["p99_ms"] > 0


@pytest.fixture
def ratios(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("bench_learner").ratios


def test_what_is_rounded_is_never_the_one_that_like_is_compared_with(ratios):
    rates = {
        "robotsac native": [3.0, 4.0, 5.0],
        "robotsac native_bfloat16": [6.0, 6.0, 6.0],
        "robotsac ten critics": [1.0, 1.0, 1.0],
        "stable-baselines3": [1.0, 2.0, 1.0],
        "sbx": [2.0, 2.0, 2.0],
    }
    assert ratios(rates) == {
        "robotsac native / robotsac native_bfloat16": 0.667,
        "robotsac native / stable-baselines3": 3.0,
        "robotsac native / sbx": 2.0,
        "robotsac native_bfloat16 / stable-baselines3": 6.0,
        "robotsac native_bfloat16 / sbx": 3.0,
        "robotsac ten critics / robotsac native": 0.25,
    }
    alone = {name: rates[name] for name in ("robotsac native_bfloat16", "sbx")}
    assert ratios(alone) == {"robotsac native_bfloat16 / sbx": 3.0}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--turns", "0"), "--turns 0 is below 1"),
        (("--threads", "65"), "--threads 65"),
        (("--threads", "64"), "--threads 64: there are"),
        (("--device", "abacus"), "abacus"),
    ],
)
def test_what_makes_no_sense_is_refused(words, said):
    if words == ("--threads", "64") and (os.cpu_count() or 1) >= 64:
        pytest.skip("as many cores as that")
    done = bench(*words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
