"""``tools/bench_link.py``: what it prints, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    tool = [sys.executable, str(ROOT / "tools/bench_link.py"), *words]
    return subprocess.run(tool, capture_output=True, text=True, timeout=240)


def test_it_counts_what_ingest_takes_and_looks_for_every_record() -> None:
    done = bench("ingest", "--json", "--seconds", "0.5", "--robots", "2")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (run,) = report["runs"]
    assert run["records_per_s"] > 0 and run["made"] > 0
    assert run["lost"] == 0
    assert report["median"]["records_per_s"] == run["records_per_s"]
    assert report["settings"]["robots"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ingest", "--robots", "0"), "--robots 0 must be above 0"),
        (("robots", "--rate-hz", "-1"), "--rate-hz -1.0 must be above 0"),
        (("latency", "--robot", "nonsense"), "nonsense"),
        (("latency", "--robot", "arm0-sim"), "arm0-sim has a time of its own"),
        ((), "what"),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], said: str) -> None:
    done = bench(*words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
