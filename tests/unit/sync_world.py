"""A world for ``train --sync`` whose every number is known, and runs in it."""

from __future__ import annotations

import numpy as np
import torch
from learner_world import PLAIN

from robotsac.config import LearnConfig
from robotsac.contract import Contract
from robotsac.learner.sync import Hooks, SyncLearning
from robotsac.learner.sync_progress import Evaluation, Plan
from robotsac.learner.world import Outcome
from robotsac.records import EpisodeEnd

CPU = torch.device("cpu")
RANDOM, POLICY_NOISE = 0.25, 0.5


class Ladder:
    """Episodes of 5 steps that end in turn by FAILURE, TIME_LIMIT, FAULT; the observation says which episode and step.

    The reward is 10·step; ``asked`` are the actions of all steps, ``held_out`` the numbers that ``reset`` was given.
    """

    ENDS = (EpisodeEnd.FAILURE, EpisodeEnd.TIME_LIMIT, EpisodeEnd.FAULT)
    obs_dim, act_dim = 2, 1
    contract: Contract | None = None

    def __init__(self) -> None:
        self.episode, self.at = -1, 0
        self.asked: list[float] = []
        self.held_out: list[int | None] = []

    def reset(self, held_out: int | None = None):
        self.episode, self.at = self.episode + 1, 0
        self.held_out.append(held_out)
        return self._obs()

    def step(self, action) -> Outcome:
        self.asked.append(float(action[0]))
        self.at += 1
        end = self.ENDS[self.episode % 3] if self.at == 5 else EpisodeEnd.RUNNING
        return Outcome(self._obs(), 10.0 * self.at, 0.5 * action, end, end is EpisodeEnd.TIME_LIMIT)

    def random_action(self):
        return np.full(1, RANDOM, np.float32)

    def noise(self, size: int):
        return np.full(size, POLICY_NOISE, np.float32)

    def generators(self):
        return {}

    def close(self) -> None:
        pass

    def _obs(self):
        return np.array([self.episode, self.at], np.float32)


def learn_config(**changes: object) -> LearnConfig:
    small: dict[str, object] = {"hidden": (8,), "batch_size": 8, "start_steps": 20, "discount": 0.9, "device": "cpu"}
    return LearnConfig.model_validate(small | PLAIN | changes)


def ladder(steps: int, eval_every: int = 1000, eval_episodes: int = 3, **changes: object) -> SyncLearning:
    return SyncLearning(learn_config(**changes), Plan(steps, eval_every, eval_episodes), Ladder(), Ladder(), None, CPU)


def run(learning: SyncLearning) -> list[Evaluation]:
    found: list[Evaluation] = []
    learning.run(Hooks(on_evaluation=found.append))
    return found
