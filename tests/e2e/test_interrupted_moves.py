"""A slow move is no reason to wait: the second Ctrl-C ends it, on the way home and on the way to the park pose."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from moving_twin import PATIENT, Begun, last_words, started_on_a_twin
from processes import Command, wait_for

MOVE_S = 60.0
"""Of every move of the guard; an end long before that is an end of the move."""
BOUND_S = 25.0


@contextlib.contextmanager
def moving_slowly(tmp_path: Path, more: tuple[str, ...] = ()) -> Iterator[tuple[Command, Command]]:
    """(collect, twin), the arm on its way home; ``more`` settings for the collector."""
    on_its_way = Begun("the way home", lambda collect: "homing" in collect.output())
    slow = (f"robot.guard.move_duration_s={MOVE_S}", *more)
    with started_on_a_twin(tmp_path, on_its_way, more=slow) as both:
        yield both


@pytest.mark.parametrize("between_s", [0.5, 4.0])
def test_a_second_ctrl_c_ends_a_move_with_torque_off(tmp_path, between_s):
    """Half a second after the first the arm still brakes on its way home, four seconds after it is on its way to park."""
    with moving_slowly(tmp_path) as (collect, twin):
        time.sleep(1.0)
        collect.process.send_signal(signal.SIGINT)
        time.sleep(between_s)
        collect.process.send_signal(signal.SIGINT)
        began_s = time.monotonic()
        collect.wait()
        assert time.monotonic() - began_s < BOUND_S
        assert collect.result()["torque_off"]
        words = last_words(twin)
    assert words["torque_on"] == []
    assert words["watchdog_expiries"] == 0, "in order, not because nobody spoke any more"
    assert "Traceback" not in collect.output()


def test_an_arm_that_is_gone_while_it_parks_is_an_error_however_it_was_stopped(tmp_path):
    """A cable pulled after Ctrl-C: nobody can have read torque back as off."""
    with moving_slowly(tmp_path, PATIENT) as (collect, twin):
        time.sleep(1.0)
        collect.process.send_signal(signal.SIGINT)
        wait_for(lambda: "parking" in collect.output(), "the way to the park pose", collect)
        twin.kill_all()
        assert collect.wait() == 4, collect.output()
        result = collect.result()
    assert (result["ended"], result["energized"], result["torque_off"]) == ("error", True, False)
    assert "treat the arm as powered" in result["error"]["reason"]
    assert result["error"]["command"].startswith("robotsac fault show ")
    assert "Traceback" not in collect.output()
