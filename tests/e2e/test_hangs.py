"""A process that hangs: said while it lasts, ended within a bound, and every record that was made is accounted for."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from moving_twin import PATIENT, actors, collecting_on_a_twin, last_words
from processes import SMALL, Command, children_of, free_address, running, spool_seqs, wait_for


def uplinks(collector: int) -> list[int]:
    """The uplink is the child that has the spool open."""
    found = []
    for pid in children_of(collector):
        with contextlib.suppress(OSError):
            if any(fd.readlink().name == "spool.db" for fd in Path(f"/proc/{pid}/fd").iterdir()):
                found.append(pid)
    return found


def workers(collector: int) -> list[int]:
    """Actor and uplink, from their first moment on; not the tracker that multiprocessing starts too."""
    found = []
    for pid in children_of(collector):
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def stop(pids: list[int]) -> int:
    """SIGSTOP to the only one of ``pids``."""
    (pid,) = pids
    os.kill(pid, signal.SIGSTOP)
    return pid


def seqs(folder: Path) -> list[int]:
    """Sequence numbers in the spool, each once."""
    found = spool_seqs(folder / "runs/bot/spool.db")
    assert set(found.values()) == {1}
    return sorted(seq for _, seq in found)


def wait_for_the_end_of(pid: int, collect: Command) -> None:
    wait_for(lambda: pid not in children_of(collect.process.pid), f"the end of process {pid}", collect)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(None, marks=pytest.mark.slow),
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_an_actor_that_hangs_is_ended_and_its_records_are_kept(tmp_path, number):
    with collecting_on_a_twin(tmp_path, more=PATIENT) as (collect, twin):
        stop(actors(collect.process.pid))
        if number is not None:
            collect.process.send_signal(number)
        assert collect.wait() == 4, collect.output()
        result = collect.result()
        assert last_words(twin)["watchdog_expiries"] == 6
    assert not result["torque_off"]
    assert result["ended"] == "error"
    assert result["interrupted"] == (number is not None)
    assert "no sign of life" in result["error"]["message"]
    assert "torque was not read back as off" in result["error"]["reason"]
    assert "no sign of life from the actor for 3 s; the servos' own watchdog" in collect.output()
    assert "the actor goes on" not in collect.output()
    found = seqs(tmp_path)
    assert found == list(range(len(found)))
    # It may have been stopped between a record and the count of it, and an episode counts once its last one is made.
    assert 0 <= len(found) - (result["steps"] + result["episodes"]) <= 2
    assert result["unsent"] == len(found)
    assert "Traceback" not in collect.output()


@pytest.mark.slow
def test_an_actor_that_hung_for_a_while_ends_in_order(tmp_path):
    with collecting_on_a_twin(tmp_path, more=PATIENT) as (collect, twin):
        pid = stop(actors(collect.process.pid))
        wait_for(lambda: "no sign of life from the actor" in collect.output(), "word of the silence", collect)
        os.kill(pid, signal.SIGCONT)
        assert collect.wait() == 4, "the servos have stopped listening: a fault, as if they had been unplugged"
        result = collect.result()
        assert last_words(twin)["torque_on"] == []
    assert result["torque_off"], "read back from every servo"
    assert "the actor goes on" in collect.output()
    assert "Traceback" not in collect.output()


@pytest.mark.slow
def test_ctrl_c_has_a_deadline_while_the_actor_still_starts(tmp_path):
    arguments = ["collect", "--robot", "arm0-sim", "--run", "bot", "--offline", "--json"]
    with running(tmp_path, "collect", *arguments) as collect:
        wait_for(lambda: bool(workers(collect.process.pid)), "the actor", collect)
        stop(workers(collect.process.pid))
        collect.process.send_signal(signal.SIGINT)
        assert collect.wait() == 4, collect.output()
    error = collect.result()["error"]
    assert "did not end within" in error["message"]
    assert error["reason"] == "torque was never switched on"


@pytest.mark.slow
def test_an_uplink_that_hangs_is_started_again_and_nothing_is_lost(tmp_path):
    with collecting_on_a_twin(tmp_path, more=PATIENT) as (collect, _):
        stop(uplinks(collect.process.pid))
        wait_for(lambda: "started it again" in collect.output(), "another uplink", collect)
        assert "the uplink process gave no sign of life for" in collect.output()
        wait_for(lambda: bool(uplinks(collect.process.pid)), "the other uplink at work", collect)
        collect.process.send_signal(signal.SIGINT)
        assert collect.wait() == 0, collect.output()
        result = collect.result()
    assert seqs(tmp_path) == list(range(result["steps"] + result["episodes"]))
    assert result["unsent"] == result["steps"] + result["episodes"]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_an_uplink_that_hangs_in_the_end_loses_nothing(tmp_path, killed):
    with collecting_on_a_twin(tmp_path, more=PATIENT) as (collect, twin):
        (actor,), uplink = actors(collect.process.pid), stop(uplinks(collect.process.pid))
        time.sleep(1.0)  # records that it does not take
        collect.process.send_signal(signal.SIGINT)
        if killed:
            wait_for_the_end_of(actor, collect)
            os.kill(uplink, signal.SIGKILL)
        assert collect.wait() == 0, collect.output()
        result = collect.result()
        assert last_words(twin)["watchdog_expiries"] == 0
    assert result["torque_off"]
    assert result["error"] is None
    assert seqs(tmp_path) == list(range(result["steps"] + result["episodes"]))
    assert result["unsent"] == result["steps"] + result["episodes"], "not what the first uplink had told"


@pytest.mark.slow
def test_records_that_nobody_could_store_are_counted_and_fail_the_run(tmp_path):
    """Every uplink hangs, from its first moment on."""
    with collecting_on_a_twin(tmp_path, more=PATIENT) as (collect, _):
        (actor,) = actors(collect.process.pid)
        stopped = {actor, stop(uplinks(collect.process.pid))}
        time.sleep(1.0)
        collect.process.send_signal(signal.SIGINT)

        def ended() -> bool:
            for pid in set(workers(collect.process.pid)) - stopped:
                os.kill(pid, signal.SIGSTOP)
                stopped.add(pid)
            return collect.ended()

        wait_for(ended, "the end", collect)
        assert collect.wait() == 6, collect.output()
        result = collect.result()
    assert len(stopped) > 2, "there was a second uplink"
    found = seqs(tmp_path)
    lost = result["steps"] + result["episodes"] - len(found)
    assert lost > 0
    assert found == list(range(len(found)))
    assert result["error"]["message"] == f"{lost} records could not be stored and are lost"
    assert result["error"]["exit_code"] == 6
    assert result["ended"] == "error"
    assert result["torque_off"]
    assert result["unsent"] == len(found)


def test_a_learner_that_is_killed_is_said_to_be_gone_not_to_have_ended(tmp_path):
    address = free_address()
    learn_arguments = ["learn", "--run", "brain", "--set", f"link.address='{address}'", "--json", *SMALL]
    collect_arguments = ["collect", "--robot", "arm0-sim", "--run", "bot", "--learner", address, "--json"]
    with running(tmp_path, "collect", *collect_arguments) as collect:
        with running(tmp_path, "learn", *learn_arguments) as learn:
            wait_for(lambda: "welcome to run" in collect.output(), "the link", collect)
            learn.kill_all()
        wait_for(lambda: "connection to the learner lost" in collect.output(), "word of the loss", collect)
        assert "the learner has ended" not in collect.output()
        collect.process.send_signal(signal.SIGINT)
        assert collect.wait() == 0, collect.output()
