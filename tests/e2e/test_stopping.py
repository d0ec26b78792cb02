"""However ``collect`` is told to stop, and whenever: a bounded end, in words, with the torque off."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from itertools import chain

import pytest
from moving_twin import collecting_on_a_twin, last_words
from processes import SMALL, free_address, group_members, running, wait_for


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


EARLY = [
    (signal.SIGINT, 0.3),
    (signal.SIGINT, 0.6),
    (signal.SIGINT, 1.0),
    (signal.SIGHUP, 0.8),
    (signal.SIGTERM, 0.7),
    (signal.SIGTERM, 1.6),
]
ALL = [(number, 0.2 * k) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM) for k in range(1, 16)]


@pytest.mark.parametrize(
    ("number", "after_s"), [*EARLY, *(pytest.param(*case, marks=pytest.mark.slow) for case in ALL)]
)
def test_a_signal_to_the_group_while_processes_still_start(tmp_path, number, after_s):
    """Imports, the twin's start, homing: whatever a signal meets in the first seconds."""
    with running(
        tmp_path, "collect", "collect", "--robot", "arm0-twin", "--run", "bot", "--offline", "--json"
    ) as collect:
        time.sleep(after_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(collect.process.pid, number)
        code = collect.wait(60)
        wait_for(lambda: not group_members(collect.process.pid), "the end of every process", collect, 20)
        assert "Traceback" not in collect.output()
        assert "leaked" not in collect.output()
        if "{" in collect.output():
            assert code == 0, collect.output()
            assert collect.result()["torque_off"], "read back from every servo"
        else:
            assert code in (130, -number), "before it had touched anything"


def test_the_report_says_that_a_signal_ended_it_and_how_long_the_arm_moved(tmp_path):
    with collecting_on_a_twin(tmp_path) as (collect, _):
        collect.process.send_signal(signal.SIGINT)
        assert collect.wait() == 0, collect.output()
        result = collect.result()
    assert (result["ended"], result["interrupted"], result["phase"]) == ("signal", True, "ended")
    assert result["steps"] / 50 * 0.9 < result["moving_seconds"] < result["seconds"], "50 steps in a second"


def test_a_terminal_that_is_closed_parks_the_arm(tmp_path):
    """The kernel sends SIGHUP to the group, and every later write to the terminal fails."""
    ends: list[tuple[int, int]] = []

    def terminal() -> int:
        ends.append(os.openpty())
        return ends[-1][1]

    with collecting_on_a_twin(tmp_path, terminal) as (collect, twin):
        for end in chain.from_iterable(ends):
            os.close(end)
        assert collect.wait() == 0
        words = last_words(twin)
    assert words["torque_on"] == []
    assert words["watchdog_expiries"] == 0


def test_a_reader_that_goes_away_does_not_end_learning(tmp_path):
    """``robotsac learn --json | head -1``."""
    address = free_address()
    arguments = ["learn", "--run", "brain", "--set", f"link.address='{address}'", "--json", *SMALL]
    with (tmp_path / "errors").open("wb") as errors:
        learn = subprocess.Popen(
            [sys.executable, "-m", "robotsac", *arguments],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        try:
            assert learn.stdout is not None
            assert learn.stdout.readline().startswith(b"{")
            learn.stdout.close()
            collect_arguments = ["collect", "--robot", "arm0-sim", "--run", "bot", "--learner", address, "--json"]
            with running(tmp_path, "collect", *collect_arguments, "--steps", "400") as collect:
                assert collect.wait() == 0, collect.output()
                assert collect.result()["unsent"] == 0
            assert learn.poll() is None, "it goes on"
            learn.send_signal(signal.SIGTERM)
            assert learn.wait(60) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(learn.pid, signal.SIGKILL)
            learn.wait(10)
    assert "Traceback" not in (tmp_path / "errors").read_text()
