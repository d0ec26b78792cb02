"""Reach: bring the tip to a random point and keep it there."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from robotsac.arm import ArmSpec, JointState, Vector
from robotsac.config.loading import validate
from robotsac.config.schema import RobotConfig
from robotsac.contract import Channel
from robotsac.dynamics import RigidBody
from robotsac.env.task import Judgement, effort, uniform
from robotsac.records import EpisodeEnd

DRAWS_MAX = 1000


class ReachParams(BaseModel):
    """``[task]`` parameters of ``reach``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tolerance_m: float = Field(default=0.02, gt=0)
    hold_s: float = Field(default=0.5, ge=0)
    # Targets are tip positions of random poses this far (share of the joint range) around home, never below the floor.
    spread: float = Field(default=0.4, gt=0, le=1)
    floor_m: float = 0.05
    # Reward per second of distance, in units of this length, and of not being within about `near_m`.
    far_m: float = Field(default=0.25, gt=0)
    near_m: float = Field(default=0.03, gt=0)
    action_cost: float = Field(default=0.05, ge=0)
    rate_cost: float = Field(default=0.05, ge=0)


@dataclass(frozen=True, slots=True)
class ReachGoal:
    """A target (3,), m, and for how long the tip has been within tolerance of it, s."""

    target: Vector
    held_s: float = 0.0


class Reach:
    """Success: the tip within ``tolerance_m`` of the target for ``hold_s`` without a break.

    The reward is never positive, and success ends the episode, so that finishing early is always worth it:
    r = −d/far − (1 − exp(−(d/near)²)) − effort, with d the distance, times the control period over 20 ms.
    """

    name = "reach"

    def __init__(self, robot: RobotConfig, params: dict[str, Any], body: RigidBody, dt_s: float) -> None:
        self._params = validate(ReachParams, params, "task reach")
        spec = ArmSpec.from_config(robot)
        half = self._params.spread * 0.5 * (spec.q_max - spec.q_min)
        self._low = np.maximum(spec.home - half, spec.q_min)
        self._high = np.minimum(spec.home + half, spec.q_max)
        self._body = body
        self._dt_s = dt_s
        far = (self._params.far_m,) * 3
        self.channels = (
            Channel("tip", 3, "m", (0.5, 0.5, 0.5)),
            Channel("to_target", 3, "m", far),
            Channel("held", 1, "s", (max(self._params.hold_s, dt_s),)),
        )

    def begin(self, rng: np.random.Generator, state: JointState) -> ReachGoal:
        for _ in range(DRAWS_MAX):
            target = self._body.tip(uniform(rng, self._low, self._high))
            if target[2] >= self._params.floor_m:
                return ReachGoal(target)
        return ReachGoal(self._body.tip((self._low + self._high) / 2))

    def observe(self, goal: ReachGoal, state: JointState) -> Vector:
        tip = self._body.tip(state.q)
        return np.concatenate((tip, goal.target - tip, (goal.held_s,)))

    def judge(self, goal: ReachGoal, state: JointState, action: Vector, previous: Vector) -> Judgement:
        p = self._params
        distance = float(np.linalg.norm(goal.target - self._body.tip(state.q)))
        held_s = goal.held_s + self._dt_s if distance <= p.tolerance_m else 0.0
        end = EpisodeEnd.SUCCESS if held_s >= p.hold_s - 0.5 * self._dt_s else EpisodeEnd.RUNNING
        cost = distance / p.far_m + 1.0 - math.exp(-((distance / p.near_m) ** 2))
        cost += effort(action, previous, p.action_cost, p.rate_cost)
        reward = -cost * self._dt_s * 50.0
        return Judgement(reward, end, replace(goal, held_s=held_s), {"distance_m": distance})
