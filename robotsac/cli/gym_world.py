"""Any gymnasium environment that comes down to boxes on both sides, as a :class:`~robotsac.learner.world.World`.

It stands here because the learner's side loads no gymnasium.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.spaces.utils import flatdim, flatten_space
from gymnasium.wrappers import FlattenObservation

from robotsac.actor.held_noise import HeldNoise
from robotsac.errors import ConfigError, DriverUnavailable, RobotsacError
from robotsac.learner.world import Outcome, Seeds, Vector
from robotsac.records import EpisodeEnd

_BOXES = "--env Pendulum-v1"


class GymWorld:
    """A gymnasium environment whose actions are a bounded box, and whose observations are one or can be flattened to one.

    Args:
        env: made, and nobody else's.
        seeds: that of episodes begins the first one, and with it all that follow; it is held-out episode 0's, and the
            next numbers are those of the others.
        noise_hold_s: how long the policy's noise stays as it was drawn, s; 0 = one step.

    Raises:
        ConfigError: spaces that SAC does not fit, or noise to hold where no step has a length in seconds.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], seeds: Seeds, noise_hold_s: float = 0.0) -> None:
        self._name = name_of(env)
        env = _with_box_observations(env)
        action = env.action_space
        if not isinstance(action, Box) or not np.issubdtype(action.dtype, np.floating):
            raise _unfit(self._name, f"its actions are {action}, and SAC's are real numbers in a Box", _BOXES)
        if not (action.is_bounded() and (action.low < action.high).all()):
            raise _unfit(self._name, f"its actions are {action}, and SAC's have a lower and an upper bound", _BOXES)
        self._env = env
        self._seed: int | None = seeds.episodes
        self._first_held_out = seeds.episodes
        random, noise = (np.random.default_rng(seed) for seed in (seeds.random_action, seeds.noise))
        self._generators = {"random_action": random, "noise": noise}
        self._noise = _held(self._name, noise_hold_s, control_rate_of(env), noise)
        self._low, self._high = action.low.astype(np.float64), action.high.astype(np.float64)
        self._space = action
        self.obs_dim = flatdim(env.observation_space)
        self.act_dim = math.prod(action.shape)

    def reset(self, held_out: int | None = None) -> Vector:
        """See :class:`~robotsac.learner.world.World`."""
        self._noise.renew()
        seed, self._seed = self._seed, None
        obs, _ = self._env.reset(seed=seed if held_out is None else self._first_held_out + held_out)
        return self._flat(obs)

    def step(self, action: Vector) -> Outcome:
        """See :class:`~robotsac.learner.world.World`.

        Raises:
            RobotsacError: the environment gives a number that is not finite.
        """
        obs, reward, terminated, truncated, info = self._env.step(self.in_units(action))
        success = info.get("is_success")
        end = EpisodeEnd.TIME_LIMIT if truncated else EpisodeEnd.RUNNING
        if terminated:
            end = EpisodeEnd.SUCCESS if success else EpisodeEnd.FAILURE
        if not math.isfinite(reward):
            raise self._not_finite("reward")
        return Outcome(self._flat(obs), float(reward), action, end, None if success is None else bool(success))

    def in_units(self, action: Vector) -> np.ndarray[Any, Any]:
        """From [-1, 1] to the environment's box, affinely: -1 is its lower bound, 1 its upper one."""
        share = 0.5 * (action.astype(np.float64).reshape(self._space.shape) + 1.0)
        # In this form neither bound is missed by rounding, not even where the other one is far away.
        units = (1.0 - share) * self._low + share * self._high
        return np.clip(units, self._low, self._high).astype(self._space.dtype)

    def random_action(self) -> Vector:
        """Uniform, as SAC implementations begin (Spinning Up, start_steps)."""
        return self._generators["random_action"].uniform(-1.0, 1.0, self.act_dim).astype(np.float32)

    def noise(self, size: int) -> Vector:
        """Held as long as ``collect.noise_hold_s`` says."""
        return self._noise.draw(size)

    def generators(self) -> dict[str, np.random.Generator]:
        """See :class:`~robotsac.learner.world.World`."""
        return self._generators

    def close(self) -> None:
        """See :class:`~robotsac.learner.world.World`."""
        self._env.close()

    def _flat(self, obs: Any) -> Vector:
        # A copy, whatever comes: some environments write every observation into one array.
        flat = np.array(obs, dtype=np.float32).reshape(-1)
        if not np.isfinite(flat).all():
            raise self._not_finite("observation")
        return flat

    def _not_finite(self, what: str) -> RobotsacError:
        return RobotsacError(
            f"{self._name} gave a number that is not finite in its {what}",
            reason="its simulation has diverged, or it does not bound what it reports",
            command="--seed 1",
        )


def make_env(env_id: str, arguments: Mapping[str, Any] | None = None) -> gymnasium.Env[Any, Any]:
    """``gymnasium.make``, with its errors in words and without its advice to take another version.

    Raises:
        ConfigError: no such environment.
        DriverUnavailable: a package that it needs is not installed.
    """
    with contextlib.suppress(ImportError):
        # Where there is MuJoCo, this keeps it from writing its warnings into the folder that one stands in.
        importlib.import_module("robotsac.dynamics")
    try:
        with warnings.catch_warnings():
            # That v4 is out of date is known: the published tables are v4's.
            warnings.simplefilter("ignore")
            return gymnasium.make(env_id, disable_env_checker=True, **(arguments or {}))
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise DriverUnavailable(
            f"environment {env_id} cannot be loaded", reason=str(error), command="pip install 'robotsac[bench]'"
        ) from error
    except gymnasium.error.Error as error:
        raise ConfigError(f"there is no environment {env_id!r}", reason=str(error), command=_BOXES) from error


def require_learnable(env_id: str) -> None:
    """Refuse now what every run in it would be refused for.

    Raises:
        ConfigError: no such environment, or spaces that SAC does not fit.
        DriverUnavailable: a package that it needs is not installed.
    """
    GymWorld(make_env(env_id), Seeds(0, 0, 0)).close()


def name_of(env: gymnasium.Env[Any, Any]) -> str:
    """Its id, or its class where it has none."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def control_rate_of(env: gymnasium.Env[Any, Any]) -> float | None:
    """Control steps per second, Hz, where the environment tells its time step (``dt``, s)."""
    dt_s = getattr(env.unwrapped, "dt", None)
    return 1.0 / float(dt_s) if isinstance(dt_s, int | float | np.number) and dt_s > 0 else None


def _with_box_observations(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """``env``, flattened where its observations are no Box: those of a Dict in the order of its keys, a Discrete one-hot."""
    space = env.observation_space
    if isinstance(space, Box):
        return env
    try:
        flat: gymnasium.Space[Any] = flatten_space(space)
    except NotImplementedError:  # a kind of space that gymnasium does not know
        flat = space
    if not isinstance(flat, Box):
        why = f"its observation is a {type(space).__name__}, which cannot be flattened to a Box"
        raise _unfit(name_of(env), why, _BOXES)
    return FlattenObservation(env)


def _held(name: str, hold_s: float, control_rate_hz: float | None, rng: np.random.Generator) -> HeldNoise:
    if control_rate_hz is None and hold_s > 0:
        raise ConfigError(
            f"collect.noise_hold_s is {hold_s:g} s, and steps of {name} have no length in seconds",
            reason="the environment has no dt; without one, noise can only be drawn anew at each step",
            command="--set collect.noise_hold_s=0",
        )
    return HeldNoise(hold_s, 1.0 / (control_rate_hz or 1.0), rng)


def _unfit(name: str, why: str, command: str) -> ConfigError:
    return ConfigError(f"environment {name} does not fit SAC", reason=why, command=command)
