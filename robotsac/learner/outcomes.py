"""From what steps of a world led to, to the transitions that the replay keeps."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from robotsac.learner.n_step import n_step_transitions
from robotsac.learner.world import Outcome, Vector
from robotsac.records import EpisodeEnd, Flag, Transitions, record_dtype


class Joiner(Protocol):
    """Takes the steps of a world in order."""

    def add(self, obs: Vector, outcome: Outcome) -> Transitions | None:
        """The transitions that the step from ``obs`` (obs_dim,) to ``outcome`` completes, if any."""
        ...


def joiner_of(n_step: int, discount: float, obs_dim: int, act_dim: int) -> Joiner:
    """What joins ``n_step`` steps, with γ = ``discount`` per step."""
    return SingleSteps() if n_step == 1 else SeveralSteps(n_step, discount, obs_dim, act_dim)


class SingleSteps:
    """Each step is a transition, at once; one that ended in a FAULT is none."""

    def add(self, obs: Vector, outcome: Outcome) -> Transitions | None:
        """See :class:`Joiner`."""
        if outcome.end >= EpisodeEnd.FAULT:
            return None
        return Transitions(
            obs=obs[None],
            action=outcome.applied[None],
            reward=np.array([outcome.reward], dtype=np.float32),
            next_obs=outcome.obs[None],
            terminal=np.array([outcome.end.terminated], dtype=np.float32),
        )


class SeveralSteps:
    """Up to n steps make a transition (``n_step``): steps become records, as those of a robot are.

    Args:
        n_step: n > 1.
        discount: γ per control step.
        obs_dim, act_dim: lengths of observation and action.
    """

    def __init__(self, n_step: int, discount: float, obs_dim: int, act_dim: int) -> None:
        self._n_step, self._discount = n_step, discount
        self._empty = np.zeros(0, record_dtype(obs_dim, act_dim))
        # The last record is the state that the world is in: it gets its action and reward with the next step.
        self._open = self._empty
        self._seq = 0

    def add(self, obs: Vector, outcome: Outcome) -> Transitions | None:
        """See :class:`Joiner`."""
        both = np.zeros(2, self._empty.dtype)
        both["seq"] = self._seq, self._seq + 1
        both["obs"] = obs, outcome.obs
        both["reward"][0] = outcome.reward
        both["action_applied"][0] = outcome.applied
        both["end"][1] = outcome.end
        self._seq += 1
        records = np.concatenate((self._open[:-1], both))
        if outcome.end is EpisodeEnd.RUNNING:
            made, self._open = n_step_transitions(records, self._n_step, self._discount)
        else:
            records["flags"][-1] = Flag.FINAL
            made, _ = n_step_transitions(records, self._n_step, self._discount)
            self._open = self._empty
        return made if len(made) else None
