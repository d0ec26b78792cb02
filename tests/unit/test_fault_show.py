"""``robotsac fault show``: what the flight recorder wrote can be read without knowing its format."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_world import run

from robotsac.config import load_config
from robotsac.env.arm_env import ArmEnv
from robotsac.errors import FaultCode, GuardFault


@pytest.fixture(scope="module")
def fault(tmp_path_factory) -> GuardFault:
    """Of joint 2, after half a second of movement."""
    env = ArmEnv(load_config("arm0-sim"), tmp_path_factory.mktemp("run") / "my faults")
    env.reset(seed=0)
    for step in range(25):
        env.step(np.full(6, np.sin(step / 4)))
    action = np.zeros(6)
    action[2] = np.inf
    found = env.step(action)[4]["fault"]
    env.close()
    return found


@pytest.fixture
def file(fault) -> Path:
    return Path(shlex.split(fault.command)[-1])


def test_the_command_that_a_fault_suggests_shows_it(monkeypatch, capsys, fault):
    code, out, _ = run(monkeypatch, capsys, *shlex.split(fault.command)[1:])
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "joint 2 (elbow_pitch): a number is not finite (asked torque is inf N·m)"
    assert lines[2].startswith("joint 2 (elbow_pitch)") and "base_yaw" not in out
    rows = [line.split() for line in lines[4:]]
    assert len(rows) == 20
    assert [float(row[0]) for row in rows] == [pytest.approx(-4.0 * k) for k in range(20, 0, -1)], "ms before the fault"


@pytest.mark.parametrize("where", ["faults", "robot/faults"])
def test_a_run_folder_means_its_newest_fault(monkeypatch, capsys, tmp_path, file, where):
    (tmp_path / where).mkdir(parents=True)
    for path in file.parent.iterdir():
        shutil.copy(path, tmp_path / where)
    code, out, _ = run(monkeypatch, capsys, "fault", "show", str(tmp_path))
    assert code == 0 and str(tmp_path / where / file.name) in out


def test_the_numbers_are_those_that_were_recorded(monkeypatch, capsys, file):
    _, out, _ = run(
        monkeypatch, capsys, "fault", "show", str(file), "--joint", "shoulder_pitch", "--ticks", "3", "--json"
    )
    told = json.loads(out)
    report = json.loads(file.read_text())
    ticks = np.load(file.with_suffix(".npy"))
    before = ticks[ticks["t_ns"] <= report["t_ns"]][-3:]
    assert told["code"] == "NOT_FINITE" and told["joint"] == 2 and told["joints"] == ["shoulder_pitch"]
    for row, tick in zip(told["last_ticks"], before, strict=True):
        assert row["t_ms"] == (tick["t_ns"] - report["t_ns"]) / 1e6
        for name in ("q", "dq", "tau_asked", "tau_cmd", "tau", "temp_c"):
            assert row[name] == [tick[name][1]]


def test_the_folder_means_its_newest_report(monkeypatch, capsys, file):
    older = file.with_name("fault-1-older.json")
    older.write_text(json.dumps({**json.loads(file.read_text()), "message": "older"}))
    os.utime(older, (1, 1))
    _, out, _ = run(monkeypatch, capsys, "fault", "show", str(file.parent), "--json")
    assert json.loads(out)["file"] == str(file)


def test_a_fault_of_the_whole_arm_shows_every_joint(monkeypatch, capsys, tmp_path):
    env = ArmEnv(load_config("arm0-sim"), tmp_path)
    env.reset(seed=0)
    env.step(np.zeros(6))
    env.guard._recorder.write(GuardFault(FaultCode.DEADLINE, value=80.0, limit=50.0, unit="ms"), 10**9, ())
    env.close()
    code, out, _ = run(monkeypatch, capsys, "fault", "show", str(tmp_path), "--ticks", "2")
    assert code == 0
    for index, name in enumerate(env.arm.spec.joint_names):
        assert f"joint {index} ({name})" in out


def test_a_plot_is_a_picture(monkeypatch, capsys, file, tmp_path):
    for joint in ([], ["--joint", "0"]):
        picture = tmp_path / f"plot{len(joint)}.png"
        code, _, err = run(monkeypatch, capsys, "fault", "show", str(file), "--plot", str(picture), *joint)
        assert code == 0, err
        assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
    code, _, err = run(monkeypatch, capsys, "fault", "show", str(file), "--plot", str(file / "x.png"))
    assert code == 6 and "cannot be written" in err


@pytest.mark.parametrize(
    ("content", "ticks", "code", "words"),
    [
        (b"", None, 2, "is not a fault report"),
        (b"{}", None, 2, "missing required field"),
        (
            b'{"message": "m", "code": "BUS", "joint": null, "t_ns": 1, "joint_names": [], "ticks": "x.npy"}',
            None,
            6,
            "x.npy",
        ),
        (
            b'{"message": "m", "code": "BUS", "joint": null, "t_ns": 1, "joint_names": [], "ticks": "../x.npy"}',
            None,
            6,
            "x.npy",
        ),
        (
            b'{"message": "m", "code": "BUS", "joint": 0, "t_ns": 1, "joint_names": ["a"], "ticks": "x.npy"}',
            np.zeros(3),
            2,
            "does not hold the bus ticks of 1 joints",
        ),
        (
            b'{"message": "m", "code": "BUS", "joint": 0, "t_ns": 1, "joint_names": ["a"], "ticks": "x.npy"}',
            np.array([{"a": 1}], dtype=object),
            2,
            "allow_pickle=False",
        ),
    ],
)
def test_what_is_no_fault_report_is_refused_and_nothing_is_unpickled(
    monkeypatch, capsys, tmp_path, content, ticks, code, words
):
    (tmp_path / "fault-1.json").write_bytes(content)
    if ticks is not None:
        np.save(tmp_path / "x.npy", ticks, allow_pickle=True)
    got, _, err = run(monkeypatch, capsys, "fault", "show", str(tmp_path))
    assert got == code, err
    assert words in err and "Traceback" not in err


def test_an_empty_folder_and_a_joint_that_is_not_there_are_refused(monkeypatch, capsys, tmp_path, file):
    code, _, err = run(monkeypatch, capsys, "fault", "show", str(tmp_path))
    assert code == 2 and "no fault report" in err
    code, _, err = run(monkeypatch, capsys, "fault", "show", str(file), "--joint", "elbow")
    assert code == 2 and "elbow_pitch" in err and "--joint 0" in err
