"""The ten bugs in the loop of ``train --sync``. What this is about: ``test_ten_bugs``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bugs import ALPHA, CPU, DISCOUNT, all_rows
from learner_world import ACT_DIM, OBS_DIM, settings

from robotsac.contract import Contract
from robotsac.learner.replay import Batch
from robotsac.learner.sync import Hooks, Plan, SyncLearning
from robotsac.learner.world import Outcome, Vector
from robotsac.records import EpisodeEnd, Transitions


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Steps:
    """Episodes of 4 steps that end in turn by TIME_LIMIT and FAILURE; nothing depends on the action.

    Observations are numbered, each another one, and the reward is ten times the number that its step led to.
    """

    obs_dim, act_dim = OBS_DIM, ACT_DIM
    contract: Contract | None = None

    def __init__(self) -> None:
        self.number, self.episode = -1, -1

    def reset(self, held_out: int | None = None) -> Vector:
        self.episode += 1
        return self._next()

    def step(self, action: Vector) -> Outcome:
        obs = self._next()
        end = (
            (EpisodeEnd.TIME_LIMIT, EpisodeEnd.FAILURE)[self.episode % 2]
            if self.number % 5 == 4
            else EpisodeEnd.RUNNING
        )
        return Outcome(obs, 10.0 * self.number, action, end, None)

    def random_action(self) -> Vector:
        return np.zeros(ACT_DIM, np.float32)

    def noise(self, size: int) -> Vector:
        return np.zeros(size, np.float32)

    def close(self) -> None: ...

    def _next(self) -> Vector:
        self.number += 1
        return np.full(OBS_DIM, self.number, np.float32)


def sync(steps: int = 40, control_rate_hz: float | None = None, **learn: object) -> SyncLearning:
    """Nothing is learned before 1000 transitions, unless asked for."""
    small: dict[str, object] = {"start_steps": 1000, "device": "cpu", "batch_size": 8} | learn
    return SyncLearning(settings(**small).learn, Plan(steps, 1000, 1), Steps(), Steps(), control_rate_hz, CPU)


def rows_of_run(learning: SyncLearning) -> Batch:
    """What the ring holds after it."""
    learning.run(Hooks())
    return all_rows(learning)


def seen_in_five_updates(learning: SyncLearning, loss: str) -> set[float]:
    """What ``loss`` was."""
    seen = set()
    for _ in range(5):
        learning.update()
        evaluation = learning.evaluate(Hooks())
        assert evaluation is not None
        seen.add(evaluation.losses[loss])
    return seen


@pytest.mark.parametrize("n_step", [1, 2])
def test_bug_01_in_the_sync_loop_only_an_end_of_the_task_ends_the_bootstrap(n_step: int) -> None:
    """A world that says how its episode ended is of no use to a replay that asks only whether it did."""
    rows = rows_of_run(sync(n_step=n_step, discount=DISCOUNT))
    # Numbers 5 to 9 are the first episode that fails: its last step, or two, lead to number 9.
    assert rows.terminal.tolist() == [float(number % 10 == 9) for number in rows.next_obs[:, 0].tolist()]
    assert 0.0 < float(rows.terminal.mean()) < 0.6


@pytest.mark.parametrize(("learn", "rate_hz"), [({"discount": DISCOUNT}, None), ({"horizon_s": 0.5}, 20.0)])
def test_bug_07_in_the_sync_loop_rewards_between_are_discounted(
    learn: dict[str, object], rate_hz: float | None
) -> None:
    """By the γ that is learned with, whichever way it is given."""
    rows = rows_of_run(sync(n_step=3, control_rate_hz=rate_hz, **learn))
    assert rows.steps is not None and set(rows.steps.tolist()) == {1.0, 2.0, 3.0}
    for first, steps, reward in zip(rows.obs[:, 0].tolist(), rows.steps.tolist(), rows.reward.tolist(), strict=True):
        wanted = sum(DISCOUNT**j * 10.0 * (first + j + 1) for j in range(int(steps)))
        assert reward == pytest.approx(wanted, rel=1e-6)


def test_bug_07_in_the_sync_loop_every_update_has_its_own_noise() -> None:
    """One noise for all updates is one action per state for ever; nothing else differs between these updates."""
    learning = sync(critic_lr=1e-12, actor_lr=1e-12, temperature=ALPHA, discount=DISCOUNT)
    nothing = np.zeros(1, np.float32)
    still, action = np.zeros((1, OBS_DIM), np.float32), np.zeros((1, ACT_DIM), np.float32)
    learning.replay.append(Transitions(still, action, nothing, still, nothing))
    assert len(seen_in_five_updates(learning, "entropy")) == 5


def test_bug_07_in_the_sync_loop_every_update_has_its_own_batch() -> None:
    """One batch for all updates is less data than it is counted as."""
    learning = sync(critic_lr=1e-12, actor_lr=1e-12, temperature=ALPHA, discount=DISCOUNT)
    learning.run(Hooks())
    assert len(seen_in_five_updates(learning, "q")) == 5


def test_bug_09_in_the_sync_loop_the_policy_acts_on_what_it_was_trained_on() -> None:
    """Raw observations to act, normalised ones to learn: two policies, one of them never trained."""
    learning, plain = sync(discount=DISCOUNT), sync(discount=DISCOUNT)
    learning.state.normaliser.mean.fill_(2.0)
    learning.state.normaliser.std.fill_(4.0)
    obs, noise = np.array([10.0, -6.0, 2.5], np.float32), np.full(ACT_DIM, 0.3, np.float32)
    assert learning.action(obs, noise).tolist() == plain.action((obs - 2.0) / 4.0, noise).tolist()


def test_bug_09_in_the_sync_loop_statistics_are_those_of_fresh_steps_and_nothing_else_moves_them() -> None:
    """Updates and evaluations see observations again: counted there, policy and critics chase their own replay."""
    learning = sync(40, start_steps=10, normalise_obs=True, discount=DISCOUNT)
    obs = rows_of_run(learning).obs
    assert (learning.observed.count, len(obs)) == (40, 40) and learning.state.updates > 0
    wanted = learning.state.normaliser.mean.tolist(), learning.state.normaliser.std.tolist()
    assert wanted == (pytest.approx(obs.mean(dim=0).tolist()), pytest.approx(obs.std(dim=0, correction=0).tolist()))
    for _ in range(1000):
        learning.update()
    learning.evaluate(Hooks())
    assert learning.observed.count == 40
    assert (learning.state.normaliser.mean.tolist(), learning.state.normaliser.std.tolist()) == wanted
