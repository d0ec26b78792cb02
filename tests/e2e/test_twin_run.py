"""The virtual servo bus in real time, with the real driver, processes and sockets."""

from __future__ import annotations

import os
import signal

from moving_twin import actors, collecting_on_a_twin, last_words
from processes import SMALL, free_address, replay_seqs, running, spool_seqs


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


def test_an_actor_that_is_killed_leaves_the_arm_to_the_servos_watchdog(tmp_path):
    with collecting_on_a_twin(tmp_path) as (collect, twin):
        os.kill(actors(collect.process.pid)[0], signal.SIGKILL)
        assert collect.wait() != 0
        assert not collect.result()["torque_off"]
        assert last_words(twin)["watchdog_expiries"] == 6
    assert "Traceback" not in collect.output()


def test_a_setting_reaches_the_twin_that_a_driver_starts(tmp_path):
    settings = ["--set", "robot.sim.allow_faults=true", "--set", "robot.sim.faults=[{kind='unplug', at_ns=3000000000}]"]
    arguments = ["collect", "--robot", "arm0-twin", "--run", "bot", "--offline", "--json", *settings]
    with running(tmp_path, "collect", *arguments) as collect:
        assert collect.wait() == 4, collect.output()
    assert "Traceback" not in collect.output()


def test_a_missing_arm_is_one_sentence_one_reason_one_command(tmp_path):
    with running(tmp_path, "collect", "collect", "--robot", "arm0", "--run", "bot") as collect:
        assert collect.wait() == 3
    lines = collect.output().strip().splitlines()
    assert len(lines) == 3, collect.output()
    assert "/dev/ttyUSB0" in lines[0]
    assert "why:" in lines[1]
    assert "robotsac collect" in lines[2]
    assert "--robot arm0-twin" in lines[2]
