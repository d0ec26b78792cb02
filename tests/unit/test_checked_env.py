"""Somebody else's gymnasium environment: what it raises, and what it may not return, ends a run with one clear error."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from cli_world import run

from robotsac.cli.checked_env import make_env
from robotsac.errors import DriverUnavailable

MODULE = """
import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Own(gymnasium.Env):
    action_space, observation_space = Box(-1, 1, (1,)), Box(-9, 9, (2,))
    made = 0

    def __init__(self):
        pass

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(2), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(2), 1.0, False, self.steps == 20, {}


gymnasium.register("Own-v0", Own)
"""
QUICK = "--sync --run a --steps 60 --eval-every 60 --eval-episodes 1 --set learn.start_steps=20 --set learn.hidden=[8] "
QUICK += "--set learn.device=cpu --set learn.discount=0.9 --set learn.batch_size=16 --env own_env:Own-v0"


@pytest.fixture
def own(monkeypatch, tmp_path):
    """Write the module with one of its lines replaced; its path."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def write(line: str = "pass", by: str = "pass") -> Path:
        assert line in MODULE
        path = folder / "own_env.py"
        path.write_text(MODULE.replace(line, by))
        return path

    yield write
    sys.modules.pop("own_env", None)
    torch.set_flush_denormal(False)


def train(monkeypatch, capsys, text: str = QUICK) -> tuple[int, str, str]:
    return run(monkeypatch, capsys, "train", *text.split())


def test_one_that_does_as_it_should_is_trained_in(monkeypatch, capsys, own):
    own()
    code, _, err = train(monkeypatch, capsys)
    assert code == 0, err


@pytest.mark.parametrize(
    ("line", "by", "words"),
    [
        ("pass", "raise ValueError('boom')", "gymnasium.make(): ValueError: boom"),
        ("pass", "raise TypeError('boom')", "gymnasium.make(): TypeError: boom"),
        ("self.steps = 0", "raise ValueError('boom')", "reset(): ValueError: boom"),
        ("self.steps = 0", "raise SystemExit('boom')", "reset(): SystemExit: boom"),
        ("self.steps += 1", "self.step_count += 1", "step(): AttributeError"),
        ("self.steps += 1", "raise OSError('boom') from KeyError('k')", "step(): OSError: boom"),
    ],
)
def test_what_it_raises_is_told_with_its_name_the_file_and_the_line(monkeypatch, capsys, own, line, by, words):
    path = own(line, by)
    at = path.read_text().splitlines().index(next(row for row in path.read_text().splitlines() if by in row)) + 1
    code, _, err = train(monkeypatch, capsys)
    what, why, instead = err.splitlines()[-3:]
    assert code == 9 and "Traceback" not in err
    assert "Own-v0' failed in " in what and words in what
    assert why == f"   why: raised in {path}, line {at}"
    assert instead == f"   try: ${{EDITOR:-vi}} {path}"


@pytest.mark.parametrize(
    ("line", "by", "words"),
    [
        (
            "np.zeros(2), 1.0,",
            "np.zeros(2), np.ones(1),",
            "step() gave the reward array([1.]), which is not a finite number",
        ),
        ("np.zeros(2), 1.0,", "np.zeros(2), float('nan'),", "step() gave the reward nan"),
        ("np.zeros(2), 1.0,", "np.zeros(2), 1e39,", "step() gave the reward 1e+39"),
        ("np.zeros(2), 1.0,", "np.zeros(2), None,", "step() gave the reward None"),
        ("np.zeros(2), 1.0,", "np.zeros(3), 1.0,", "step() gave an observation of shape (3,), its space has (2,)"),
        (
            "np.zeros(2), 1.0,",
            "np.zeros((2, 1)), 1.0,",
            "step() gave an observation of shape (2, 1), its space has (2,)",
        ),
        ("np.zeros(2), 1.0,", "np.array([0, np.nan]), 1.0,", "not finite: number 1 of it is nan"),
        ("np.zeros(2), 1.0,", "np.array([1e39, 0]), 1.0,", "not finite: number 0 of it is inf"),
        ("np.zeros(2), 1.0,", "[[1], [1, 2]], 1.0,", "step() gave a list as observation, which is no array of numbers"),
        ("return np.zeros(2), {}", "return np.zeros(1), {}", "reset() gave an observation of shape (1,)"),
        ("return np.zeros(2), {}", "return np.zeros(2)", "reset() gave a float64 as info, its last value, not a dict"),
        ("self.steps == 20, {}", "self.steps == 20", "failed in step(): ValueError: not enough values to unpack"),
        ("self.steps == 20, {}", "self.steps == 20, None", "step() gave a NoneType as info"),
        ("Box(-9, 9, (2,))", "Box(-9, 9, (2,)); del action_space", "failed in its spaces: AttributeError"),
    ],
)
def test_what_none_may_return_ends_the_run(monkeypatch, capsys, own, line, by, words):
    path = own(line, by)
    code, out, err = train(monkeypatch, capsys, f"{QUICK} --json")
    what = err.splitlines()[-3]
    assert code == 9 and "Traceback" not in err, err
    assert "environment 'Own-v0'" in what and words in what, err
    assert json.loads(out)["error"]["exit_code"] == 9
    if "failed" not in words:
        assert str(path) in err.splitlines()[-1]


def test_a_number_that_comes_as_an_array_without_a_dimension_is_one(monkeypatch, capsys, own):
    own("np.zeros(2), 1.0,", "np.zeros(2), np.array(1.0),")
    code, _, err = train(monkeypatch, capsys)
    assert code == 0, err


def test_a_module_that_does_not_compile_is_told_with_the_line(monkeypatch, capsys, own):
    path = own("pass", "pass pass")
    code, _, err = train(monkeypatch, capsys)
    assert code == 9 and "SyntaxError" in err and f"raised in {path}, line 12" in err, err


@pytest.mark.parametrize("env_id", ["nomod:Foo-v0", "nomod.envs:Foo-v0"])
def test_a_module_that_is_not_there_is_said_to_be_missing(env_id):
    with pytest.raises(DriverUnavailable) as caught:
        make_env(env_id)
    assert caught.value.message == "module nomod was not found" and env_id in caught.value.reason
    assert caught.value.command == "pip list"


def test_only_gymnasiums_own_mujoco_tasks_are_said_to_need_the_extra(monkeypatch, own):
    own("import gymnasium\n", "import gymnasium, not_there\n")
    with pytest.raises(DriverUnavailable, match="No module named 'not_there'") as caught:
        make_env("own_env:Own-v0")
    assert caught.value.command == "pip list"
    monkeypatch.setitem(sys.modules, "gymnasium.envs.mujoco.half_cheetah_v4", None)
    with pytest.raises(DriverUnavailable) as caught:
        make_env("HalfCheetah-v4")
    assert caught.value.command == "pip install 'robotsac[bench]'"
