"""A gymnasium environment as ``train --sync`` uses it: made from its id, and held to what an environment may do.

An environment may be anybody's code. What it raises, and what it returns that none may return, becomes a
:class:`TaskError` that names the environment and the file to look into, before anything of it reaches the replay.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.spaces import Box
from gymnasium.spaces.utils import flatten_space
from gymnasium.wrappers import FlattenObservation

from robotsac.env.foreign import RAISED, failed, look_at, source_of
from robotsac.errors import ConfigError, DriverUnavailable, RobotsacError, TaskError
from robotsac.learner.world import Vector

REWARD_MAX = float(np.finfo(np.float32).max)
"""The replay holds the reward as float32."""
ANOTHER = "--env Pendulum-v1"
"""The option with an environment that is always there, and whose spaces fit."""


class CheckedEnv:
    """An environment around one.

    Args:
        env: made, and nobody else's.

    Attributes:
        name: its id, or its class where it has none.
        space: of its observations.
        action_space: of its actions.
        control_rate_hz: control steps per second, where it tells its time step (``dt``, s).

    Raises:
        ConfigError: its observations are no numbers.
        TaskError: it has no spaces.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        self._source = source_of(env.unwrapped)
        try:
            self.control_rate_hz = control_rate_of(env)
            self.action_space: gymnasium.Space[Any] = env.action_space
            self._env = _with_box_observations(env, self.name)
            self.space = self._env.observation_space
        except RobotsacError:
            raise
        except RAISED as error:
            raise self._failed("its spaces", error) from error

    def reset(self, seed: int | None) -> Vector:
        """Begin an episode, of that ``seed`` where there is one; the observation, flat.

        Raises:
            TaskError: see the module.
        """
        try:
            obs, info = self._env.reset(seed=seed)
            self._require_dict("reset()", info)
        except RobotsacError:
            raise
        except RAISED as error:
            raise self._failed("reset()", error) from error
        return self._flat("reset()", obs)

    def step(self, action: np.ndarray[Any, Any]) -> tuple[Vector, float, bool, bool, bool | None]:
        """Carry out ``action``, in the environment's units.

        Returns:
            The observation, flat; the reward; whether it terminated and was truncated; ``info["is_success"]``, if any.

        Raises:
            TaskError: see the module.
        """
        try:
            obs, reward, terminated, truncated, info = self._env.step(action)
            self._require_dict("step()", info)
            ended = bool(terminated), bool(truncated)
            success = info.get("is_success")
            succeeded = None if success is None else bool(success)
        except RobotsacError:
            raise
        except RAISED as error:
            raise self._failed("step()", error) from error
        return self._flat("step()", obs), self._number(reward), *ended, succeeded

    def close(self) -> None:
        """Idempotent; never raises."""
        with contextlib.suppress(*RAISED):
            self._env.close()

    def _require_dict(self, call: str, info: Any) -> None:
        if not isinstance(info, Mapping):
            raise self._wrong(f"{call} gave a {type(info).__name__} as info, its last value, not a dict")

    def _number(self, reward: Any) -> float:
        try:  # an array of one number can be taken for one, and is none
            number = float(reward) if np.shape(reward) == () else np.nan
        except (TypeError, ValueError):
            number = np.nan
        if not abs(number) <= REWARD_MAX:
            raise self._wrong(
                f"step() gave the reward {reward!r}, which is not a finite number within ±{REWARD_MAX:.3g}"
            )
        return number

    def _flat(self, call: str, obs: Any) -> Vector:
        try:  # a copy, whatever comes: some environments write every observation into one array
            with np.errstate(over="ignore"):
                array = np.array(obs, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise self._wrong(
                f"{call} gave a {type(obs).__name__} as observation, which is no array of numbers"
            ) from error
        if array.shape != self.space.shape:
            raise self._wrong(f"{call} gave an observation of shape {array.shape}, its space has {self.space.shape}")
        flat = array.reshape(-1)
        if len(wrong := np.flatnonzero(~np.isfinite(flat))):
            raise self._wrong(
                f"{call} gave an observation that is not finite: number {wrong[0]} of it is {flat[wrong[0]]}"
            )
        return flat

    def _failed(self, call: str, error: BaseException) -> TaskError:
        return failed(f"environment {self.name!r}", call, error, self._source, ANOTHER)

    def _wrong(self, what: str) -> TaskError:
        return TaskError(
            f"environment {self.name!r}: {what}",
            reason="gymnasium.utils.env_checker.check_env tells what else an environment must give",
            command=look_at(self._source, ANOTHER),
        )


def make_env(env_id: str, arguments: Mapping[str, Any] | None = None) -> gymnasium.Env[Any, Any]:
    """``gymnasium.make``, with its errors in words and without its advice to take another version.

    Raises:
        ConfigError: no such environment.
        DriverUnavailable: its module, or a package that it needs, is not installed.
        TaskError: its code raises.
    """
    with contextlib.suppress(ImportError):
        # Where there is MuJoCo, this keeps it from writing its warnings into the folder that one stands in.
        importlib.import_module("robotsac.dynamics")
    try:
        with warnings.catch_warnings():
            # That v4 is out of date is known: the published tables are v4's.
            warnings.simplefilter("ignore")
            _import_module(env_id)
            return gymnasium.make(env_id, disable_env_checker=True, **(arguments or {}))
    except RobotsacError:
        raise
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise DriverUnavailable(
            f"environment {env_id} cannot be loaded", reason=str(error), command=_install_command(env_id)
        ) from error
    except gymnasium.error.Error as error:
        raise ConfigError(f"there is no environment {env_id!r}", reason=str(error), command=ANOTHER) from error
    except RAISED as error:
        raise failed(f"environment {env_id!r}", "gymnasium.make()", error, _source_of_id(env_id), ANOTHER) from error


def control_rate_of(env: gymnasium.Env[Any, Any]) -> float | None:
    """Control steps per second, Hz, where the environment tells its time step (``dt``, s)."""
    dt_s = getattr(env.unwrapped, "dt", None)
    return 1.0 / float(dt_s) if isinstance(dt_s, int | float | np.number) and dt_s > 0 else None


def unfit(name: str, why: str) -> ConfigError:
    """That SAC cannot learn in environment ``name``."""
    return ConfigError(f"environment {name} does not fit SAC", reason=why, command=ANOTHER)


def _with_box_observations(env: gymnasium.Env[Any, Any], name: str) -> gymnasium.Env[Any, Any]:
    """``env``, flattened where its observations are no Box: those of a Dict in the order of its keys, a Discrete one-hot."""
    space = env.observation_space
    if isinstance(space, Box):
        return env
    try:
        flat: gymnasium.Space[Any] = flatten_space(space)
    except NotImplementedError:  # a kind of space that gymnasium does not know
        flat = space
    if not isinstance(flat, Box):
        raise unfit(name, f"its observation is a {type(space).__name__}, which cannot be flattened to a Box")
    return FlattenObservation(env)


def _import_module(env_id: str) -> None:
    """What stands before a colon in an id registers the environment. Raises DriverUnavailable: there is no such module."""
    module, colon, _ = env_id.partition(":")
    if not colon:
        return
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # it is there, and needs another one
        raise DriverUnavailable(
            f"module {error.name} was not found",
            reason=f"--env {env_id} imports it, and it is neither installed nor in a folder of PYTHONPATH",
            command="pip list",
        ) from error


def _install_command(env_id: str) -> str:
    """What installs a package that is missing; of other people's environments nobody here knows."""
    spec = gymnasium.registry.get(env_id.rpartition(":")[2])
    mujoco = spec is not None and str(spec.entry_point).startswith("gymnasium.envs.mujoco")
    return "pip install 'robotsac[bench]'" if mujoco else "pip list"


def _source_of_id(env_id: str) -> Path | None:
    """The file of what makes the environment, where that is known."""
    spec = gymnasium.registry.get(env_id.rpartition(":")[2])
    entry: Any = None if spec is None else spec.entry_point
    try:
        return source_of(load_env_creator(entry) if isinstance(entry, str) else entry)
    except RAISED:  # of its module, which has been told
        return None
