"""Reach: bring the tip to a random point and keep it there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from robotsac.arm import ArmSpec, JointState, Vector
from robotsac.config.base import Finite, NotNegative, Positive
from robotsac.config.loading import validate
from robotsac.config.schema import RobotConfig
from robotsac.contract import Channel
from robotsac.dynamics import RigidBody
from robotsac.env.task import EffortParams, Judgement, uniform
from robotsac.errors import ConfigError
from robotsac.records import EpisodeEnd

DRAWS_MAX = 1000
# The enlarged view of the target's direction spans this many times `precise_m`.
NEAR_SPAN = 6.0
# A whole `hold_s` within tolerance is shown as 1 over this: what holding on is worth depends on it, what is to be done does not.
# Shown as 1, it drives policies off the target as it grows, and back when it is gone.
HELD_SPAN = 5.0


class ReachParams(EffortParams):
    """``[task]`` parameters of ``reach``."""

    tolerance_m: Positive = 0.02
    hold_s: NotNegative = 0.5
    # Targets are tip positions of random poses this far (share of the joint range) around home, never below the floor.
    spread: float = Field(default=0.3, gt=0, le=1)
    floor_m: Finite = 0.05
    reward_per_s: Positive = 5.0
    # Closeness is about 0 at this distance, and its logarithm bends at the other.
    far_m: Positive = 0.2
    precise_m: Positive = 0.01
    # Reward for each unit of closeness gained: a potential, so that it pays at once and changes no optimum.
    progress: NotNegative = 5.0
    # Success ends the episode; it pays as much as staying there for this long would.
    success_s: NotNegative = 0.6


@dataclass(frozen=True, slots=True)
class ReachGoal:
    """A target (3,), m, how far the tip is from it, m, and for how long it has been within tolerance, s."""

    target: Vector
    distance_m: float
    held_s: float = 0.0


class Reach:
    """Success: the tip within ``tolerance_m`` of the target for ``hold_s`` without a break.

    Closeness c(d) = 1 − ln(1 + (d/precise)²) / ln(1 + (far/precise)²) − d/far pulls at every scale: linearly from afar,
    logarithmically near the target (after Levine et al. 2016, section 5.2). The reward is its integral over time, less
    effort, plus ``progress`` times its gain, plus a bonus for success worth ``success_s`` of being there.
    """

    name = "reach"
    # What is missed at first is missed at the ends of the joints' ranges, where nothing can be learned but to leave them.
    home_after = (EpisodeEnd.TIME_LIMIT,)

    def __init__(
        self, robot: RobotConfig, params: dict[str, Any], body: RigidBody, dt_s: float, episode_s: float
    ) -> None:
        self._params = validate(ReachParams, params, "task reach")
        self.parameters = self._params.model_dump(mode="json")
        if self._params.hold_s >= episode_s:
            raise ConfigError(
                f"task.hold_s {self._params.hold_s:g} s must be below task.episode_s {episode_s:g} s",
                reason="the tip has to get there first and to stay for hold_s: no episode could succeed",
                command=f"--set task.episode_s={4 * self._params.hold_s:g}",
            )
        spec = ArmSpec.from_config(robot)
        half = self._params.spread * 0.5 * (spec.q_max - spec.q_min)
        self._low = np.maximum(spec.home - half, spec.q_min)
        self._high = np.minimum(spec.home + half, spec.q_max)
        self._body = body
        self._log_far = math.log1p((self._params.far_m / self._params.precise_m) ** 2)
        self._dt_s = dt_s
        self._last: tuple[JointState | None, Vector] = (None, np.zeros(3))
        far = (self._params.far_m,) * 3
        self._near_m = NEAR_SPAN * self._params.precise_m
        near = (self._near_m / 2,) * 3
        self.channels = (
            Channel("tip", 3, "m", (0.5, 0.5, 0.5)),
            Channel("to_target", 3, "m", far),
            # The last centimetres again, enlarged; cut off beyond, where the coarse channel tells enough.
            Channel("to_target_near", 3, "m", near),
            Channel("held", 1, "s", (HELD_SPAN * max(self._params.hold_s, dt_s),)),
        )

    def closeness(self, distance_m: float) -> float:
        """1 at the target, 0 at about ``far_m``/4, negative beyond."""
        p = self._params
        log_ratio = math.log1p((distance_m / p.precise_m) ** 2) / self._log_far
        return 1.0 - log_ratio - distance_m / p.far_m

    def begin(self, rng: np.random.Generator, state: JointState) -> ReachGoal:
        """A target drawn from the reachable poses around home, above the floor."""
        for _ in range(DRAWS_MAX):
            target = self._body.tip(uniform(rng, self._low, self._high))
            if target[2] >= self._params.floor_m:
                break
        return ReachGoal(target, self._distance(target, state))

    def observe(self, goal: ReachGoal, state: JointState) -> Vector:
        """Tip (3,), way to the target (3,), the same cut off close by (3,), all m; seconds within tolerance (1,)."""
        tip = self._tip(state)
        offset = goal.target - tip
        near = np.minimum(np.maximum(offset, -self._near_m), self._near_m)
        return np.concatenate((tip, offset, near, (goal.held_s,)))

    def judge(self, goal: ReachGoal, state: JointState, action: Vector, previous: Vector) -> Judgement:
        """The class's reward; SUCCESS after ``hold_s`` within tolerance. ``info``: ``distance_m`` from the target."""
        p = self._params
        distance = self._distance(goal.target, state)
        held_s = goal.held_s + self._dt_s if distance <= p.tolerance_m else 0.0
        end = EpisodeEnd.SUCCESS if held_s >= p.hold_s - 0.5 * self._dt_s else EpisodeEnd.RUNNING
        closeness = self.closeness(distance)
        gain = closeness - self.closeness(goal.distance_m)
        rate = closeness - p.effort(action, previous)
        reward = p.reward_per_s * rate * self._dt_s + p.progress * gain
        if end is EpisodeEnd.SUCCESS:
            reward += p.reward_per_s * p.success_s
        return Judgement(reward, end, ReachGoal(goal.target, distance, held_s), {"distance_m": distance})

    def _distance(self, target: Vector, state: JointState) -> float:
        return math.dist(target, self._tip(state))

    def _tip(self, state: JointState) -> Vector:
        """Judging and observing ask about the same state one after the other; states never change once made."""
        if self._last[0] is not state:
            self._last = (state, self._body.tip(state.q))
        return self._last[1]
