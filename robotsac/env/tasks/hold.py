"""Hold: stay at the pose where the episode began, whatever friction and gravity error do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from robotsac.arm import ArmSpec, JointState, Vector
from robotsac.config.base import Positive
from robotsac.config.loading import validate
from robotsac.config.schema import RobotConfig
from robotsac.contract import Channel
from robotsac.dynamics import RigidBody
from robotsac.env.task import EffortParams, Judgement
from robotsac.records import EpisodeEnd


class HoldParams(EffortParams):
    """``[task]`` parameters of ``hold``."""

    scale_rad: Positive = 0.2
    failure_rad: Positive = 0.6


@dataclass(frozen=True, slots=True)
class HoldGoal:
    """The pose (n,), rad."""

    q: Vector


class Hold:
    """Failure: a joint leaves the pose by ``failure_rad``. There is no success before the time limit.

    r = 1 − mean(|q − q₀|/scale, at most 1 each) − effort, so that staying up is worth more than falling early.
    """

    name = "hold"

    def __init__(
        self, robot: RobotConfig, params: dict[str, Any], body: RigidBody, dt_s: float, episode_s: float
    ) -> None:
        self._params = validate(HoldParams, params, "task hold")
        self.parameters = self._params.model_dump(mode="json")
        n = ArmSpec.from_config(robot).n
        self.channels = (Channel("to_pose", n, "rad", (self._params.scale_rad,) * n),)

    def begin(self, rng: np.random.Generator, state: JointState) -> HoldGoal:
        """The pose in ``state`` is the goal; nothing is drawn."""
        return HoldGoal(state.q.copy())

    def observe(self, goal: HoldGoal, state: JointState) -> Vector:
        """How far each joint is from the pose, rad, (n,)."""
        return goal.q - state.q

    def judge(self, goal: HoldGoal, state: JointState, action: Vector, previous: Vector) -> Judgement:
        """The class's reward; FAILURE beyond ``failure_rad``. ``info``: ``error_rad``, of the joint furthest off."""
        p = self._params
        error = np.abs(goal.q - state.q)
        end = EpisodeEnd.FAILURE if error.max() > p.failure_rad else EpisodeEnd.RUNNING
        reward = 1.0 - float(np.minimum(error / p.scale_rad, 1.0).mean())
        reward -= p.effort(action, previous)
        return Judgement(reward, end, goal, {"error_rad": float(error.max())})
