"""How tests share the processor: those that start processes run one after another, beside everything else.

Tests with processes of their own, a twin in real time among them, take turns in one worker and mostly wait, so ``make test``
has one worker more than there are cores; what only computes fills the others at a lower priority, so that nobody's real
time waits for arithmetic.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Two workers with two threads each would fight for two cores. Before torch is imported, here and in every child.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Output is buffered where users run commands; what a stream that is gone still holds then fails once more at the end.
os.environ.pop("PYTHONUNBUFFERED", None)

TESTS = Path(__file__).parent
NICE = 10
_yielding = False


def _starts_processes(item: pytest.Item) -> bool:
    return item.path.relative_to(TESTS).parts[0] in ("contract", "e2e", "fault")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _starts_processes(item):
            item.add_marker(pytest.mark.xdist_group("processes"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """pytest-xdist 3.8 puts a group's name behind the node's, which pytest 9.2 ignores without a word (pytest-xdist #1386)."""
    grouped = getattr(session.config.option, "loadgroup", False)
    if grouped and not all("@" in item.nodeid for item in session.items if item.get_closest_marker("xdist_group")):
        raise pytest.UsageError("tests would not run in their groups: install what constraints.txt names")


def pytest_runtest_setup(item: pytest.Item) -> None:
    global _yielding
    if "PYTEST_XDIST_WORKER" in os.environ and not _yielding and not _starts_processes(item):
        _yielding = True  # for good: only a privileged process could take it back
        os.nice(NICE)
