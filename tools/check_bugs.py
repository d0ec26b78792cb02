"""Put each of the ten known bugs of SAC back into the software, and see that its tests find it.

    python tools/check_bugs.py
    python tools/check_bugs.py --bugs 3 7 --json

First the tests of the ten bugs as they are, which must pass; then once for each change of ``tests/unit/mutations.py``, with
the tests of that bug alone, until the first of them fails. Every run has a process of its own, in which one module is
changed as it is imported; no file is. A change that no test notices, or that fits the software no longer, gives exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UNIT = ROOT / "tests/unit"
sys.path.insert(0, str(UNIT))

from mutations import MUTATIONS, Mutation, Mutator  # noqa: E402 - found on the path that was just extended

FILES = sorted(str(path) for path in UNIT.glob("test_ten_bugs*.py"))
# Imported once, before the processes part: seconds each, and nothing of the software among them.
PRELOAD = [
    "torch._dynamo",
    "torch.onnx._internal.exporter._core",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "gymnasium",
    "mujoco",
    "pydantic",
    "hypothesis",
    "pytest",
]
TEST_LIMIT_S = 120


@dataclass(frozen=True, slots=True)
class Result:
    """Of one run of tests.

    Attributes:
        bug: number; 0 = the software as it is.
        mutation: what was changed.
        outcome: ``passed`` or ``failed`` without a change; with one ``caught``, ``survived``, or what went wrong.
        test: that failed first.
        seconds: the run took.
    """

    bug: int
    mutation: str
    outcome: str
    test: str
    seconds: float

    @property
    def good(self) -> bool:
        """As it should be."""
        return self.outcome in ("passed", "caught")


class Watcher:
    """A pytest plug-in that notes what ran and what failed first."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = ""
        self.broken = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        self.passed += report.when == "call" and report.passed
        if report.failed and not self.failed:
            self.failed = report.nodeid.rpartition("::")[2]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """One file or module: tests that cannot even be collected show nothing."""
        if report.failed:
            self.broken = str(report.longrepr).strip().splitlines()[-1]


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bugs", type=int, nargs="+", default=list(range(1, 11)), help="numbers, 1 to 10")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.jobs < 1 or not set(arguments.bugs) <= set(range(1, 11)):
        parser.error("--jobs must be at least 1, and --bugs numbers from 1 to 10")
    results = []
    for result in run(sorted(set(arguments.bugs)), arguments.jobs):
        results.append(result)
        if not arguments.json:
            print(line(result), flush=True)
    good = all(result.good for result in results)
    caught = sum(result.outcome == "caught" for result in results)
    if arguments.json:
        print(json.dumps({"good": good, "caught": caught, "runs": [asdict(result) for result in results]}))
    else:
        print(f"{caught} of {len(results) - 1} caught")
    sys.exit(0 if good else 1)


def line(result: Result) -> str:
    """One row of the table."""
    number = str(result.bug or "")
    return f"{number:>3} {result.mutation:<52} {result.outcome:<9} {result.test:<80} {result.seconds:6.1f} s"


def run(bugs: Sequence[int], jobs: int) -> Iterator[Result]:
    """The tests without a change, then with each change to these bugs, in order."""
    chosen = [mutation for mutation in MUTATIONS if mutation.bug in bugs]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with ProcessPoolExecutor(jobs, context, max_tasks_per_child=1) as pool:
        yield pool.submit(unchanged, bugs).result()
        yield from pool.map(changed, chosen)


def unchanged(bugs: Sequence[int]) -> Result:
    """The tests of ``bugs`` on the software as it is; in a fresh process."""
    begin_s = time.monotonic()
    watcher = tested(" or ".join(f"bug_{bug:02d}" for bug in bugs))
    good = watcher.passed and not watcher.failed and not watcher.broken
    outcome = "passed" if good else watcher.broken or "failed"
    return Result(0, "the software as it is", outcome, watcher.failed, round(time.monotonic() - begin_s, 1))


def changed(mutation: Mutation) -> Result:
    """The tests of one bug with one change; in a fresh process, into which nothing of ``robotsac`` was imported yet."""
    begin_s = time.monotonic()
    assert not any(name.partition(".")[0] == "robotsac" for name in sys.modules)
    sys.meta_path.insert(0, Mutator(mutation))
    watcher = tested(f"bug_{mutation.bug:02d}")
    if watcher.failed:
        outcome = "caught"
    elif watcher.broken or not watcher.passed:
        outcome = f"no test ran: {watcher.broken}"
    else:
        outcome = "survived"
    return Result(mutation.bug, mutation.what, outcome, watcher.failed, round(time.monotonic() - begin_s, 1))


def tested(keyword: str) -> Watcher:
    """Run the tests whose names contain ``keyword`` until one fails."""
    watcher = Watcher()
    options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-o", f"timeout={TEST_LIMIT_S}"]
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main([*FILES, *options, "--rootdir", str(ROOT), "-k", keyword], plugins=[watcher])
    return watcher


if __name__ == "__main__":
    main()
