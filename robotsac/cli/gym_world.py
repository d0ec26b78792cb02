"""Any gymnasium environment that comes down to boxes on both sides, as a :class:`~robotsac.learner.world.World`.

It stands here because the learner's side loads no gymnasium.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.spaces.utils import flatdim

from robotsac.actor.held_noise import HeldNoise
from robotsac.cli.checked_env import CheckedEnv, make_env, unfit
from robotsac.contract import Contract
from robotsac.errors import ConfigError
from robotsac.learner.world import Outcome, Seeds, Vector
from robotsac.records import EpisodeEnd


class GymWorld:
    """A gymnasium environment whose actions are a bounded box, and whose observations are one or can be flattened to one.

    Args:
        env: made, and nobody else's.
        seeds: that of episodes begins the first one, and with it all that follow; it is held-out episode 0's, and the
            next numbers are those of the others.
        noise_hold_s: how long the policy's noise stays as it was drawn, s; 0 = one step.

    Raises:
        ConfigError: spaces that SAC does not fit, or noise to hold where no step has a length in seconds.
        TaskError: the environment has no spaces.
    """

    contract: Contract | None = None
    """Gymnasium's spaces do not say what their numbers mean."""

    def __init__(self, env: gymnasium.Env[Any, Any], seeds: Seeds, noise_hold_s: float = 0.0) -> None:
        self._env = CheckedEnv(env)
        name, action = self._env.name, self._env.action_space
        if not isinstance(action, Box) or not np.issubdtype(action.dtype, np.floating):
            raise unfit(name, f"its actions are {action}, and SAC's are real numbers in a Box")
        if not (action.is_bounded() and (action.low < action.high).all()):
            raise unfit(name, f"its actions are {action}, and SAC's have a lower and an upper bound")
        self._seed: int | None = seeds.episodes
        self._first_held_out = seeds.episodes
        random, noise = (np.random.default_rng(seed) for seed in (seeds.random_action, seeds.noise))
        self._generators = {"random_action": random, "noise": noise}
        self._noise = _held(name, noise_hold_s, self._env.control_rate_hz, noise)
        self._low, self._high = action.low.astype(np.float64), action.high.astype(np.float64)
        self._space = action
        self.obs_dim = flatdim(self._env.space)
        self.act_dim = math.prod(action.shape)

    def reset(self, held_out: int | None = None) -> Vector:
        """See :class:`~robotsac.learner.world.World`.

        Raises:
            TaskError: from :class:`~robotsac.cli.checked_env.CheckedEnv`.
        """
        self._noise.renew()
        seed, self._seed = self._seed, None
        return self._env.reset(seed if held_out is None else self._first_held_out + held_out)

    def step(self, action: Vector) -> Outcome:
        """See :class:`~robotsac.learner.world.World`.

        Raises:
            TaskError: from :class:`~robotsac.cli.checked_env.CheckedEnv`.
        """
        obs, reward, terminated, truncated, success = self._env.step(self.in_units(action))
        end = EpisodeEnd.TIME_LIMIT if truncated else EpisodeEnd.RUNNING
        if terminated:
            end = EpisodeEnd.SUCCESS if success else EpisodeEnd.FAILURE
        return Outcome(obs, reward, action, end, success)

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


def require_learnable(env_id: str) -> None:
    """Refuse now what every run in it would be refused for.

    Raises:
        ConfigError: no such environment, or spaces that SAC does not fit.
        DriverUnavailable: its module, or a package that it needs, is not installed.
        TaskError: its code raises.
    """
    GymWorld(make_env(env_id), Seeds(0, 0, 0)).close()


def _held(name: str, hold_s: float, control_rate_hz: float | None, rng: np.random.Generator) -> HeldNoise:
    if control_rate_hz is None and hold_s > 0:
        raise ConfigError(
            f"collect.noise_hold_s is {hold_s:g} s, and steps of {name} have no length in seconds",
            reason="the environment has no dt; without one, noise can only be drawn anew at each step",
            command="--set collect.noise_hold_s=0",
        )
    return HeldNoise(hold_s, 1.0 / (control_rate_hz or 1.0), rng)
