"""The virtual servo bus in real time, with the real driver, processes and sockets."""

from __future__ import annotations

import os
import signal

from processes import SMALL, children_of, free_address, replay_seqs, running, spool_seqs, wait_for


def test_collect_on_the_twin_streams_to_a_learner_and_ends_with_torque_off(tmp_path):
    address = free_address()
    learn_arguments = ["learn", "--run", "brain", "--set", f"link.address='{address}'", "--json", *SMALL]
    collect_arguments = ["collect", "--robot", "arm0-twin", "--run", "bot", "--learner", address, "--json"]
    with running(tmp_path, "learn", *learn_arguments) as learn:
        with running(tmp_path, "collect", *collect_arguments, "--steps", "300") as collect:
            assert collect.wait() == 0, collect.output()
        learn.process.send_signal(signal.SIGTERM)
        assert learn.wait() == 0, learn.output()
    result = collect.result()
    assert result["steps"] >= 300
    assert result["torque_off"], "read back from every servo"
    assert result["unsent"] == 0
    assert replay_seqs(tmp_path / "runs/brain/replay.db") == spool_seqs(tmp_path / "runs/bot/spool.db")


def actors(collector: int) -> list[int]:
    return [pid for pid in children_of(collector) if children_of(pid)]


def test_an_actor_that_is_killed_leaves_the_arm_to_the_servos_watchdog(tmp_path):
    arguments = ["collect", "--robot", "arm0-twin", "--run", "bot", "--learner", free_address(), "--offline", "--json"]
    with running(tmp_path, "collect", *arguments) as collect:
        wait_for((tmp_path / "runs/bot/spool.db").exists, "the first records", collect)
        # The actor is the child that has a child of its own: the twin.
        wait_for(lambda: bool(actors(collect.process.pid)), "the actor with its twin", collect)
        os.kill(actors(collect.process.pid)[0], signal.SIGKILL)
        assert collect.wait() != 0
    assert "watchdog" in collect.output()
    assert "Traceback" not in collect.output()


def test_a_missing_arm_is_one_sentence_one_reason_one_command(tmp_path):
    with running(tmp_path, "collect", "collect", "--robot", "arm0", "--run", "bot") as collect:
        assert collect.wait() == 3
    lines = collect.output().strip().splitlines()
    assert len(lines) == 3, collect.output()
    assert "/dev/ttyUSB0" in lines[0]
    assert "why:" in lines[1]
    assert "robotsac collect --robot arm0-twin" in lines[2]
