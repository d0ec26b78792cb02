"""Exploration noise: drawn anew as often as asked, and on the arm held while the policy's action follows the state."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from robotsac.actor.contract import robot_contract
from robotsac.actor.episodes import EpisodeRunner
from robotsac.actor.held_noise import HeldNoise
from robotsac.config import Config, LearnConfig, load_config
from robotsac.config.schema import PolicyConfig
from robotsac.env.arm_env import ArmEnv
from robotsac.learner.export import PolicyExporter
from robotsac.learner.sac import SacState
from robotsac.policy.accept import accept
from robotsac.policy.runner import Policy

DT_S = 0.02
STEPS = 30


def drawn(hold_s: float, steps: int, size: int = 3) -> np.ndarray:
    noise = HeldNoise(hold_s, DT_S, np.random.default_rng(0))
    return np.array([noise.draw(size) for _ in range(steps)])


@pytest.mark.parametrize("hold_s", [0.0, 0.001, DT_S])
def test_without_a_hold_every_step_has_its_own_and_the_stream_is_the_generators(hold_s: float) -> None:
    expected = np.random.default_rng(0)
    made = drawn(hold_s, 50)
    np.testing.assert_array_equal(made, [expected.standard_normal(3, dtype=np.float32) for _ in range(50)])


@pytest.mark.parametrize(("hold_s", "steps"), [(0.04, 2), (0.1, 5), (0.11, 6), (1.0, 50)])
def test_noise_stays_for_whole_steps_and_is_then_drawn_anew(hold_s: float, steps: int) -> None:
    made = drawn(hold_s, 4 * steps)
    blocks = made.reshape(4, steps, 3)
    assert (blocks == blocks[:, :1]).all()
    assert len({tuple(block[0]) for block in blocks}) == 4


def test_held_noise_is_as_normal_as_any() -> None:
    values = drawn(0.1, 20_000)[::5, 0]
    # 4000 draws: standard errors 0.016 of the mean and 0.011 of σ.
    assert abs(values.mean()) < 0.07
    assert values.std() == pytest.approx(1.0, abs=0.05)


def test_renewing_draws_at_the_next_step_and_holds_that_for_its_whole_time() -> None:
    noise = HeldNoise(0.1, DT_S, np.random.default_rng(0))
    first = noise.draw(2).copy()
    noise.renew()
    after = [noise.draw(2).copy() for _ in range(6)]
    assert not np.array_equal(first, after[0])
    assert all(np.array_equal(after[0], value) for value in after[:5])
    assert not np.array_equal(after[0], after[5])


def test_a_policy_that_takes_another_size_gets_it_at_once() -> None:
    noise = HeldNoise(0.1, DT_S, np.random.default_rng(0))
    assert [noise.draw(2).shape, noise.draw(5).shape, noise.draw(5).shape] == [(2,), (5,), (5,)]


# --- on the arm --------------------------------------------------------------------------------------------------


def short_episodes() -> Config:
    return load_config("arm0-sim", overrides=[f"task.episode_s={STEPS * DT_S}"])


@pytest.fixture(scope="module")
def policy() -> Policy:
    """A policy whose action is its noise: a first policy, its mean near 0 everywhere."""
    torch.set_num_threads(1)
    contract, learn = robot_contract(short_episodes()), LearnConfig(hidden=(8,))
    state = SacState.create(learn, contract.obs_dim, contract.act_dim, 50, torch.device("cpu"))
    exporter = PolicyExporter(state.normaliser, state.actor, contract, "run", "digest")
    exporter.prepare()
    data = exporter.bundle(1, 1)
    return accept(data, contract, PolicyConfig(latency_max_ms=1000.0), sha256=hashlib.sha256(data).hexdigest())


class Fixed:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def swap(self) -> Policy:
        return self._policy


def actions(policy: Policy, episodes: int = 2, **options: float) -> list[np.ndarray]:
    """What the policy asked for, episode by episode."""
    env, kept = ArmEnv(short_episodes()), []
    runner = EpisodeRunner(
        env, Fixed(policy), lambda record: kept.append(record.copy()) or True, seed=0, random_hold_s=0.2, **options
    )
    env.start()
    try:
        for _ in range(episodes):
            runner.run(lambda: False)
    finally:
        env.close()
    records = np.stack(kept)
    return [records["action_asked"][records["episode"] == 1 + i][:-1] for i in range(episodes)]


def jumps(asked: np.ndarray) -> np.ndarray:
    """Steps before which the action changed by much more than the state can have changed it."""
    return np.flatnonzero(np.abs(np.diff(asked, axis=0)).max(axis=1) > 0.02) + 1


def test_an_arm_with_held_noise_jumps_once_in_a_while_and_at_the_start_of_an_episode(policy: Policy) -> None:
    first, second = actions(policy, noise_hold_s=0.16)
    # Eight steps of 20 ms, and again from the start of the second episode, though 30 is no multiple of 8.
    assert jumps(first).tolist() == [8, 16, 24]
    assert jumps(second).tolist() == [8, 16, 24]
    assert np.abs(second[0] - first[-1]).max() > 0.02


def test_an_arm_without_a_hold_jumps_at_every_step(policy: Policy) -> None:
    assert all(len(jumps(asked)) == STEPS - 1 for asked in actions(policy))


def test_an_evaluation_has_no_noise_to_hold(policy: Policy) -> None:
    (asked,) = actions(policy, episodes=1, noise_hold_s=0.16, deterministic=True)
    assert len(jumps(asked)) == 0
