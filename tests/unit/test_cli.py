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
from cli_world import ROOT, run, small_policy

from robotsac.actor.collect import CollectOptions, collect
from robotsac.actor.evaluate import Evaluation
from robotsac.cli import main as cli
from robotsac.cli.collect import torque_words
from robotsac.cli.console import spell_out
from robotsac.cli.evaluate import evaluation_json
from robotsac.config import LinkConfig, load_config
from robotsac.errors import AGAIN, LEARN, ROBOT_FILE, RobotsacError

NO_PORT = "robot.driver.port='/dev/not-there'"


@pytest.mark.parametrize(
    "command",
    ["collect", "learn", "train", "eval", "twin", "policy", "config", "fault"],
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
        (["train", "--robot", "arm0-sim", "--set", "learn.device=cpu", "--set", "learn.backend=graphed"], 2),
        (["learn", "--set", "learn.device=cpu", "--set", "learn.backend=native", "--set", "learn.head=beta"], 2),
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
    # On a busy computer a status line may come first; it is not about the refusal.
    assert err.splitlines()[-3:] == [
        f"robotsac: {error['message']}",
        f"   why: {error['reason']}",
        f"   try: {error['command']}",
    ]
    assert "Traceback" not in err and err.count("robotsac: ") == 1
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
        (
            ["collect", "--robot", "a", "--learner", "x:1", "--set", "link.address=x:1"],
            "--learner tcp://localhost:1",
            "robotsac collect --robot a --learner tcp://localhost:1",
        ),
        (["learn"], "", ""),
        (["learn"], "--set x=$(rm y) z", "robotsac learn --set 'x=$(rm y) z'"),
        (["learn"], LEARN, "robotsac learn"),
        (
            ["eval", "-r", "arm0", "--policy", "p", "--set", "robot.driver.port=x", "--set=learn.threads=2"],
            "--robot arm0-twin",
            "robotsac eval --policy p --set learn.threads=2 --robot arm0-twin",
        ),
        (
            ["eval", "--robot=arm0", "--episodes", "3"],
            "--robot arm0-twin",
            "robotsac eval --episodes 3 --robot arm0-twin",
        ),
        (["eval", "-r", "arm0-sim", "--set", "learn.threads=x"], ROBOT_FILE, "robotsac config show --robot arm0-sim"),
        (["eval", "--robot=arm0-sim", "--config", "x.toml"], ROBOT_FILE, "robotsac config show --robot arm0-sim"),
        (["collect", "--robot", "configs/arm0-sim.toml"], ROBOT_FILE, "${EDITOR:-vi} configs/arm0-sim.toml"),
        (["collect", "--robot", "arm0-sim"], ROBOT_FILE, "${EDITOR:-vi} configs/arm0-sim.toml"),
        (["learn", "--config", "my file.toml"], ROBOT_FILE, "${EDITOR:-vi} 'my file.toml'"),
        (["twin"], ROBOT_FILE, "robotsac config show --robot arm0"),
        (["collect", "--robot", "arm0-smi"], ROBOT_FILE, "robotsac config show --robot arm0-sim"),
    ],
)
def test_a_command_is_spelled_out_as_it_can_be_pasted(monkeypatch, typed, command, spelled):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("ROBOTSAC_CONFIG_DIR", raising=False)
    monkeypatch.setattr(sys, "argv", ["robotsac", *typed])
    error = RobotsacError("what", command=command)
    spell_out(error)
    assert error.command == spelled


def test_a_learner_is_asked_for_where_this_robot_looks_for_one():
    error = RobotsacError("what", command=LEARN)
    spell_out(error, LinkConfig(address="tcp://127.0.0.1:6000"))
    assert error.command == "robotsac learn --set link.address=tcp://127.0.0.1:6000"


# ---- errors: the command that fits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message", "command"),
    [
        ("--set task.name=raech", 2, "no task 'raech'", "{typed} --set task.name=reach"),
        ("--set robot.tip_site=tap", 2, "no site 'tap'", "robotsac config show --robot arm0"),
        ("--set robot.joints.0.name=foo", 2, "no joint 'foo'", "robotsac config show --robot arm0"),
        ("--set robot.joints.0.tau_max_nm=50", 2, "50 N·m > 7.227 N·m", "robotsac config show --robot arm0"),
        ("--set robot.joints.foo.tau_max_nm=5", 2, "no entry 'foo'", "robotsac config show --robot arm0"),
        ("--set robot.driver.servos.0.zero_count=10", 2, "encoder count", "robotsac config show --robot arm0"),
        ("--set task.tolerance_mm=3", 2, "task reach has 1 mistake", "robotsac config show --robot arm0"),
        ("--set robot.joints.0.hold_stiffness_nm_rad=20000", 2, "unstable", "robotsac config show --robot arm0"),
        ("--set task.hold_s=2", 2, "below task.episode_s", "{typed} --set task.hold_s=2 --set task.episode_s=8"),
        ("--set learn.polyak=3", 2, "1 mistake", "{typed} --set learn.polyak=1"),
        ("--set learn.critics=0", 2, "1 mistake", "{typed} --set learn.critics=1"),
        ("--set learn.head=mixtrue", 2, "1 mistake", "{typed} --set learn.head=mixture"),
        ("--set learn.actor_lr=0", 2, "1 mistake", "robotsac config show --robot arm0"),
        ("--set learn.critics=0 --set learn.polyak=3", 2, "2 mistakes", "robotsac config show --robot arm0"),
        ("--set robot.control_rate_hz=0", 2, "1 mistake", "robotsac config show --robot arm0"),
    ],
)
def test_what_is_wrong_with_a_robot_says_where_to_look(monkeypatch, capsys, arguments, code, message, command):
    monkeypatch.chdir(ROOT)
    got, out, _ = run(monkeypatch, capsys, "config", "check", "--robot", "arm0", "--json", *arguments.split())
    error = error_of(out)
    assert got == code
    assert message in error["message"]
    assert error["command"] == command.format(typed="robotsac config check --robot arm0 --json")


@pytest.mark.parametrize(
    "change",
    [
        ("tolerance_m = 0.02", "tolerance_mm = 3"),
        ("name = 'reach'", "name = 'raech'"),
        ("hold_stiffness_nm_rad = 14.0", "hold_stiffness_nm_rad = 14000.0"),
        ("q_max_rad = 1.1", "q_maxrad = 1.1"),
        ("zero_count = 2048", "zero_count = 10"),
        ('tip_site = "tip"', 'tip_site = "tap"'),
    ],
    ids=lambda change: change[1],
)
def test_a_mistake_in_a_robots_own_file_is_mended_there(monkeypatch, capsys, tmp_path, change):
    whole = (ROOT / "configs/arm0.toml").read_text().replace('include = "reach.toml"\n', "")
    whole += "\n[task]\nname = 'reach'\ntolerance_m = 0.02\n"
    assert change[0] in whole
    file = tmp_path / "my arm.toml"
    file.write_text(whole.replace(*change))
    (tmp_path / "arm0.xml").write_text((ROOT / "configs/arm0.xml").read_text())
    _, out, _ = run(monkeypatch, capsys, "config", "check", "--robot", str(file), "--json")
    command = error_of(out)["command"]
    if "raech" in change[1]:
        assert command.endswith("--set task.name=reach")
    else:
        assert command == f"${{EDITOR:-vi}} '{file}'"


@pytest.fixture(scope="module")
def policy_file(tmp_path_factory) -> Path:
    return small_policy(tmp_path_factory.mktemp("policy"))


@pytest.mark.xdist_group("policy_file")
@pytest.mark.parametrize(
    ("port", "message", "tried"),
    [
        ("port=/dev/not-there", "is not there", "--robot arm0-twin"),
        ("port=/etc/passwd", "is not a serial device", "find /dev"),
        ("port=/etc", "is not a serial device", "find /dev"),
        ("port=/etc/passwd/x", "is not there", "--robot arm0-twin"),
    ],
)
def test_an_arm_that_is_not_there_suggests_the_same_with_the_twin(
    monkeypatch, capfd, tmp_path, policy_file, port, message, tried
):
    monkeypatch.setenv("ROBOTSAC_CONFIG_DIR", str(ROOT / "configs"))
    monkeypatch.chdir(tmp_path)
    typed = ["eval", "--robot", "arm0", "--policy", str(policy_file), "--json", "--set", f"robot.driver.{port}"]
    code, out, _ = run(monkeypatch, capfd, *typed)
    error = error_of(out)
    assert code == 3
    assert message in error["message"]
    same = f"robotsac eval --policy {policy_file} --json --robot arm0-twin"
    assert error["command"] == same if tried.startswith("--") else error["command"].startswith(tried)


def test_collect_says_the_same_through_its_processes(monkeypatch, capfd, tmp_path):
    monkeypatch.setenv("ROBOTSAC_CONFIG_DIR", str(ROOT / "configs"))
    monkeypatch.chdir(tmp_path)
    _, out, _ = run(monkeypatch, capfd, "collect", "--robot", "arm0", "--steps", "9", "--set", NO_PORT, "--json")
    assert error_of(out)["command"] == "robotsac collect --steps 9 --json --robot arm0-twin"


def test_a_run_folder_where_no_files_can_be_is_not_called_full(monkeypatch, capfd):
    code, out, _ = run(monkeypatch, capfd, "learn", "--run", "/proc/x", "--json")
    error = error_of(out)
    assert code == 6
    assert error["message"] == "run folder /proc/x cannot be written"
    assert error["command"] == "ls -ld /proc"


def test_a_link_to_the_twin_that_cannot_be_made_shows_why(monkeypatch, capfd, tmp_path):
    (tmp_path / "file").write_text("")
    link = tmp_path / "file" / "bus"
    code, out, _ = run(monkeypatch, capfd, "twin", "--seconds", "0.1", "--link", str(link), "--json")
    assert code == 2
    assert error_of(out)["command"] == f"ls -ld {tmp_path / 'file'}"


@pytest.mark.parametrize(
    ("learner", "set_to", "refused"),
    [
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:2", True),
        ("tcp://127.0.0.1:1", "'tcp://127.0.0.1:2'", True),
        ("tcp://10.0.0.1:1", "tcp://10.0.0.1:1", False),
    ],
)
def test_two_addresses_of_one_learner_are_refused(monkeypatch, capfd, tmp_path, learner, set_to, refused):
    monkeypatch.chdir(tmp_path)
    typed = ["collect", "--robot", "arm0-sim", "--learner", learner, "--set", f"link.address={set_to}", "--json"]
    code, out, _ = run(monkeypatch, capfd, *typed)
    error = error_of(out)
    assert code == (2 if refused else 5), "the other one is no loopback address"
    assert ("contradicts" in error["message"]) == refused
    if refused:
        code, out, _ = run(monkeypatch, capfd, *shlex.split(error["command"])[1:], "--steps", "1", "--run", "/proc/x")
        assert code == 6, "what was suggested is not refused again"


def test_gains_that_are_weak_are_told_by_config_check(monkeypatch, capsys):
    typed = ["config", "check", "--robot", "arm0-sim", "--set", "robot.joints.wrist_roll.hold_stiffness_nm_rad=50"]
    code, out, _ = run(monkeypatch, capsys, *typed)
    assert code == 0
    assert "warning: joint 5 (wrist_roll): hold_stiffness_nm_rad 50" in out
    _, out, _ = run(monkeypatch, capsys, *typed, "--json")
    assert "is unstable" in json.loads(out)["warnings"][0]
    _, out, _ = run(monkeypatch, capsys, *typed[:4], "--json")
    assert json.loads(out)["warnings"] == []


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


@pytest.mark.parametrize("name", ["", ".", "..", " "])
def test_a_run_that_has_no_name_is_refused(monkeypatch, capsys, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(monkeypatch, capsys, "collect", "--robot", "arm0-sim", "--run", name)
    assert code == 2 and f"--run {name!r} is no name" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../evil", "", "a\\u0000b", "a b", "-x"])
def test_a_robots_name_must_be_that_of_a_folder(monkeypatch, capsys, name):
    code, _, err = run(monkeypatch, capsys, "config", "check", "--robot", "arm0-sim", "--set", f'robot.name="{name}"')
    assert code == 2 and "robot.name" in err


def test_config_check_tells_of_everything_that_is_wrong(monkeypatch, capsys):
    wrong = ["robot.driver.foo=1", "task.foo=1", "link.address=tcp://0.0.0.0:1"]
    sets = [word for one in wrong for word in ("--set", one)]
    code, _, err = run(monkeypatch, capsys, "config", "check", "--robot", "arm0", *sets)
    assert code == 2
    for word in ("robot.driver", "foo: unknown key", "task reach", "tcp://0.0.0.0:1", "besides"):
        assert word in err, err


def test_output_that_a_full_disk_does_not_take_is_an_error():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "robotsac", "config", "show", "--robot", "arm0"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 6 and "output cannot be written" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("gone", ["terminal", "pipe", "disk"])
def test_where_nobody_hears_of_an_error_the_exit_code_still_tells(gone):
    """Python would exit with 120: it flushes at its end what could not be written before."""
    other, end = {"terminal": os.openpty, "pipe": os.pipe, "disk": lambda: (-1, os.open("/dev/full", os.O_WRONLY))}[
        gone
    ]()
    if other >= 0:
        os.close(other)
    try:
        command = [sys.executable, "-m", "robotsac", "config", "check", "--robot", "nowhere"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=end, text=True, check=False, timeout=60)
    finally:
        os.close(end)
    assert (done.returncode, done.stdout) == (2, "")


def test_an_evaluation_of_no_episode_is_json_that_any_reader_takes():
    none = Evaluation(0, 0, float("nan"), float("nan"), None, 0.0, 0, False, False, interrupted=True)
    found = json.loads(evaluation_json(none), parse_constant=lambda word: pytest.fail(word))
    assert (found["mean_return"], found["mean_steps"], found["interrupted"]) == (None, None, True)
    assert found["action_rate"] is None


@pytest.mark.parametrize(
    ("energized", "off", "words"),
    [(True, True, "off, read back"), (True, False, "NOT read back as off"), (False, False, "never switched on")],
)
def test_what_is_said_of_torque(energized, off, words):
    assert torque_words(energized, off) == words


def test_a_run_of_train_says_how_its_halves_go_on(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/t/learner").mkdir(parents=True)
    (tmp_path / "runs/t/learner/run.json").write_text("{}")
    code, _, err = run(monkeypatch, capsys, "learn", "--run", "t", "--resume")
    assert code == 2 and "try: robotsac learn --run runs/t/learner --resume" in err
    code, _, err = run(monkeypatch, capsys, "train", "--sync", "--robot", "arm0-sim", "--run", "t", "--resume")
    assert code == 2 and "try: robotsac train --resume --robot arm0-sim --run t" in err
    code, _, err = run(monkeypatch, capsys, "train", "--robot", "arm0-sim", "--run", "t")
    assert code == 2 and "try: robotsac train --robot arm0-sim --run t --resume" in err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--set", "learn.batch_size=64"], "learn.batch_size was 256, now 64"),
        (["--set", "task.tolerance_m=0.05"], "tolerance_m"),
        (["--set", "robot.joints.elbow_pitch.tau_max_nm=5"], "limits"),
    ],
)
def test_train_resumes_no_run_with_other_settings_and_leaves_it_as_it_is(monkeypatch, capsys, tmp_path, more, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/t/learner").mkdir(parents=True)
    config = tmp_path / "runs/t/config.json"
    config.write_text(load_config("arm0-sim").model_dump_json())
    before = config.read_bytes()
    typed = ["train", "--robot", "arm0-sim", "--run", "t", "--resume", *more]
    code, _, err = run(monkeypatch, capsys, *typed)
    assert code == 2 and "cannot be resumed with other settings" in err and words in err
    assert f"try: {shlex.join(['robotsac', 'train', '--robot', 'arm0-sim', *more, '--run', 't-2'])}" in err
    assert config.read_bytes() == before and not (tmp_path / "runs/t/learner/run.json").exists()


def test_a_run_that_has_its_steps_lacks_its_evaluation_at_most(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/t/learner").mkdir(parents=True)
    config = load_config("arm0-sim", overrides=["spool.free_min_mb=1", "task.episode_s=0.5", "task.hold_s=0.2"])
    (tmp_path / "runs/t/config.json").write_text(config.model_dump_json())
    options = CollectOptions(tmp_path / "runs/t/robot", steps=400, offline=True)
    report = collect(config, options, lambda status: None, lambda words: None)
    typed = ["--robot", "arm0-sim", "--run", "t", "--resume", "--steps", "400"]
    typed += ["--set", "task.episode_s=0.5", "--set", "task.hold_s=0.2"]
    code, _, err = run(monkeypatch, capsys, "train", *typed)
    assert code == 2 and f"run runs/t has done {report.status.steps} of 400 steps" in err
    assert "try: robotsac eval --robot arm0-sim --policy runs/t" in err
