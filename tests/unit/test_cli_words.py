"""Mistakes of a newcomer: what is wrong is said in words, and what is suggested works."""

from __future__ import annotations

import shlex

import pytest
from cli_world import ROOT, run

from robotsac.config import load_config
from robotsac.link.address import endpoint


@pytest.mark.parametrize(
    ("address", "instead", "words"),
    [
        ("localhost:5757", "tcp://localhost:5757", "does not begin with tcp://"),
        ("tcp://localhost:99999", "tcp://localhost:5757", "out of range"),
        ("tcp://10.0.0.1:6000", "tcp://127.0.0.1:6000", "ssh tunnel"),
    ],
)
@pytest.mark.parametrize("option", ["--learner", "--set"])
def test_a_refused_address_suggests_one_that_is_taken_with_the_option_that_was_typed(
    monkeypatch, capsys, tmp_path, option, address, instead, words
):
    monkeypatch.chdir(tmp_path)
    prefix = "link.address=" if option == "--set" else ""
    code, _, err = run(monkeypatch, capsys, "collect", "--robot", "arm0-sim", option, prefix + address)
    assert code == 5
    assert words in err
    assert ("CURVE" in err) is (words == "ssh tunnel")
    assert err.splitlines()[-1] == f"   try: robotsac collect --robot arm0-sim {option} {prefix}{instead}"
    suggested = load_config("arm0-sim", overrides=[f"link.address={instead}"]).link.address
    assert endpoint(suggested)


@pytest.mark.parametrize(
    ("typed", "words", "helps"),
    [
        (["--robot", "/"], "/ is a folder, not a file", "ls /"),
        (["--robot", "arm0", "--config", "/"], "/ is a folder, not a file", "ls /"),
        (
            ["--robot", "arm0", "--set", "robot.driver.name=dinamixel"],
            "no driver 'dinamixel'; did you mean 'dynamixel'?",
            "robotsac config show --robot arm0",
        ),
        (["--robot", "arm0", "--set", "robot.driver.name=zzz"], "no driver 'zzz'", "pip install 'robotsac[robot]'"),
        (
            ["--robot", "arm0", "--set", "robot=5"],
            "robot is a table of keys, not a value: set the keys in it, such as robot.name (given: 5)",
            "robotsac config show --robot arm0",
        ),
    ],
)
def test_a_mistake_is_told_in_words_a_person_understands(monkeypatch, capsys, typed, words, helps):
    code, _, err = run(monkeypatch, capsys, "config", "check", *typed)
    assert code == 2
    assert words in err
    assert err.splitlines()[-1] == f"   try: {helps}"


@pytest.mark.parametrize(
    ("typed", "steps", "instead"),
    [([], 300, 10_000), ([], 1, 10_000), (["--set", "learn.start_steps=20_000"], 20_000, 200_000)],
)
def test_train_refuses_too_few_steps_before_anything_is_made_or_moves(
    monkeypatch, capsys, tmp_path, typed, steps, instead
):
    robot = str(ROOT / "configs/arm0-sim.toml")
    monkeypatch.chdir(tmp_path)
    code, _, err = run(monkeypatch, capsys, "train", "--robot", robot, *typed, "--steps", str(steps))
    assert code == 2
    assert f"--steps {steps} is too few to learn anything from" in err and "learn.start_steps" in err
    suggested = shlex.join(["robotsac", "train", "--robot", robot, *typed, "--steps", str(instead)])
    assert err.splitlines()[-1] == f"   try: {suggested}"
    assert list(tmp_path.iterdir()) == []


def test_several_mistakes_stand_below_each_other_beginning_beside_the_why(monkeypatch, capsys):
    typed = ["config", "check", "--robot", "arm0", "--set", "learn.batch_size=0", "--set", "spool.x=1"]
    _, _, err = run(monkeypatch, capsys, *typed)
    _, first, second, _ = err.splitlines()
    assert first.startswith("   why: spool.x: unknown key") and second.startswith("        learn.batch_size: ")
