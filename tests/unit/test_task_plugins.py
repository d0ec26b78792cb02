"""A task may be anybody's code: what it raises or returns never reaches a record, and is told in words."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from task_plugins import install, install_broken

import robotsac.env
from robotsac.config import load_config
from robotsac.env.arm_env import ArmEnv
from robotsac.errors import ConfigError, DriverUnavailable, TaskError
from robotsac.guard import GuardState

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plugin(tmp_path, monkeypatch) -> Path:
    folder = install_broken(tmp_path / "site packages")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "broken_task", raising=False)  # of the test before, in another folder
    return folder / "broken_task.py"


def env_of(at: str) -> ArmEnv:
    return ArmEnv(load_config("arm0-sim", overrides=["task.name=broken", f"task.at={at}"]))


def run(env: ArmEnv) -> None:
    try:
        env.reset(seed=0)
        for _ in range(10):
            env.step(np.zeros(6))
    finally:
        env.park_and_close()


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("__init__", "failed in __init__(): ZeroDivisionError: at the very start"),
        ("begin", "failed in begin(): ZeroDivisionError: at the beginning"),
        ("observe", "failed in observe(): KeyError: 'nothing'"),
        ("judge", "failed in judge(): ZeroDivisionError: in the middle"),
        ("shape", "observe() gave shape (2,), its channels have (1,)"),
        ("hole", "observe() gave [nan], which is not finite"),
        ("reward", "judge() gave the reward nan"),
        ("infinite", "judge() gave the reward 1e+39"),
        ("word", "judge() gave the reward 'much'"),
        ("end", "judge() gave the end <EpisodeEnd.TIME_LIMIT: 3>; a task knows RUNNING, SUCCESS, FAILURE"),
        ("number", "judge() gave the end 1;"),
        ("goal", "judge() gave no goal"),
        ("info", "judge() gave a int as info"),
        ("tuple", "judge() gave a tuple, not a Judgement"),
    ],
)
def test_a_task_that_fails_is_named_with_what_and_where_and_the_arm_is_parked(plugin, at, words):
    with pytest.raises(TaskError) as caught:
        run(env_of(at))
    error = caught.value
    assert error.message.startswith("task 'broken'") and words in error.message
    assert error.reason
    assert shlex.split(error.command) == ["${EDITOR:-vi}", str(plugin)]
    assert error.exit_code == 9, "not the arm's fault"
    if "failed in" in words:
        line = int(re.search(rf"{re.escape(str(plugin))}, line (\d+)", error.reason)[1])
        assert re.search(r"raise|nothing", plugin.read_text().splitlines()[line - 1])


@pytest.mark.parametrize("at", ["judge", "reward", "hole"])
def test_the_arm_is_held_until_whoever_runs_it_parks_it(plugin, at):
    env = env_of(at)
    with pytest.raises(TaskError):
        env.reset(seed=0)
        for _ in range(10):
            env.step(np.zeros(6))
    assert env.guard.state is GuardState.HOLD
    env.guard.idle()
    env.park_and_close()
    assert env.arm.torque_is_off()
    np.testing.assert_allclose(env.guard.joints.q, env.arm.spec.park, atol=0.05)


def test_a_numpy_scalar_is_a_reward_and_the_caller_gets_a_float(plugin):
    env = env_of("nothing")
    env.reset(seed=0)
    rewards = [env.step(np.zeros(6))[1] for _ in range(8)]
    env.close()
    assert rewards[-1] == 1.0
    assert all(type(reward) is float for reward in rewards)


HOME = (
    "from robotsac.records import EpisodeEnd\n"
    "class Odd:\n  channels, parameters, home_after = (), {{}}, {}\n  def __init__(self, *a): pass"
)


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("import nothing_like_this", DriverUnavailable, "No module named 'nothing_like_this'"),
        ("class Odd:\n  def __init__(self: pass", DriverUnavailable, "SyntaxError"),
        ("class Odd:\n  def __init__(self, robot): pass", TaskError, "positional argument"),
        ("class Odd:\n  def __init__(self, *a): pass", TaskError, "channels"),
        ("class Odd:\n  channels = ()\n  def __init__(self, *a): pass", TaskError, "parameters"),
        (
            "class Odd:\n  channels, parameters = (), {'a': object()}\n  def __init__(self, *a): pass",
            TaskError,
            "JSON",
        ),
        (
            "from robotsac.contract import Channel\n"
            "class Odd:\n  channels, parameters = (Channel('x', 2, 'm', (1.0,)),), {}\n  def __init__(self, *a): pass",
            TaskError,
            "channel 'x' of size 2 has the scales (1.0,)",
        ),
        (HOME.format("(EpisodeEnd.TIME_LIMIT)"), TaskError, "home_after is <EpisodeEnd.TIME_LIMIT: 3>, not a tuple"),
        (HOME.format("None"), TaskError, "home_after is None, not a tuple of EpisodeEnds"),
        (HOME.format("('time_limit',)"), TaskError, "home_after is ('time_limit',), not a tuple of EpisodeEnds"),
        (HOME.format("(EpisodeEnd.RUNNING,)"), TaskError, "home_after has RUNNING; it may have SUCCESS, FAILURE,"),
        (HOME.format("(EpisodeEnd.OPERATOR,)"), TaskError, "home_after has OPERATOR"),
        (
            "from robotsac.errors import ConfigError\n"
            "class Odd:\n  def __init__(self, *a): raise ConfigError('task.x is wrong', reason='r', command='c')",
            ConfigError,
            "task.x is wrong",
        ),
    ],
)
def test_what_is_no_task_is_refused_before_an_arm_moves(tmp_path, monkeypatch, code, error, words):
    monkeypatch.syspath_prepend(str(install(tmp_path, "odd", f"odd_{abs(hash(code))}", code, "Odd")))
    with pytest.raises(error) as caught:
        ArmEnv(load_config("arm0-sim", overrides=["task.name=odd"]))
    assert words in str(caught.value)
    assert caught.value.command


# ---- the README's example --------------------------------------------------------------------------------------------


def block(language: str, containing: str) -> str:
    """The code block of the README that contains ``containing``."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return found


def test_the_readmes_project_installs_with_its_test_beside_it():
    """setuptools refuses to guess among several modules in one folder."""
    project = tomllib.loads(block("toml", "robotsac.tasks"))
    ((_, target),) = project["project"]["entry-points"]["robotsac.tasks"].items()
    assert project["tool"]["setuptools"]["py-modules"] == [target.split(":")[0]]


@pytest.fixture
def example(tmp_path) -> Path:
    project = tomllib.loads(block("toml", "robotsac.tasks"))["project"]
    ((name, target),) = project["entry-points"]["robotsac.tasks"].items()
    module, factory = target.split(":")
    return install(tmp_path / "example", name, module, block("python", f"class {factory}"), factory)


def test_the_readmes_task_runs(example, monkeypatch):
    monkeypatch.syspath_prepend(str(example))
    env = gymnasium.make(robotsac.env.ENV_ID, robot="arm0-sim", task="pose", overrides=["task.tolerance_rad=0.2"])
    assert env.unwrapped.contract.task_parameters["tolerance_rad"] == "0.2"
    env.reset(seed=0)
    *_, info = env.step(env.action_space.sample())
    assert info["error_rad"] > 0
    env.close()


def test_the_readmes_task_passes_the_suite_as_the_readme_runs_it(example):
    (example / "test_my_tasks.py").write_text(block("python", "class TestPose"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_tasks.py"],
        cwd=example,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 5
