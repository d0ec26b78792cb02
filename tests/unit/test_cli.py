"""The command line: exit codes, one sentence, one reason, one command."""

from __future__ import annotations

import json
import sys

import pytest

from robotsac.cli import main as cli


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
