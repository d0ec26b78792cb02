"""The supervisor's hold on its two processes when they do not do as they are told. Stubs stand in for the processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from learner_world import settings

from robotsac.child_error import write_child_error
from robotsac.errors import LinkError, RobotsacError, StorageError
from robotsac.learner.board import LEARNER_FIELDS
from robotsac.learner.children import INGEST_RESTARTS_MAX, INGEST_SILENCE_MAX_S, TRAINER_SILENCE_MAX_S, Children
from robotsac.learner.run_folder import INGEST_ERROR_FILE
from robotsac.shared import SharedBlock

NS_PER_S = 1_000_000_000


class Stub:
    """A process that never ends by itself; one that hangs in the kernel does not even end when killed."""

    def __init__(self, *, killable: bool) -> None:
        self.killable = killable
        self.exitcode: int | None = None
        self.waits_s: list[float | None] = []

    def start(self) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None:
        if self.killable:
            self.exitcode = -9

    def join(self, timeout_s: float | None = None) -> None:
        self.waits_s.append(timeout_s)

    def is_alive(self) -> bool:
        return self.exitcode is None


@pytest.fixture
def board() -> Iterator[SharedBlock]:
    board = SharedBlock.create(LEARNER_FIELDS)
    yield board
    board.close()
    board.unlink()


@pytest.fixture
def started(
    tmp_path: Path, board: SharedBlock, monkeypatch: pytest.MonkeyPatch
) -> Callable[[bool], tuple[Children, list[Stub]]]:
    """Children whose processes are stubs, as they are started: ingest, trainer, ingest again …"""

    def start(killable: bool) -> tuple[Children, list[Stub]]:
        stubs: list[Stub] = []
        children = Children(settings(), tmp_path, "run-1", board)

        def spawn(*_: object) -> Stub:
            stubs.append(Stub(killable=killable))
            return stubs[-1]

        monkeypatch.setattr(children, "_spawn", spawn)
        children.start()
        return children, stubs

    return start


def silent(board: SharedBlock, field: str, seconds: float) -> None:
    board[field] = time.monotonic_ns() - int(seconds * NS_PER_S)


def test_a_silent_ingest_is_killed_and_started_anew_until_it_has_been_tried_often_enough(started, board) -> None:
    children, stubs = started(True)
    children.check()
    for count in range(1, INGEST_RESTARTS_MAX + 1):
        silent(board, "ingest_beat_ns", INGEST_SILENCE_MAX_S + 1)
        children.check()
        assert children.ingest_restarts == count and len(stubs) == 2 + count
        children.check()
    silent(board, "ingest_beat_ns", INGEST_SILENCE_MAX_S + 1)
    with pytest.raises(RobotsacError) as refused:
        children.check()
    assert refused.value.message == f"ingest has given no sign of life for 31 s after {INGEST_RESTARTS_MAX} restarts"
    assert refused.value.reason and refused.value.command.endswith("--resume")


def test_an_ingest_that_does_not_even_end_when_killed_is_an_error_and_no_wait_without_end(started, board) -> None:
    children, stubs = started(False)
    silent(board, "ingest_beat_ns", INGEST_SILENCE_MAX_S + 1)
    with pytest.raises(RobotsacError, match="ingest has given no sign of life"):
        children.check()
    children.stop()
    assert None not in [wait for stub in stubs for wait in stub.waits_s], "a wait without a deadline"


def test_a_silent_trainer_is_an_error(started, board) -> None:
    children, _ = started(True)
    silent(board, "beat_ns", TRAINER_SILENCE_MAX_S + 1)
    with pytest.raises(RobotsacError, match="trainer has given no sign of life for 121 s"):
        children.check()


@pytest.mark.parametrize(("killable", "words"), [(True, "ended by signal 9"), (False, "not even when killed")])
def test_a_trainer_that_had_to_be_killed_has_not_ended_in_order(started, killable: bool, words: str) -> None:
    children, stubs = started(killable)
    children.stop()
    assert None not in [wait for stub in stubs for wait in stub.waits_s], "a wait without a deadline"
    with pytest.raises(RobotsacError, match=words):
        children.require_clean_end()


def test_an_ingest_that_ended_on_purpose_is_not_started_again(started, tmp_path: Path) -> None:
    children, stubs = started(True)
    stubs[0].exitcode = StorageError.exit_code
    with pytest.raises(StorageError, match="ingest could not write"):
        children.check()
    children, stubs = started(True)
    write_child_error(tmp_path / INGEST_ERROR_FILE, LinkError("the port is in use", reason="why", command="ss"))
    stubs[0].exitcode = LinkError.exit_code
    with pytest.raises(RobotsacError, match="the port is in use"):
        children.check()
    assert len(stubs) == 2, "ingest and trainer, once"


@pytest.mark.parametrize("exit_code", [1, -11])
def test_an_ingest_that_crashed_is_started_again(started, exit_code: int) -> None:
    children, stubs = started(True)
    stubs[0].exitcode = exit_code
    children.check()
    assert children.ingest_restarts == 1 and len(stubs) == 3
