"""Track: follow a point that circles in front of the arm."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
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


class TrackParams(EffortParams):
    """``[task]`` parameters of ``track``."""

    radius_m: Positive = 0.08
    period_s: Positive = 4.0
    scale_m: Positive = 0.1


@dataclass(frozen=True, slots=True)
class TrackGoal:
    """Where on the circle the point is, rad, and which way it goes, ±1."""

    phase: float
    direction: float


class Track:
    """A circle of ``radius_m`` in the vertical plane across the arm, around the tip's home position.

    r = −min(d/scale, 3) − effort; no success and no failure, only the time limit.
    """

    name = "track"

    def __init__(
        self, robot: RobotConfig, params: dict[str, Any], body: RigidBody, dt_s: float, episode_s: float
    ) -> None:
        self._params = validate(TrackParams, params, "task track")
        self.parameters = self._params.model_dump(mode="json")
        self._body = body
        self._dt_s = dt_s
        self._centre = body.tip(ArmSpec.from_config(robot).home)
        scale = (self._params.scale_m,) * 3
        self.channels = (
            Channel("tip", 3, "m", (0.5, 0.5, 0.5)),
            Channel("to_target", 3, "m", scale),
            Channel("target_velocity", 3, "m/s", (2 * math.pi * self._params.radius_m / self._params.period_s,) * 3),
        )

    def begin(self, rng: np.random.Generator, state: JointState) -> TrackGoal:
        """A point anywhere on the circle, going either way."""
        return TrackGoal(phase=float(rng.uniform(0.0, 2.0 * math.pi)), direction=float(rng.choice((-1.0, 1.0))))

    def observe(self, goal: TrackGoal, state: JointState) -> Vector:
        """Tip (3,), m, way to the point (3,), m, and the point's velocity (3,), m/s."""
        tip = self._body.tip(state.q)
        speed = goal.direction * 2.0 * math.pi / self._params.period_s * self._params.radius_m
        velocity = speed * np.array([0.0, -math.sin(goal.phase), math.cos(goal.phase)])
        return np.concatenate((tip, self._target(goal) - tip, velocity))

    def judge(self, goal: TrackGoal, state: JointState, action: Vector, previous: Vector) -> Judgement:
        """The class's reward; the point moves on. ``info``: ``distance_m`` from it."""
        p = self._params
        moved = replace(goal, phase=goal.phase + goal.direction * 2.0 * math.pi * self._dt_s / p.period_s)
        distance = float(np.linalg.norm(self._target(moved) - self._body.tip(state.q)))
        reward = -min(distance / p.scale_m, 3.0) - p.effort(action, previous)
        return Judgement(reward, EpisodeEnd.RUNNING, moved, {"distance_m": distance})

    def _target(self, goal: TrackGoal) -> Vector:
        circle = np.array([0.0, math.cos(goal.phase), math.sin(goal.phase)])
        return self._centre + self._params.radius_m * circle
