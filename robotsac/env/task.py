"""What a task is: reward, success, end of episode and reset targets, as pure functions of state.

A task holds parameters and no memory. Whatever an episode must remember (a target, how long the tip has been there) is
the task's *goal*, a frozen value that ``judge`` returns anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robotsac.arm import JointState, Vector
from robotsac.config.base import NotNegative, Table
from robotsac.config.schema import RobotConfig, TaskConfig
from robotsac.contract import Channel
from robotsac.dynamics import RigidBody
from robotsac.records import EpisodeEnd


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a task says about one step.

    Attributes:
        reward: of the step.
        end: RUNNING, SUCCESS or FAILURE; the time limit is the environment's.
        goal: the goal as it stands now.
        info: numbers worth logging.
    """

    reward: float
    end: EpisodeEnd
    goal: Any
    info: dict[str, float]


class Task(Protocol):
    """See module docstring. Built by a :class:`TaskFactory`, through ``robotsac.env.checked_task.open_task``.

    Attributes:
        name: as in ``[task]``.
        channels: the task's part of the observation.
        parameters: every parameter of the task's own, by name, those left at their defaults included; plain values. They go
            into the contract, so that a policy never meets another reward or end than it was trained for.
        home_after: a tuple of ends after which the arm goes home before the next episode, unless ``task.home_after`` says
            otherwise. Not declared below, for it may be left out: then there are none.
    """

    name: str
    channels: tuple[Channel, ...]
    parameters: dict[str, Any]

    def begin(self, rng: np.random.Generator, state: JointState) -> Any:
        """A new goal for an episode that starts in ``state``."""
        ...

    def observe(self, goal: Any, state: JointState) -> Vector:
        """The task's part of the observation, SI units, one number per channel entry; scaling is the codec's."""
        ...

    def judge(self, goal: Any, state: JointState, action: Vector, previous: Vector) -> Judgement:
        """Judge the step that led to ``state`` by the applied ``action`` (n,), after the applied ``previous`` one."""
        ...


class TaskFactory(Protocol):
    """What an entry point of group ``robotsac.tasks`` must be."""

    def __call__(
        self, robot: RobotConfig, params: dict[str, Any], body: RigidBody, dt_s: float, episode_s: float
    ) -> Task:
        """Build the task.

        Args:
            robot: whose task it is.
            params: the keys of ``[task]`` that are the task's own, not validated yet.
            body: kinematics of the robot.
            dt_s: control period, s.
            episode_s: time limit of an episode, s.

        Raises:
            ConfigError: a parameter is wrong.
        """
        ...


def task_parameters(config: TaskConfig, task: Task) -> dict[str, str]:
    """Every parameter that shapes reward, observation and end, by name, each value as JSON text.

    Of what all tasks share that is ``episode_s``; the history has a field of its own in the contract, and where an episode
    begins (``home_every_episodes``, ``home_after``, ``seed``) changes nothing of what a policy sees in a state or is paid
    for it.
    """
    shaping = {"episode_s": config.episode_s, **task.parameters}
    return {name: json.dumps(value, sort_keys=True) for name, value in sorted(shaping.items())}


class EffortParams(Table):
    """The ``[task]`` parameters of a task that charges for effort; its other parameters go into a subclass."""

    action_cost: NotNegative = 0.05
    rate_cost: NotNegative = 0.05

    def effort(self, action: Vector, previous: Vector) -> float:
        """``action_cost``·mean(a²) + ``rate_cost``·mean((a − a')²): what torque and its jumps cost; both (n,)."""
        change = action - previous
        n = len(action)
        return (self.action_cost * float(action @ action) + self.rate_cost * float(change @ change)) / n


def uniform(rng: np.random.Generator, low: Vector, high: Vector) -> NDArray[np.float64]:
    """One point of a box."""
    return rng.uniform(low, high)
