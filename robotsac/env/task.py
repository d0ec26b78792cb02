"""What a task is: reward, success, end of episode and reset targets, as pure functions of state.

A task holds parameters and no memory. Whatever an episode must remember (a target, how long the tip has been there) is
the task's *goal*, a frozen value that ``judge`` returns anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from robotsac.arm import JointState, Vector
from robotsac.config.base import Table
from robotsac.config.schema import RobotConfig, TaskConfig
from robotsac.contract import Channel
from robotsac.dynamics import RigidBody
from robotsac.errors import ConfigError, DriverUnavailable
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
    """See module docstring. Built by ``open_task`` as ``cls(robot, task_params, body, dt_s)``."""

    name: str
    channels: tuple[Channel, ...]

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

    def __call__(self, robot: RobotConfig, params: dict[str, Any], body: RigidBody, dt_s: float) -> Task:
        """Build the task.

        Args:
            robot: whose task it is.
            params: the keys of ``[task]`` that are the task's own, not validated yet.
            body: kinematics of the robot.
            dt_s: control period, s.

        Raises:
            ConfigError: a parameter is wrong.
        """
        ...


def open_task(config: TaskConfig, robot: RobotConfig, body: RigidBody) -> Task:
    """Load the task that ``[task]`` names.

    Raises:
        ConfigError: no such task, or its parameters are wrong.
        DriverUnavailable: its package does not import.
    """
    group = {point.name: point for point in entry_points(group="robotsac.tasks")}
    if config.name not in group:
        raise ConfigError(
            f"task.name: there is no task {config.name!r}", reason=f"installed tasks: {', '.join(sorted(group))}"
        )
    try:
        factory: TaskFactory = group[config.name].load()
    except ImportError as error:
        raise DriverUnavailable(f"task {config.name!r} cannot be loaded", reason=str(error)) from error
    return factory(robot, config.params(), body, 1.0 / robot.control_rate_hz)


def task_parameters(config: TaskConfig) -> dict[str, str]:
    """The parameters that shape reward and observation, by name, each value as JSON text."""
    shared = {"episode_s": config.episode_s, **config.params()}
    return {name: json.dumps(value, sort_keys=True, default=str) for name, value in sorted(shared.items())}


class EffortParams(Table):
    """The ``[task]`` parameters of a task that charges for effort; its other parameters go into a subclass."""

    action_cost: Annotated[float, Field(ge=0)] = 0.05
    rate_cost: Annotated[float, Field(ge=0)] = 0.05

    def effort(self, action: Vector, previous: Vector) -> float:
        """``action_cost``·mean(a²) + ``rate_cost``·mean((a − a')²): what torque and its jumps cost; both (n,)."""
        change = action - previous
        n = len(action)
        return (self.action_cost * float(action @ action) + self.rate_cost * float(change @ change)) / n


def uniform(rng: np.random.Generator, low: Vector, high: Vector) -> NDArray[np.float64]:
    """One point of a box."""
    return rng.uniform(low, high)
