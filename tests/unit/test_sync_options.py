"""What ``robotsac train`` refuses (options that mean nothing, too few steps), and what it says of a discount nobody chose."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from cli_world import run

from robotsac.cli import main as cli
from robotsac.config import load_config, load_learner_settings
from robotsac.config.folders import find_config
from robotsac.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBOTSAC_CONFIG_DIR", str(ROOT / "configs"))
    monkeypatch.chdir(tmp_path)
    yield
    torch.set_flush_denormal(False)


def command(monkeypatch, capsys, text: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["robotsac", "train", *text.split()])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "what", "command_words"),
    [
        ("--sync --episodes 50", "no --episodes with --sync", "--sync --robot arm0-sim --eval-episodes 50"),
        ("--sync --env Ant-v4 --episodes=0", "no --episodes with --sync", "--sync --env Ant-v4 --eval-episodes 50"),
        ("--sync --env Pendulum-v1 -r arm0-sim", "no --robot with --env Pendulum-v1", "--sync --env Pendulum-v1"),
        ("--sync --env Pendulum-v1 --robot arm0-twin", "no --robot with --env", "--sync --env Pendulum-v1"),
        ("--sync --until-success 0", "no --until-success with --sync", "--sync --robot arm0-sim"),
        ("--sync --resume", "--resume without --run", "ls -t runs"),
        ("--seed 3", "--seed without --sync", "--set learn.seed=0"),
        ("--eval-every 5000", "--eval-every without --sync", "--episodes 50"),
        ("--eval-episodes 10", "--eval-episodes without --sync", "--episodes 50"),
        ("--resume", "--resume without --run", "ls -t runs"),
        ("--resume --run a", "there is no run to resume in", "robotsac train --run a"),
        ("--env Pendulum-v1", "--env Pendulum-v1 without --sync", "--sync --env Pendulum-v1"),
    ],
)
def test_an_option_that_would_be_left_aside_is_refused_also_with_its_default(
    monkeypatch, capsys, tmp_path, text, what, command_words
):
    code, err = command(monkeypatch, capsys, text)
    assert code == 2, err
    lines = err.splitlines()
    assert what in lines[0] and lines[1].strip().startswith("why: ") and command_words in lines[2], err
    assert len(lines) == 3 and not list(tmp_path.iterdir())


# ---- steps that are too few ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "first", "instead"),
    [
        ("--env Pendulum-v1 --config gym --steps 1500", 5001, 50_000),
        ("--env Pendulum-v1 --steps 300", 303, 10_000),
        ("--robot arm0-sim --steps 1", 303, 10_000),
        ("--robot arm0-sim --steps 304 --set learn.n_step=5", 305, 10_000),
        ("--env Pendulum-v1 --steps 20299 --set learn.updates_per_step=0.00005", 20_302, 40_604),
    ],
)
def test_a_run_that_would_end_before_its_first_update_is_refused(monkeypatch, capsys, tmp_path, text, first, instead):
    code, err = command(monkeypatch, capsys, f"--sync {text}")
    assert code == 2
    what, why, instead_of_it = err.splitlines()
    assert "is too few to learn anything from" in what and f"first update is due at step {first}" in why
    assert instead_of_it.startswith("   try: robotsac train --sync ") and instead_of_it.endswith(f" --steps {instead}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["", "--set learn.n_step=3", "--set learn.updates_per_step=0.3", "--set learn.batch_size=256"]
)
def test_as_many_steps_as_are_not_refused_make_an_update(monkeypatch, capsys, tmp_path, text):
    small = (
        f"--sync --env Pendulum-v1 --run a --eval-episodes 1 --set learn.start_steps=20 --set learn.hidden=[8] {text}"
    )
    code, err = command(monkeypatch, capsys, f"{small} --steps 20")
    assert code == 2
    (steps,) = re.findall(r"due at step (\d+)", err)
    code, err = command(monkeypatch, capsys, f"{small} --steps {steps} --set learn.device=cpu")
    assert code == 0, err
    assert json.loads((tmp_path / "runs/a/summary.json").read_text())["updates"] >= 1


# ---- a discount that nobody chose ---------------------------------------------------------------------------------------

QUICK = "--sync --run a --steps 30 --eval-every 30 --eval-episodes 1 --set learn.device=cpu --set learn.hidden=[8] "
QUICK += "--set learn.start_steps=20"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # Pendulum has a dt of 0.05 s: 1 - 1 / (0.3 s · 20/s).
        ("--env Pendulum-v1", True),
        ("--env Pendulum-v1 --set learn.horizon_s=0.4", False),
        ("--env Pendulum-v1 --set learn.discount=0.9", False),
        ("--env Pendulum-v1 --config gym", False),
        ("--robot arm0-sim", False),
    ],
)
def test_a_short_horizon_that_nobody_asked_for_is_told_of(monkeypatch, capsys, text, said):
    code, err = command(monkeypatch, capsys, f"{QUICK} {text}")
    assert code == 0, err
    told = [line for line in err.splitlines() if "discount" in line]
    assert len(told) == said, err
    if said:
        assert "discount 0.833" in told[0] and "0.3 s at 20 steps/s" in told[0] and "--config gym has 0.99" in told[0]


def test_denormals_are_flushed(monkeypatch, capsys):
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush them")
    torch.set_flush_denormal(False)
    assert float(torch.tensor([1e-39]) * 1.0) != 0.0
    assert command(monkeypatch, capsys, f"{QUICK} --env Pendulum-v1")[0] == 0
    assert float(torch.tensor([1e-39]) * 1.0) == 0.0


# ---- no bundle without an arm -------------------------------------------------------------------------------------------


def test_a_run_without_an_arm_says_that_it_has_no_bundle(monkeypatch, capsys, tmp_path):
    code, err = command(monkeypatch, capsys, f"{QUICK} --env Pendulum-v1")
    assert code == 0, err
    for typed in ("policy show runs/a", "eval --robot arm0-sim --policy runs/a"):
        code, _, err = run(monkeypatch, capsys, *typed.split())
        what, why, instead = err.splitlines()
        assert code == 2 and "run runs/a has no policy bundle" in what
        assert "there is no arm in Pendulum-v1" in why and instead == "   try: cat runs/a/metrics.jsonl"
    assert Path("runs/a/metrics.jsonl").exists()
    for config in ("{}", "[1]", "no JSON", '{"env": "robotsac/Arm-v0"}'):
        Path("runs/a/config.json").write_text(config)
        code, _, err = run(monkeypatch, capsys, "policy", "show", "runs/a")
        assert code == 2 and "there is no policy at runs/a" in err


# ---- configurations by name ---------------------------------------------------------------------------------------------


def test_a_configuration_that_came_with_the_package_is_found_by_its_name():
    by_name, by_path = Path("gym"), ROOT / "configs/gym.toml"
    assert load_learner_settings([by_name]) == load_learner_settings([by_path])
    assert load_config("arm0-sim", [by_name]) == load_config("arm0-sim", [by_path])


def test_a_file_of_that_name_comes_first_and_a_path_stays_a_path(tmp_path):
    (tmp_path / "gym").write_text("[learn]\nbatch_size = 7\n")
    assert load_learner_settings([Path("gym")]).learn.batch_size == 7
    for path in (Path("x/gym"), Path("gym.toml"), tmp_path / "gym"):
        assert find_config(path) == path


def test_a_name_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match="no configuration 'gim'") as caught:
        load_learner_settings([Path("gim")])
    assert "gym" in caught.value.reason and caught.value.command == "--config gym"
