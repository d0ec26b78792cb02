"""The ten bugs, put back in: each must still fit the software, and be found (``tools/check_bugs.py``)."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.bug}: {mutation.what}")
def test_every_bug_still_fits_the_software(mutation: Mutation) -> None:
    """A change whose text is gone would show nothing; it must be there once, and what comes of it must compile."""
    path = ROOT / f"{mutation.module_name.replace('.', '/')}.py"
    compile(mutation.applied(path.read_text(encoding="utf-8")), path, "exec")
    assert mutation.old != mutation.new


@pytest.fixture
def check_bugs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import check_bugs

    return check_bugs


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        ("def test_bug_01(): pass", "passed"),
        ("def test_bug_01(): assert 1 == 2", "failed"),
        ("def test_bug_01(): [][0]", "failed"),
        ("def test_bug_02(): assert False", "NO_TESTS_COLLECTED"),
        ("import not_a_module\ndef test_bug_01(): pass", "not_a_module"),
        ("import pytest\n@pytest.fixture\ndef f(): [][0]\ndef test_bug_01(f): pass", "setup of test_bug_01"),
        ("import pytest, time\n@pytest.mark.timeout(0.1)\ndef test_bug_01(): time.sleep(9)", "took too long"),
        ("import pytest\ndef test_bug_01(): pytest.exit('enough')", "INTERRUPTED"),
    ],
)
def test_only_a_test_that_failed_by_itself_counts(
    check_bugs: ModuleType, tmp_path: Path, lines: str, verdict: str
) -> None:
    file = tmp_path / f"{tmp_path.name}.py"  # a name of its own: modules are imported once
    file.write_text(lines)
    found = check_bugs.tested("bug_01", [str(file)]).verdict
    assert verdict in found
    assert (found in ("passed", "failed")) is (verdict in ("passed", "failed"))


def test_a_process_that_died_shows_nothing(check_bugs: ModuleType) -> None:
    died = check_bugs.Result(1, "a bug", "", "", 0.0)
    result = check_bugs.alone(multiprocessing.get_context("forkserver"), os._exit, died, 1)
    assert result.outcome == "shows nothing: its process died" and not result.good


def test_a_change_that_cannot_be_made_is_no_catch(check_bugs: ModuleType) -> None:
    for old, new in (("this text is nowhere", ""), ("def step(", "def def step(")):
        assert check_bugs.misfit_of(Mutation(1, "", "learner.algorithm", old, new)).startswith("does not fit")
    assert check_bugs.misfit_of(Mutation(1, "", "learner.algorithm", "def step(", "def other(")) == ""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_bug_that_is_put_back_in_is_found() -> None:
    command = [sys.executable, str(ROOT / "tools/check_bugs.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    body = json.loads(done.stdout)
    assert [one for one in body["runs"] if one["outcome"] not in ("passed", "caught")] == []
    assert done.returncode == 0 and body["good"] and body["caught"] == len(MUTATIONS)
    caught = [one["bug"] for one in body["runs"]]
    assert all(caught.count(bug) >= 3 for bug in range(1, 11))
