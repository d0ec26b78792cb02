"""What ``train --sync`` learns in: an environment in the same process, and nothing of its libraries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robotsac.contract import Contract
from robotsac.records import EpisodeEnd

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Seeds:
    """Of what is random in a world: its episodes, its random actions, the noise of the policy in it."""

    episodes: int
    random_action: int
    noise: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step led to.

    Attributes:
        obs: (obs_dim,) the observation after the step, also the last one of an episode; nobody else's array.
        reward: of the step.
        applied: (act_dim,) the action that was carried out, in [-1, 1].
        end: how the episode stands now. Terminated: the next state has no value; truncated: it has; FAULT: what is
            beyond is unknown, and the step is no evidence.
        success: whether the episode stands as a success; ``None`` where the environment knows no such thing.
    """

    obs: Vector
    reward: float
    applied: Vector
    end: EpisodeEnd
    success: bool | None


class World(Protocol):
    """One environment, one episode at a time. Actions are in [-1, 1] per dimension, whatever the units behind them."""

    @property
    def contract(self) -> Contract | None:
        """Of an arm, what observations and actions mean; ``None`` where nobody has written it down."""
        ...

    @property
    def obs_dim(self) -> int:
        """Length of the observation."""
        ...

    @property
    def act_dim(self) -> int:
        """Length of the action."""
        ...

    def reset(self, held_out: int | None = None) -> Vector:
        """Begin an episode; the observation (obs_dim,).

        Args:
            held_out: number of one of the episodes that evaluate: with the same number, the same beginning. Without
                one, the next of a seeded sequence.
        """
        ...

    def step(self, action: Vector) -> Outcome:
        """Carry out ``action`` (act_dim,) in [-1, 1]."""
        ...

    def random_action(self) -> Vector:
        """An action (act_dim,) that explores, for as long as there is no policy."""
        ...

    def noise(self, size: int) -> Vector:
        """Standard normal numbers (size,) for the policy at this step."""
        ...

    def generators(self) -> Mapping[str, np.random.Generator]:
        """What random actions and noise are drawn from, by name: a checkpoint keeps their states."""
        ...

    def close(self) -> None:
        """Let go of what it holds. Idempotent."""
        ...
