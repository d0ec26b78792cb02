"""What a run of ``train --sync`` is to do and how it stands: what an evaluation found, and where the time went."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, and how often to look: all in control steps, but for the episodes of an evaluation."""

    steps: int
    eval_every: int
    eval_episodes: int


@dataclass(slots=True)
class Spent:
    """Wall time by what it went into, s.

    On a GPU updates go on behind the loop, and the next thing that waits for them, acting, is charged with the wait.
    """

    act: float = 0.0
    world: float = 0.0
    update: float = 0.0
    evaluate: float = 0.0

    @property
    def training(self) -> float:
        """All but evaluating."""
        return self.act + self.world + self.update


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation: undiscounted returns of the policy without noise, and how training stood.

    ``action_rate`` is as in :class:`~robotsac.action_rate.ActionRate`.
    """

    env_steps: int
    updates: int
    episodes: int
    wall_s: float
    seed: int
    returns: tuple[float, ...]
    success_rate: float | None
    episode_steps: float
    action_rate: float | None
    losses: dict[str, float]
    spent: dict[str, float]

    def line(self) -> dict[str, object]:
        """As it stands in ``metrics.jsonl``; ``return_std`` is the sample standard deviation over its episodes."""
        found = np.asarray(self.returns)
        return {
            "kind": "evaluation",
            "env_steps": self.env_steps,
            "updates": self.updates,
            "episodes": self.episodes,
            "wall_s": round(self.wall_s, 2),
            "seed": self.seed,
            "return_mean": float(found.mean()),
            "return_std": float(found.std(ddof=1)) if len(found) > 1 else 0.0,
            "returns": list(self.returns),
            "success_rate": self.success_rate,
            "episode_steps": self.episode_steps,
            "action_rate": self.action_rate,
            **self.losses,
            "spent_s": {name: round(value, 2) for name, value in self.spent.items()},
        }
