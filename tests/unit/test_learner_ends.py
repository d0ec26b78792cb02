"""However a learner ends, or one of its processes hangs: the run goes on with ``--resume``, and nobody is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from learner_processes import (
    DEADLINE_S,
    Running,
    alive,
    child,
    children_of,
    feed,
    local,
    made_run,
    supervisor,
    told,
    wait_for,
)

from robotsac.errors import ConfigError
from robotsac.learner.app import run_learn
from robotsac.learner.checkpoint import CheckpointFolder
from robotsac.learner.children import Bound
from robotsac.lock import FileLock


def test_ingest_is_restarted_and_a_dead_trainer_is_an_error(tmp_path: Path) -> None:
    with Running(tmp_path / "run", local()) as learner:
        learner.wait_until(updates=0)
        child("ingest").kill()
        learner.wait_until(ingest_restarts=1)
        child("trainer").kill()
        learner.wait_for_end()
    assert learner.exit_code == 1
    error = learner.seen[-1]["error"]
    assert error["message"] == "trainer was ended by signal 9"
    assert error["command"] == f"robotsac learn --run {tmp_path / 'run'} --resume"
    assert multiprocessing.active_children() == []


def test_a_status_that_cannot_be_written_does_not_look_like_a_hang_but_a_frozen_ingest_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robotsac.learner.children.INGEST_SILENCE_MAX_S", 4.0)
    status = tmp_path / "run" / "ingest-status.json"
    with Running(tmp_path / "run", local()) as learner:
        wait_for("ingest", status.exists)
        status.unlink()
        status.mkdir()  # as good as a full disk
        time.sleep(5.0)
        learner.wait_until(ingest_restarts=0)
        assert learner.seen[-1]["ingest_restarts"] == 0
        os.kill(child("ingest").pid, signal.SIGSTOP)
        learner.wait_until(ingest_restarts=1)
    assert learner.exit_code == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_in_order_also_in_the_first_second(tmp_path: Path, how: signal.Signals) -> None:
    with supervisor(tmp_path) as process:
        _, pids = told(process)
        os.killpg(process.pid, how) if how is signal.SIGINT else process.send_signal(how)
        assert process.wait(DEADLINE_S) == 0
        wait_for("the end of the children", lambda: not any(alive(pid) for pid in pids))


def test_when_the_supervisor_is_killed_the_trainer_saves_and_the_run_can_be_resumed_at_once(tmp_path: Path) -> None:
    chosen = local()
    with supervisor(tmp_path, chosen) as process:
        told(process)
        feed(tmp_path / "run", 400)
        updates, pids = told(process)
        while updates < 50:
            updates, pids = told(process)
        process.kill()
        process.wait(DEADLINE_S)
        with Running(tmp_path / "run", chosen, resume=True) as again:
            again.wait_until(updates=updates)
        assert not any(alive(pid) for pid in pids)
    assert again.exit_code == 0
    manifest, _ = CheckpointFolder(tmp_path / "run" / "checkpoints").load_latest() or pytest.fail("no checkpoint")
    assert manifest.updates >= updates


def test_a_trainer_that_still_loads_ends_at_once_with_its_supervisor(tmp_path: Path) -> None:
    """A stopped process runs no check of its own: only the kernel can end it."""
    chosen, lock = local(), tmp_path / "run" / "trainer.lock"
    made_run(tmp_path / "run", chosen)
    with supervisor(tmp_path, chosen, resume=True) as process:
        _, trainer = children_of(process)
        wait_for("the trainer", lambda: FileLock(lock).holder() == str(trainer))
        os.kill(trainer, signal.SIGSTOP)
        process.kill()
        wait_for("the end of the trainer", lambda: not alive(trainer))
    assert FileLock(lock).acquire()


@pytest.mark.parametrize("after_s", [0.0, 0.5, 1.5])
def test_a_supervisor_that_is_killed_while_its_children_start_leaves_nobody_behind(
    tmp_path: Path, after_s: float
) -> None:
    chosen = local()
    made_run(tmp_path / "run", chosen)
    with supervisor(tmp_path, chosen, resume=True) as process:
        pids = children_of(process)
        time.sleep(after_s)
        process.kill()
        wait_for("the end of the children", lambda: not any(alive(pid) for pid in pids))


HOLDER = """
import sys, time
from pathlib import Path
from robotsac.lock import FileLock

assert FileLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("name", "what"), [("learner.lock", "a learner"), ("trainer.lock", "a trainer"), ("ingest.lock", "an ingest")]
)
def test_resuming_waits_for_who_is_still_at_work_and_then_says_how_to_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    run_dir, chosen, events = tmp_path / "pick", local(), list[str]()
    made_run(run_dir, chosen)
    monkeypatch.setattr("robotsac.learner.app.LOCK_WAIT_S", 0.3)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(run_dir / name)], stdout=subprocess.PIPE, text=True)
    with holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            for stopped, command in ((False, f"kill {holder.pid}"), (True, f"kill -CONT {holder.pid}")):
                if stopped:
                    holder.send_signal(signal.SIGSTOP)
                    wait_for("the stop", lambda: "\nState:\tT" in Path(f"/proc/{holder.pid}/status").read_text())
                with pytest.raises(ConfigError, match=f"{what} is still at work on run 'pick'") as refused:
                    run_learn(chosen, run_dir, resume=True, on_event=events.append)
                assert f"process {holder.pid}" in refused.value.reason
                assert refused.value.command == command
            assert (
                events
                == [f"{what} is still at work on run 'pick' (process {holder.pid}); waiting up to 0.3 s for it to end"]
                * 2
            )
        finally:
            holder.kill()


@pytest.mark.parametrize("name", ["trainer.lock", "ingest.lock"])
def test_resuming_goes_on_once_the_last_one_lets_go(tmp_path: Path, name: str) -> None:
    run_dir, chosen = tmp_path / "run", local()
    made_run(run_dir, chosen)
    last = FileLock(run_dir / name)
    assert last.acquire()
    with Running(run_dir, chosen, resume=True) as learner:
        wait_for("word of it", lambda: bool(learner.events))
        assert learner.seen == []
        last.release()
        learner.wait_until(updates=1)
    assert learner.exit_code == 0
    assert sum("still at work" in event for event in learner.events) == 1


def test_a_frozen_trainer_is_told_of_and_in_the_end_the_learner_ends_with_what_was_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robotsac.learner.children.TRAINER_AT_WORK", Bound(3.0, 9.0))
    run_dir = tmp_path / "run"
    with Running(run_dir, local(checkpoint_every_s=600.0)) as learner:
        wait_for("the log", (run_dir / "learner-settings.json").exists)
        learner.feed(400)
        learner.wait_until(updates=50)
        pid = child("trainer").pid
        os.kill(pid, signal.SIGSTOP)
        wait_for("word of it", lambda: bool(learner.events))
        assert learner.events == ["trainer silent for 3 s"]
        assert learner.seen[-1]["trainer_silent_s"] >= 3 or learner.seen[-1]["trainer_silent_s"] == 0
        wait_for("it in the status", lambda: learner.seen[-1]["trainer_silent_s"] >= 3)
        os.kill(pid, signal.SIGCONT)
        wait_for("word of its return", lambda: len(learner.events) == 2)
        assert learner.events[1] == "the trainer goes on"
        updates = learner.seen[-1]["updates"]
        os.kill(pid, signal.SIGSTOP)
        learner.wait_for_end()
    assert learner.exit_code == 1
    error = learner.seen[-1]["error"]
    assert error["message"] == "trainer has given no sign of life for 9 s"
    assert error["reason"] == f"process {pid} has been stopped by a signal"
    assert error["command"] == f"robotsac learn --run {run_dir} --resume"
    assert learner.events[2:] == ["trainer silent for 3 s"]
    manifest, _ = CheckpointFolder(run_dir / "checkpoints").load_latest() or pytest.fail("no checkpoint")
    assert manifest.updates >= updates, "it was woken up to save"
    assert multiprocessing.active_children() == []
