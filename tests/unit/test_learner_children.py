"""The supervisor's hold on its two processes when they do not do as they are told. Stubs stand in for the processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from learner_world import settings

from robotsac.child_error import write_child_error
from robotsac.errors import LinkError, RobotsacError, StorageError
from robotsac.learner.board import LEARNER_FIELDS, TrainerState
from robotsac.learner.children import (
    INGEST_RESTARTS_MAX,
    INGEST_SILENCE_MAX_S,
    TRAINER_AT_WORK,
    TRAINER_LOADING,
    Children,
)
from robotsac.learner.run_folder import INGEST_ERROR_FILE
from robotsac.shared import SharedBlock
from robotsac.silence import LOOK_MAX_S, Bound


class Stub:
    """A process that never ends by itself; one that hangs in the kernel does not even end when killed."""

    def __init__(self, *, killable: bool) -> None:
        self.killable = killable
        self.exitcode: int | None = None
        self.pid: int | None = None
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


class Time:
    """Monotonic time that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def pass_by(self, seconds: float, check: Callable[[], None]) -> None:
        """``check`` sees all of it, as the supervisor does."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(self.now_s + LOOK_MAX_S, end_s)
            check()


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def started(
    tmp_path: Path, board: SharedBlock, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> Callable[[bool], tuple[Children, list[Stub]]]:
    """Children whose processes are stubs, as they are started: ingest, trainer, ingest again …"""

    def start(killable: bool) -> tuple[Children, list[Stub]]:
        stubs: list[Stub] = []
        children = Children(settings(), tmp_path, "run-1", board, clock)

        def spawn(*_: object) -> Stub:
            stubs.append(Stub(killable=killable))
            return stubs[-1]

        monkeypatch.setattr(children, "_spawn", spawn)
        children.start()
        children.check()
        return children, stubs

    return start


def silent_ingest(clock: Time, board: SharedBlock, children: Children) -> None:
    """For longer than it may, while the trainer is well."""

    def check() -> None:
        board["beat_ns"] += 1
        children.check()

    clock.pass_by(INGEST_SILENCE_MAX_S + 1, check)


def test_a_silent_ingest_is_killed_and_started_anew_until_it_has_been_tried_often_enough(started, board, clock) -> None:
    children, stubs = started(True)
    children.check()
    for count in range(1, INGEST_RESTARTS_MAX + 1):
        silent_ingest(clock, board, children)
        assert children.ingest_restarts == count and len(stubs) == 2 + count
        children.check()
    with pytest.raises(RobotsacError) as refused:
        silent_ingest(clock, board, children)
    assert refused.value.message == f"ingest has given no sign of life for 31 s after {INGEST_RESTARTS_MAX} restarts"
    assert refused.value.reason and refused.value.command.endswith("--resume")


def test_an_ingest_that_does_not_even_end_when_killed_is_an_error_and_no_wait_without_end(
    started, board, clock
) -> None:
    children, stubs = started(False)
    with pytest.raises(RobotsacError, match="ingest has given no sign of life"):
        silent_ingest(clock, board, children)
    children.stop()
    assert None not in [wait for stub in stubs for wait in stub.waits_s], "a wait without a deadline"


@pytest.mark.parametrize(
    ("state", "bound"),
    [
        (TrainerState.STARTING, TRAINER_LOADING),
        (TrainerState.RESUMING, TRAINER_LOADING),
        (TrainerState.WAITING_FOR_ROBOT, TRAINER_AT_WORK),
        (TrainerState.TRAINING, TRAINER_AT_WORK),
    ],
)
def test_a_silent_trainer_is_told_of_and_then_an_error_later_while_it_loads(
    started, board, clock, state: TrainerState, bound: Bound
) -> None:
    children, _ = started(True)
    board["trainer_state"] = state

    def check() -> None:
        board["ingest_beat_ns"] += 1
        children.check()

    clock.pass_by(bound.told_s, check)
    assert children.trainer_silent_s == 0
    clock.pass_by(1, check)
    assert children.trainer_silent_s == bound.told_s + 1
    board["beat_ns"] += 1
    check()
    assert children.trainer_silent_s == 0, "a sign of life"
    clock.pass_by(bound.max_s, check)
    with pytest.raises(RobotsacError, match=f"trainer has given no sign of life for {bound.max_s + 1:.0f} s"):
        clock.pass_by(1, check)


def test_a_pause_of_the_supervisor_itself_is_nobodys_silence(started, board, clock) -> None:
    """Ctrl-Z and fg, a laptop that is closed: all of them stood still."""
    children, stubs = started(True)
    board["trainer_state"] = TrainerState.TRAINING
    clock.now_s += 10_000
    children.check()
    assert children.trainer_silent_s == 0
    assert len(stubs) == 2, "ingest and trainer, once"


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
