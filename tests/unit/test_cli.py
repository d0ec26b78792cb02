"""The command line: exit codes, one sentence, one reason, one command."""

from __future__ import annotations

import ast
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from robotsac.cli import main as cli
from robotsac.cli.console import spell_out
from robotsac.errors import AGAIN, RobotsacError

ROOT = Path(__file__).parents[2]
NO_PORT = "robot.driver.port='/dev/not-there'"


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["robotsac", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


@pytest.mark.parametrize(
    "command",
    ["collect", "learn", "train", "eval", "twin", "policy", "config"],
)
def test_every_command_has_help(monkeypatch, capsys, command):
    code, out, _ = run(monkeypatch, capsys, command, "--help")
    assert code == 0
    assert "Usage" in out


def test_a_configuration_is_shown_as_json(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "config", "show", "--robot", "arm0-sim", "--set", "learn.threads=3")
    assert code == 0
    assert json.loads(out)["learn"]["threads"] == 3


@pytest.mark.parametrize("robot", ["arm0", "arm0-twin", "arm0-sim"])
def test_the_configs_that_come_with_robotsac_check_out_without_hardware(monkeypatch, capsys, robot):
    code, out, _ = run(monkeypatch, capsys, "config", "check", "--robot", robot, "--json")
    assert code == 0
    assert json.loads(out)["joints"] == 6


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["collect", "--robot", "arm1"], 2, ["arm1", "arm0"]),
        (["collect", "--robot", "arm0-sim", "--set", "learn.batchsize=1"], 2, ["learn.batchsize", "batch_size"]),
        (["config", "check", "--robot", "arm0-sim", "--set", "nonsense"], 2, ["nonsense", "key.path=value"]),
        (["config", "check", "--robot", "arm0-sim", "--set", "robot.driver.nme='x'"], 2, ["nme"]),
        (["eval", "--robot", "arm0-sim", "--policy", "nowhere"], 2, ["nowhere"]),
        (["policy", "show", "nowhere"], 2, ["nowhere"]),
        (["twin", "--robot", "arm0-sim"], 2, ["mujoco", "arm0"]),
        (["learn", "--set", "learn.target_sigma=3.0"], 2, ["entropy"]),
    ],
)
def test_a_mistake_is_one_sentence_one_reason_one_command(monkeypatch, capsys, tmp_path, arguments, code, words):
    monkeypatch.setenv("ROBOTSAC_CONFIG_DIR", str(cli.Path(cli.__file__).parents[2] / "configs"))
    monkeypatch.chdir(tmp_path)
    got, _, err = run(monkeypatch, capsys, *arguments)
    assert got == code, err
    assert "Traceback" not in err
    for word in words:
        assert word in err, err


def test_a_truncated_policy_is_named_and_refused(monkeypatch, capsys, tmp_path):
    (tmp_path / "p.onnx").write_bytes(b"\x08\x0a\x3a\xff\xff\x01")
    for arguments in (
        ["policy", "show", str(tmp_path / "p.onnx")],
        ["eval", "--robot", "arm0-sim", "--policy", str(tmp_path / "p.onnx")],
    ):
        code, _, err = run(monkeypatch, capsys, *arguments)
        assert code == 7
        assert "p.onnx" in err
        assert "cut short" in err


def test_an_unknown_option_is_a_usage_error(monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, "collect", "--robot", "arm0", "--speed", "11")
    assert code == 2
    assert "--speed" in err


# ---- errors: the same for a script and for a person ---------------------------------------------------------------------


def error_of(out: str) -> dict:
    """The error object of the last line; fails where it is not what every command gives."""
    error = json.loads(out.splitlines()[-1])["error"]
    assert list(error) == ["message", "reason", "command", "exit_code"]
    return error


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["collect", "--robot", "arm1"], 2),
        (["collect", "--robot", "arm0", "--set", NO_PORT], 3),
        (["collect", "--robot", "arm0-sim", "--learner", "tcp://10.0.0.1:5757"], 5),
        (["collect", "--robot", "arm0-sim", "--run", "/proc/x/y"], 6),
        (["collect"], 2),
        (["collect", "--robot", "arm0", "--speed", "11"], 2),
        (["learn", "--set", "learn.device=gpu"], 2),
        (["learn", "--set", "learn.device=cuda:99"], 2),
        (["learn", "--set", "link.address=tcp://127.0.0.1:99999"], 5),
        (["learn", "--run", "here", "--resume"], 2),
        (["train", "--robot", "arm0-sim", "--set", "learn.device=cuda:99"], 2),
        (["train", "--steps", "none"], 2),
        (["eval", "--robot", "arm0-sim", "--policy", "nowhere"], 2),
        (["twin", "--robot", "arm0-sim"], 2),
        (["policy", "show", "nowhere"], 2),
        (["policy", "show"], 2),
        (["config", "check", "--robot", "arm0", "--set", "learn.device=gpu"], 2),
        (["config", "check", "--robot", "arm0", "--set", "link.address=tcp://127.0.0.1:99999"], 5),
        ([], 2),
        (["dance"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_with_json_every_refusal_is_one_object_and_the_three_lines_for_a_person(
    monkeypatch, capfd, tmp_path, arguments, code
):
    monkeypatch.setenv("ROBOTSAC_CONFIG_DIR", str(ROOT / "configs"))
    monkeypatch.chdir(tmp_path)
    got, out, err = run(monkeypatch, capfd, *arguments, "--json")
    error = error_of(out)
    assert got == error["exit_code"] == code
    assert err.splitlines() == [
        f"robotsac: {error['message']}",
        f"   why: {error['reason']}",
        f"   try: {error['command']}",
    ]
    assert list(tmp_path.iterdir()) == [], "a refusal leaves nothing behind"


def test_a_run_folder_that_was_there_before_stays_when_the_arm_is_not_there(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/arm0").mkdir(parents=True)
    code, _, _ = run(monkeypatch, capfd, "collect", "--robot", str(ROOT / "configs/arm0.toml"), "--set", NO_PORT)
    assert code == 3
    assert (tmp_path / "runs/arm0").is_dir()


def test_a_folder_with_something_of_the_users_in_it_is_never_taken_away(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/notes.txt").write_text("mine")
    run(monkeypatch, capfd, "collect", "--robot", str(ROOT / "configs/arm0.toml"), "--set", NO_PORT)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["notes.txt"]


@pytest.mark.parametrize(
    ("typed", "command", "spelled"),
    [
        (["collect", "-r", "my arm"], AGAIN, "robotsac collect -r 'my arm'"),
        (["learn", "--run", "a"], "--set learn.device=auto", "robotsac learn --run a --set learn.device=auto"),
        (
            ["learn", "--set", "learn.device=cuda:9", "--set", "learn.threads=2"],
            "--set learn.device=auto",
            "robotsac learn --set learn.threads=2 --set learn.device=auto",
        ),
        (["learn", "--set"], "--set learn.device=auto", "robotsac learn --set --set learn.device=auto"),
        (["learn", "--parent", "1"], "--set learn.device=auto", "--set learn.device=auto"),
        (["learn"], "df -h /", "df -h /"),
        (["learn"], "", ""),
        (["learn"], "--set x=$(rm y) z", "robotsac learn --set 'x=$(rm y) z'"),
    ],
)
def test_a_command_is_spelled_out_as_it_can_be_pasted(monkeypatch, typed, command, spelled):
    monkeypatch.setattr(sys, "argv", ["robotsac", *typed])
    error = RobotsacError("what", command=command)
    spell_out(error)
    assert error.command == spelled


def test_config_check_needs_no_torch():
    """It runs next to the arm, where there is none."""
    code = (
        "import sys; from robotsac.cli.main import main; sys.argv = ['robotsac', 'config', 'check', '--robot', "
        "'arm0', '--set', 'learn.device=cuda:9']\ntry: main()\nexcept SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"


@pytest.mark.parametrize(
    "arguments",
    ["config check --robot arm0", "config show --robot arm0", "--version", "learn --set learn.device=gpu --json"],
)
def test_a_reader_that_left_is_no_reason_to_fail(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "robotsac", *shlex.split(arguments)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert done.returncode == (2 if "gpu" in arguments else 0)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_commands_print_through_the_console_which_survives_a_terminal_that_is_gone():
    found = [
        f"{path.name}:{node.lineno}"
        for path in (ROOT / "robotsac/cli").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and path.name != "console.py"
    ]
    assert not found


@pytest.mark.parametrize("robots", [["nope"], ["arm0-sim", "nope"]])
def test_a_benchmark_of_a_robot_that_is_not_there_is_refused_in_words(robots):
    tool = [sys.executable, str(ROOT / "tools/bench_tick.py"), "--ticks", "5", "--robots", *robots]
    done = subprocess.run(tool, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("robotsac: there is no robot 'nope'")
    assert done.stdout == ""
