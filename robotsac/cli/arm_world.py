"""The simulated arm, as a :class:`~robotsac.learner.world.World`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robotsac.actor.held_noise import HeldNoise
from robotsac.actor.random_policy import SmoothRandom
from robotsac.arm import PlaceableArm
from robotsac.config import Config
from robotsac.env.arm_env import ArmEnv
from robotsac.errors import ConfigError, GuardFault
from robotsac.learner.world import Outcome, Seeds, Vector
from robotsac.records import EpisodeEnd

HELD_OUT_SEED = 1_000_000
"""First goal of the evaluation, as in ``robotsac eval``."""


class ArmWorld:
    """The simulated arm, as ``collect`` and ``eval`` run it: applied actions, smooth random ones, held noise, held-out goals.

    Args:
        config: resolved.
        seeds: that of episodes draws the goals.
        faults_folder: where the guard writes faults.

    Raises:
        ConfigError: an arm that moves in real time.
        DriverUnavailable: from the driver.
    """

    def __init__(self, config: Config, seeds: Seeds, faults_folder: Path | None = None) -> None:
        self._env = ArmEnv(config, faults_folder)
        if not isinstance(self._env.arm, PlaceableArm):
            self._env.close()
            raise ConfigError(
                f"robot {config.robot.name} moves in real time",
                reason="--sync holds the world still while it learns, which only a simulated arm allows",
                command="--robot arm0-sim",
            )
        self.contract = self._env.contract
        self._seed: int | None = seeds.episodes
        random, noise = (np.random.default_rng(seed) for seed in (seeds.random_action, seeds.noise))
        self._generators = {"random_action": random, "noise": noise}
        dt_s = 1.0 / self.contract.control_rate_hz
        self._random = SmoothRandom(self.act_dim, config.collect.random_hold_s, dt_s, random)
        self._noise = HeldNoise(config.collect.noise_hold_s, dt_s, noise)

    @property
    def obs_dim(self) -> int:
        """Length of the observation."""
        return self.contract.obs_dim

    @property
    def act_dim(self) -> int:
        """Length of the action."""
        return self.contract.act_dim

    def reset(self, held_out: int | None = None) -> Vector:
        """See :class:`~robotsac.learner.world.World`; held-out episodes begin at home, others where ``[task]`` has them begin.

        Raises:
            GuardFault, ArmStateError: from the arm.
        """
        self._noise.renew()
        if held_out is not None:
            return self._env.reset(options={"goal_seed": HELD_OUT_SEED + held_out, "home": True})[0]
        seed, self._seed = self._seed, None
        return self._env.reset(seed=seed)[0]

    def step(self, action: Vector) -> Outcome:
        """See :class:`~robotsac.learner.world.World`.

        Raises:
            GuardFault: a latched fault: the arm will not move any more.
        """
        obs, reward, _, _, info = self._env.step(action)
        fault = info.get("fault")
        if isinstance(fault, GuardFault) and fault.latched:
            raise fault
        end = EpisodeEnd(info["end"])
        return Outcome(obs, reward, info["applied"].astype(np.float32), end, end is EpisodeEnd.SUCCESS)

    def random_action(self) -> Vector:
        """The next of :class:`~robotsac.actor.random_policy.SmoothRandom`."""
        return self._random.action()

    def noise(self, size: int) -> Vector:
        """Held as long as ``collect.noise_hold_s`` says."""
        return self._noise.draw(size)

    def generators(self) -> dict[str, np.random.Generator]:
        """See :class:`~robotsac.learner.world.World`."""
        return self._generators

    def close(self) -> None:
        """See :class:`~robotsac.learner.world.World`."""
        self._env.close()
