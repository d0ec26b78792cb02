"""The virtual servo bus in real time, with the real driver, processes and sockets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import SMALL, Command, children_of, free_address, replay_seqs, running, spool_seqs, wait_for


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
    """The actor is the child that keeps the serial port open."""
    found = []
    for pid in children_of(collector):
        with contextlib.suppress(OSError):
            if any("/dev/pts/" in str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()):
                found.append(pid)
    return found


@contextlib.contextmanager
def collecting_on_a_twin(tmp_path: Path) -> Iterator[tuple[Command, Command]]:
    """A twin of its own, as hardware would be, and a collector that moves it: (collect, twin)."""
    with running(tmp_path, "twin", "twin", "--robot", "arm0", "--json") as twin:
        wait_for(lambda: "port" in twin.output(), "the port", twin)
        port = json.loads(twin.output().splitlines()[0])["port"]
        arguments = ["collect", "--robot", "arm0", "--run", "bot", "--offline", "--json"]
        settings = [f"robot.driver.port='{port}'", "robot.driver.read_deadline_ms=12.0"]
        with running(tmp_path, "collect", *arguments, *(a for s in settings for a in ("--set", s))) as collect:
            wait_for(lambda: stored(tmp_path) > 20, "20 records of a moving arm", collect)
            yield collect, twin


def stored(tmp_path: Path) -> int:
    """Records in the spool, as the uplink tells."""
    try:
        spool = json.loads((tmp_path / "runs/bot/uplink-status.json").read_text())["spool"]
        return sum(committed for committed, _, _ in spool.values())
    except (OSError, ValueError, KeyError):
        return 0


def last_words(twin: Command) -> dict:
    """The twin's own account of what happened on its bus."""
    twin.process.send_signal(signal.SIGTERM)
    assert twin.wait() == 0
    return twin.result()


def test_an_actor_that_is_killed_leaves_the_arm_to_the_servos_watchdog(tmp_path):
    with collecting_on_a_twin(tmp_path) as (collect, twin):
        os.kill(actors(collect.process.pid)[0], signal.SIGKILL)
        assert collect.wait() != 0
        assert not collect.result()["torque_off"]
        assert last_words(twin)["watchdog_expiries"] == 6
    assert "Traceback" not in collect.output()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_ends_with_torque_off_at_the_servos(tmp_path, number):
    """What a terminal sends: Ctrl-C, and the SIGHUP of a dropped ssh connection, reach every process at once."""
    with collecting_on_a_twin(tmp_path) as (collect, twin):
        if number == signal.SIGTERM:
            collect.process.send_signal(number)
        else:
            os.killpg(collect.process.pid, number)
        assert collect.wait() == 0, collect.output()
        assert collect.result()["torque_off"]
        words = last_words(twin)
    assert words["torque_on"] == []
    assert words["watchdog_expiries"] == 0, "torque went off in order, not because nobody spoke any more"


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
    assert "robotsac collect --robot arm0-twin" in lines[2]
