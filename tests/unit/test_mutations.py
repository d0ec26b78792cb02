"""The ten bugs, put back in: each must still fit the software, and be found (``tools/check_bugs.py``)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.bug}: {mutation.what}")
def test_every_bug_still_fits_the_software(mutation: Mutation) -> None:
    """A change whose text is gone would show nothing; it must be there once, and what comes of it must compile."""
    path = ROOT / f"{mutation.module_name.replace('.', '/')}.py"
    compile(mutation.applied(path.read_text(encoding="utf-8")), path, "exec")
    assert mutation.old != mutation.new


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
