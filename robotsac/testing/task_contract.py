"""The conformance suite of tasks. A task's author subclasses :class:`TaskContract` and says how to make the task."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from robotsac.arm import ArmSpec, JointState
from robotsac.env.checked_task import CheckedTask
from robotsac.env.task import Task
from robotsac.records import EpisodeEnd

STEPS = 50


class TaskContract:
    """Subclass as ``Test…`` and give :meth:`make_task` and :meth:`make_spec`."""

    def make_task(self) -> Task:
        """The task."""
        raise NotImplementedError

    def make_spec(self) -> ArmSpec:
        """The arm it is for."""
        raise NotImplementedError

    @pytest.fixture
    def task(self) -> Task:
        """The task."""
        return self.make_task()

    def test_observation_has_the_length_of_its_channels_and_is_finite(self, task: Task) -> None:
        """And each channel has as many positive scales as entries."""
        state = self.state()
        observed = task.observe(task.begin(np.random.default_rng(0), state), state)
        assert observed.shape == (sum(channel.size for channel in task.channels),)
        assert np.isfinite(observed).all()
        for channel in task.channels:
            assert len(channel.scale) == channel.size
            assert all(scale > 0 for scale in channel.scale)

    def test_it_is_taken_as_it_is(self, task: Task) -> None:
        """By what checks every task before it is used."""
        CheckedTask(task.name, task)

    def test_every_parameter_is_told_in_plain_values(self, task: Task) -> None:
        """Names are text, values are JSON."""
        assert all(isinstance(name, str) for name in task.parameters)
        json.dumps(task.parameters, allow_nan=False)

    def test_the_same_seed_draws_the_same_goal(self, task: Task) -> None:
        """As far as ``observe`` tells."""
        state = self.state()
        one, two = (task.observe(task.begin(np.random.default_rng(7), state), state) for _ in range(2))
        np.testing.assert_array_equal(one, two)

    def test_judging_is_a_pure_function(self, task: Task) -> None:
        """The same step judged twice is judged alike, and the goal that was given stays as it was."""
        rng = np.random.default_rng(1)
        state = self.state()
        goal = task.begin(rng, state)
        before = copy.deepcopy(goal)
        action = rng.uniform(-1, 1, self.make_spec().n)
        one, two = (task.judge(goal, state, action, np.zeros_like(action)) for _ in range(2))
        assert one.reward == two.reward
        assert one.end is two.end
        assert repr(goal) == repr(before), "judge must return a new goal, not change the one it got"

    def test_rewards_are_finite_and_the_time_limit_is_not_the_tasks(self, task: Task) -> None:
        """Over random steps; ends are RUNNING, SUCCESS or FAILURE."""
        rng = np.random.default_rng(2)
        spec = self.make_spec()
        goal = task.begin(rng, self.state())
        previous = np.zeros(spec.n)
        for _ in range(STEPS):
            action = rng.uniform(-1, 1, spec.n)
            judgement = task.judge(goal, self.state(rng.uniform(spec.q_min, spec.q_max)), action, previous)
            assert np.isfinite(judgement.reward)
            assert judgement.end in (EpisodeEnd.RUNNING, EpisodeEnd.SUCCESS, EpisodeEnd.FAILURE)
            goal, previous = judgement.goal, action

    def state(self, q: np.ndarray | None = None) -> JointState:
        """A joint state at ``q`` (n,), rad, or at home; at rest."""
        spec = self.make_spec()
        zero = np.zeros(spec.n)
        return JointState(
            t_ns=0,
            seq=1,
            q=np.array(spec.home if q is None else q),
            dq=zero,
            tau=zero,
            tau_cmd=zero,
            temp_c=zero + 25.0,
            volt_v=zero + 12.0,
            fresh=np.ones(spec.n, dtype=np.bool_),
            faults=np.zeros(spec.n, dtype=np.uint16),
        )
