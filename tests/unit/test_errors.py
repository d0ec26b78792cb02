"""Errors in words: what, why, and a command that fits."""

from __future__ import annotations

import errno
import re
import shlex
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robotsac.config import load_config
from robotsac.env.arm_env import ArmEnv
from robotsac.errors import (
    AGAIN,
    ROBOT_FILE,
    ArmError,
    ArmSetupError,
    ArmStateError,
    BusTimeout,
    ConfigError,
    FaultCode,
    GuardFault,
    JointFault,
    path_command,
)


@pytest.mark.parametrize(
    ("code", "command"),
    [
        (errno.ENOSPC, "df -h"),
        (errno.EDQUOT, "df -h"),
        (errno.EIO, "df -h"),
        (errno.ENOENT, "ls -ld"),
        (errno.ENOTDIR, "ls -ld"),
        (errno.EACCES, "ls -ld"),
        (errno.EPERM, "ls -ld"),
        (errno.EISDIR, "ls -ld"),
        (errno.EROFS, "findmnt -T"),
    ],
)
def test_a_path_that_cannot_be_used_gets_the_command_that_shows_why(tmp_path, code, command):
    error = OSError(code, "words")
    assert path_command(error, tmp_path) == f"{command} {tmp_path}"
    assert path_command(error, tmp_path / "not" / "there") == f"{command} {tmp_path}", "the nearest that exists"


def test_a_file_where_a_folder_should_be_is_what_is_shown(tmp_path):
    (tmp_path / "a file").write_text("")
    with pytest.raises(NotADirectoryError) as caught:
        (tmp_path / "a file" / "x" / "y").mkdir(parents=True)
    assert (
        path_command(caught.value, tmp_path / "a file" / "x" / "y") == f"ls -ld {shlex.quote(str(tmp_path / 'a file'))}"
    )


def test_too_many_open_files_and_sqlite_which_has_no_errno():
    assert path_command(OSError(errno.EMFILE, "words"), Path("x")) == "ulimit -n"
    assert path_command(sqlite3.OperationalError("database or disk is full"), Path("/nowhere/x")) == "df -h /"
    assert path_command(FileNotFoundError(), Path("nowhere/x")) == "ls -ld ."


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (GuardFault(FaultCode.BUS, value=5, limit=5), "no valid reply in 5 bus rounds in a row, the limit is 5"),
        (
            GuardFault(FaultCode.BUS, joint=2, name="elbow", value=5.0, limit=5),
            "joint 2 (elbow): no valid reply in 5 bus rounds in a row, the limit is 5",
        ),
        (
            GuardFault(FaultCode.POSITION, joint=2, name="elbow", value=-1.7, limit=-1.62, unit="rad"),
            "joint 2 (elbow): position -1.7 rad is beyond the hard limit of -1.62 rad",
        ),
        (
            GuardFault(FaultCode.TEMPERATURE, joint=0, name="base", value=71.0, limit=70.0, unit="°C"),
            "joint 0 (base): temperature 71 °C has reached the limit of 70 °C",
        ),
        (
            GuardFault(
                FaultCode.VELOCITY, joint=0, name="base", value=-0.200004, limit=0.2, unit="rad/s", reason="2 x"
            ),
            "joint 0 (base): velocity -0.200004 rad/s is beyond the fault threshold of 0.2 rad/s (2 x)",
        ),
        (
            GuardFault(FaultCode.DEADLINE, value=80.0, limit=50.0, unit="ms", detail="why"),
            "no bus tick for 80 ms, the limit is 50 ms (why)",
        ),
        (
            GuardFault(FaultCode.JOINT, joint=3, name="roll", detail="overheating {x}", reason="bits"),
            "joint 3 (roll): overheating {x} (bits)",
        ),
    ],
)
def test_a_fault_is_one_sentence_with_value_limit_and_unit(fault, words):
    assert str(fault) == words
    assert fault.command == AGAIN


@pytest.mark.parametrize("code", list(FaultCode))
def test_no_fault_shows_a_gap_where_a_word_belongs(code):
    fault = GuardFault(code, joint=1, name="j", value=1.0, limit=2.0, unit="rad", detail="so")
    assert "{" not in fault.message and "nan" not in fault.message


def test_a_servos_own_fault_says_what_to_do_before_trying_again():
    fault = JointFault(1, "shoulder", "overload", 0x20, remedy="power-cycle the arm")
    assert str(fault) == "joint 1 (shoulder): overload (fault bits 0x20; power-cycle the arm)"
    assert fault.command == AGAIN


def test_a_fault_names_the_flight_recorders_file_and_the_command_that_shows_it(tmp_path):
    folder = tmp_path / "my faults"
    env = ArmEnv(load_config("arm0-sim"), folder)
    try:
        env.reset()
        fault = env.step(np.full(6, np.nan))[4]["fault"]
    finally:
        env.close()
    assert fault.latched
    file = next(folder.glob("*.json"))
    assert str(file) in fault.reason and "the same command goes on" in fault.reason
    assert shlex.split(fault.command) == ["robotsac", "fault", "show", str(file)]


@given(value=st.floats(0.01, 1000.0), above=st.floats(1e-9, 1.0))
def test_a_value_and_the_limit_that_it_broke_never_read_the_same(value, above):
    over = value * (1.0 + above)
    fault = GuardFault(FaultCode.VELOCITY, value=over, limit=value, unit="rad/s")
    shown, limit = re.findall(r"([0-9.e+-]+) rad/s", fault.message)
    assert shown != limit or over == value


def test_an_error_without_a_command_of_its_own_has_its_kinds():
    assert ConfigError("x").command == ROBOT_FILE
    assert ArmSetupError("x").command == BusTimeout("x").command == AGAIN
    assert ConfigError("x", command="y").command == "y"
    assert ArmStateError("x").command == "", "a programmer's mistake"


def test_what_a_script_reads_is_the_whole_error():
    error = ArmError("what", reason="why", command="try")
    assert error.to_dict() == {"message": "what", "reason": "why", "command": "try", "exit_code": 4}
