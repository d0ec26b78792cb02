"""Put each of the ten known bugs of SAC back into the software, and see that its tests find it.

    python tools/check_bugs.py
    python tools/check_bugs.py --bugs 3 7 --json

First the tests of the ten bugs as they are, which must pass; then once for each change of ``tests/unit/mutations.py``, with
the tests of that bug alone, until the first of them fails. Every run has a process of its own, in which one module is
changed as it is imported; no file is. A bug counts as caught when a test failed: by an assertion, or by an error raised in
it. A fixture that failed, tests that could not be collected, one that took too long, or a process that died, show nothing.
A change that no test notices, that shows nothing, or that fits the software no longer, gives exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from multiprocessing.context import BaseContext
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
        outcome: ``passed`` or ``failed`` without a change; with one ``caught`` or ``survived``; or why it shows nothing.
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
    """A pytest plug-in that notes what ran, which test failed first, and what went wrong with the testing itself."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = ""
        self.broken = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        self.passed += report.when == "call" and report.passed
        if not report.failed or self.failed or self.broken:
            return
        test = report.nodeid.rpartition("::")[2]
        crash = getattr(report.longrepr, "reprcrash", None)
        message = "" if crash is None else crash.message.partition("\n")[0]
        if message.endswith("from pytest-timeout."):
            self.broken = f"{test} took too long"
        elif report.when != "call":
            self.broken = f"{report.when} of {test} failed: {message}"
        else:
            self.failed = test

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """One file or module: tests that cannot even be collected show nothing."""
        if report.failed:
            self.broken = str(report.longrepr).strip().splitlines()[-1]

    def ended(self, code: int) -> None:
        """What :func:`pytest.main` returned."""
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            self.broken = self.broken or f"pytest ended with {pytest.ExitCode(code).name}"

    @property
    def verdict(self) -> str:
        """``failed``, ``passed``, or why it is neither."""
        if self.broken:
            return f"shows nothing: {self.broken}"
        if self.failed:
            return "failed"
        return "passed" if self.passed else "shows nothing: no test ran"


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
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with ThreadPoolExecutor(jobs) as threads:
        yield alone(context, unchanged, Result(0, "the software as it is", "", "", 0.0), bugs)
        yield from threads.map(
            lambda one: alone(context, changed, Result(one.bug, one.what, "", "", 0.0), one),
            [mutation for mutation in MUTATIONS if mutation.bug in bugs],
        )


def alone(context: BaseContext, tests: Callable[..., Result], died: Result, *args: object) -> Result:
    """``tests(*args)`` in a process of its own; ``died`` with the reason, should the process not live to say."""
    with ProcessPoolExecutor(1, context) as process:
        try:
            return process.submit(tests, *args).result()
        except BrokenProcessPool:
            return replace(died, outcome="shows nothing: its process died")


def unchanged(bugs: Sequence[int], files: Sequence[str] = FILES) -> Result:
    """The tests of ``bugs`` on the software as it is; in a fresh process."""
    begin_s = time.monotonic()
    watcher = tested(" or ".join(f"bug_{bug:02d}" for bug in bugs), files)
    seconds = round(time.monotonic() - begin_s, 1)
    return Result(0, "the software as it is", watcher.verdict, watcher.failed, seconds)


def changed(mutation: Mutation) -> Result:
    """The tests of one bug with one change; in a fresh process, into which nothing of ``robotsac`` was imported yet."""
    begin_s = time.monotonic()
    assert not any(name.partition(".")[0] == "robotsac" for name in sys.modules)
    if misfit := misfit_of(mutation):
        return Result(mutation.bug, mutation.what, misfit, "", 0.0)
    sys.meta_path.insert(0, Mutator(mutation))
    watcher = tested(f"bug_{mutation.bug:02d}", FILES)
    outcome = {"failed": "caught", "passed": "survived"}.get(watcher.verdict, watcher.verdict)
    return Result(mutation.bug, mutation.what, outcome, watcher.failed, round(time.monotonic() - begin_s, 1))


def misfit_of(mutation: Mutation) -> str:
    """Why the change cannot be made, or nothing: an import that fails in the middle of a test would look like a catch."""
    path = ROOT / f"{mutation.module_name.replace('.', '/')}.py"
    try:
        compile(mutation.applied(path.read_text(encoding="utf-8")), path, "exec")
    except (OSError, ValueError, SyntaxError) as error:
        return f"does not fit: {error}"
    return ""


def tested(keyword: str, files: Sequence[str]) -> Watcher:
    """Run the tests whose names contain ``keyword`` until one fails."""
    watcher = Watcher()
    options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-o", f"timeout={TEST_LIMIT_S}"]
    with contextlib.redirect_stdout(io.StringIO()):
        code = pytest.main([*files, *options, "--rootdir", str(ROOT), "-k", keyword], plugins=[watcher])
    watcher.ended(code)
    return watcher


if __name__ == "__main__":
    main()
