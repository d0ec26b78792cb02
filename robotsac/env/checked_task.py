"""A task as everything else uses it: found by entry point, and held to what a task may do.

A task may be anybody's code. What it raises, and what it returns that no task may return, becomes a :class:`TaskError` that
names the task and the file to look into, before anything of it reaches a record or the arm.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from importlib.metadata import entry_points
from numbers import Real
from typing import Any, get_args

import numpy as np

from robotsac.arm import JointState, Vector
from robotsac.config.schema import EndName, RobotConfig, TaskConfig
from robotsac.contract import Channel
from robotsac.dynamics import RigidBody
from robotsac.env.foreign import RAISED, failed, look_at, source_of
from robotsac.env.task import Judgement, Task, TaskFactory
from robotsac.errors import ConfigError, DriverUnavailable, RobotsacError, TaskError
from robotsac.records import EpisodeEnd

REWARD_MAX = float(np.finfo(np.float32).max)
"""Records hold the reward as float32."""
REACH = "--set task.name=reach"
"""The option with a task that is always there."""
ENDS = (EpisodeEnd.RUNNING, EpisodeEnd.SUCCESS, EpisodeEnd.FAILURE)
HOME_AFTER = tuple(EpisodeEnd[name.upper()] for name in get_args(EndName))
"""What ``home_after`` may have."""


def open_task(config: TaskConfig, robot: RobotConfig, body: RigidBody) -> CheckedTask:
    """Load the task that ``[task]`` names.

    Raises:
        ConfigError: no such task, or its parameters are wrong.
        DriverUnavailable: its package does not import.
        TaskError: its code raises, or what it built is no task.
    """
    group = {point.name: point for point in entry_points(group="robotsac.tasks")}
    if config.name not in group:
        known = sorted(group)
        nearest = difflib.get_close_matches(config.name, known, n=1)
        raise ConfigError(
            f"task.name: there is no task {config.name!r}",
            reason=f"installed tasks: {', '.join(known)}",
            command=f"--set task.name={(nearest or known)[0]}",
        )
    try:
        factory: TaskFactory = group[config.name].load()
    except Exception as error:  # its modules are anybody's code
        raise DriverUnavailable(
            f"task {config.name!r} cannot be loaded",
            reason=f"{group[config.name].value}: {type(error).__name__}: {error}",
            command="--set task.name=reach",
        ) from error
    try:
        task = factory(robot, config.params(), body, 1.0 / robot.control_rate_hz, config.episode_s)
    except RobotsacError:
        raise
    except Exception as error:
        raise _failed(config.name, "__init__()", factory, error) from error
    return CheckedTask(config.name, task)


class CheckedTask:
    """A :class:`~robotsac.env.task.Task` around one. Its methods raise TaskError beside what the task raises of ours.

    Args:
        name: as in ``[task]``.
        task: anybody's.

    Raises:
        TaskError: it lacks ``channels`` or ``parameters``, or they or ``home_after`` are not what they must be.
    """

    def __init__(self, name: str, task: Task) -> None:
        self._task = task
        self.name = name
        try:
            self.channels: tuple[Channel, ...] = tuple(task.channels)
            self.parameters: dict[str, Any] = dict(task.parameters)
            json.dumps(self.parameters, allow_nan=False)
            self._size = sum(channel.size for channel in self.channels)
            home_after: Any = getattr(task, "home_after", ())
        except RobotsacError:
            raise
        except RAISED as error:
            raise _failed(name, "channels and parameters", task, error) from error
        if not isinstance(home_after, tuple) or not all(isinstance(end, EpisodeEnd) for end in home_after):
            raise self._wrong(f"home_after is {home_after!r}, not a tuple of EpisodeEnds")
        if wrong := [end.name for end in home_after if end not in HOME_AFTER]:
            known = ", ".join(end.name for end in HOME_AFTER)
            raise self._wrong(f"home_after has {wrong[0]}; it may have {known}")
        self.home_after: tuple[EpisodeEnd, ...] = home_after
        for channel in self.channels:
            if len(channel.scale) != channel.size or not all(0 < scale < math.inf for scale in channel.scale):
                raise self._wrong(f"channel {channel.name!r} of size {channel.size} has the scales {channel.scale}")

    def begin(self, rng: np.random.Generator, state: JointState) -> Any:
        """See :class:`~robotsac.env.task.Task`."""
        try:
            return self._task.begin(rng, state)
        except RobotsacError:
            raise
        except RAISED as error:
            raise _failed(self.name, "begin()", self._task, error) from error

    def observe(self, goal: Any, state: JointState) -> Vector:
        """See :class:`~robotsac.env.task.Task`."""
        try:
            observed = np.asarray(self._task.observe(goal, state), dtype=np.float64)
        except RobotsacError:
            raise
        except RAISED as error:
            raise _failed(self.name, "observe()", self._task, error) from error
        if observed.shape != (self._size,):
            raise self._wrong(f"observe() gave shape {observed.shape}, its channels have {(self._size,)}")
        if np.count_nonzero(np.isfinite(observed)) < self._size:  # .all() takes three times as long
            raise self._wrong(f"observe() gave {observed}, which is not finite")
        return observed

    def judge(self, goal: Any, state: JointState, action: Vector, previous: Vector) -> Judgement:
        """See :class:`~robotsac.env.task.Task`."""
        try:
            judgement = self._task.judge(goal, state, action, previous)
        except RobotsacError:
            raise
        except RAISED as error:
            raise _failed(self.name, "judge()", self._task, error) from error
        if not isinstance(judgement, Judgement):
            raise self._wrong(f"judge() gave a {type(judgement).__name__}, not a Judgement")
        # Said to be a float, an EpisodeEnd and a dict; nothing checked that.
        reward: Any = judgement.reward
        end: Any = judgement.end
        info: Any = judgement.info
        if not isinstance(reward, Real) or not abs(float(reward)) <= REWARD_MAX:
            raise self._wrong(
                f"judge() gave the reward {reward!r}, which is not a finite number within ±{REWARD_MAX:.3g}"
            )
        if not isinstance(end, EpisodeEnd) or end not in ENDS:
            raise self._wrong(f"judge() gave the end {end!r}; a task knows {', '.join(known.name for known in ENDS)}")
        if judgement.goal is None and goal is not None:
            raise self._wrong("judge() gave no goal; where it does not change, it is passed on")
        if not isinstance(info, Mapping):
            raise self._wrong(f"judge() gave a {type(info).__name__} as info, not a dict of numbers")
        return judgement

    def _wrong(self, what: str) -> TaskError:
        return TaskError(
            f"task {self.name!r}: {what}",
            reason="robotsac/env/task.py says what a task must give, and robotsac.testing.TaskContract checks it",
            command=look_at(source_of(self._task), REACH),
        )


def _failed(name: str, call: str, task: object, error: BaseException) -> TaskError:
    return failed(f"task {name!r}", call, error, source_of(task), REACH)
