"""The ten bugs, seven and eight: actions, discounts and data. What this is about: ``test_ten_bugs``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from bugs import (
    ALPHA,
    CPU,
    DISCOUNT,
    all_rows,
    known,
    linear,
    policy_by_hand,
    q_by_hand,
    run_arm,
    set_q,
    short_episodes,
    some_batch,
    some_noise,
    targets_by_hand,
)  # fmt: skip
from learner_world import ACT_DIM, OBS_DIM, RATE_HZ, batches, contract, episode, noisy_run, settings, write_log

from robotsac.env.arm_env import ArmEnv
from robotsac.learner.actor_step import update_actor_and_temperature
from robotsac.learner.algorithm import Noise, NoiseShape
from robotsac.learner.assembler import Assembler
from robotsac.learner.backends.backend import one_by_one
from robotsac.learner.learning import Learning
from robotsac.learner.replay import Batch, Replay
from robotsac.learner.replay_log import LoggedBatch, ReplayLog
from robotsac.learner.sac import soft_target
from robotsac.learner.sac_v1 import SacV1State, update_value
from robotsac.records import EpisodeEnd, Records, Transitions, transitions


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def env() -> Iterator[ArmEnv]:
    with short_episodes() as env:
        yield env


def absorbed(run: Records, **learn: object) -> Learning:
    learning = Learning(settings(**learn), contract(), CPU)
    learning.absorb(batches(run, 13))
    return learning


# --- 7: the wrong action or discount in the backup ---------------------------------------------------------------


def test_bug_07_the_target_asks_q_about_a_fresh_action_at_the_next_state() -> None:
    """The replay's action there makes Q the value of what was done, not of what the policy would do."""
    state, batch = known(), some_batch()
    set_q(state.target, [[0.0] * 3 + [1.0, 2.0, 0.0]] * 2)
    noise = some_noise(state, len(batch))
    got = soft_target(state, batch, batch.next_obs, noise, torch.tensor(ALPHA))
    assert got.tolist() == pytest.approx(targets_by_hand(state, batch, noise), rel=1e-5)


def test_bug_07_the_actor_is_judged_by_its_own_fresh_action() -> None:
    """And by the noise that was drawn for it."""
    state, batch = known(), some_batch()
    noise = some_noise(state, len(batch))
    drawn = [policy_by_hand(state, o, z) for o, z in zip(batch.obs, noise.action, strict=True)]
    value = [min(q_by_hand(state.critic, o, a)) for o, (a, _) in zip(batch.obs, drawn, strict=True)]
    loss = np.mean([ALPHA * log_prob - v for (_, log_prob), v in zip(drawn, value, strict=True)])
    metrics = update_actor_and_temperature(state, batch.obs, batch.next_obs, noise, torch.tensor(ALPHA))
    assert float(metrics["actor_loss"]) == pytest.approx(loss, rel=1e-5)


def test_bug_07_v_is_learned_at_a_fresh_action_too() -> None:
    """SAC v1's V at the replay's action is the value of an old policy."""
    state = SacV1State.create(settings(**linear(variant="sac_v1")).learn, OBS_DIM, ACT_DIM, RATE_HZ, CPU)
    model = known()
    state.critic.load_state_dict(model.critic.state_dict())
    state.actor.load_state_dict(model.actor.state_dict())
    set_q(state.value, [[0.5, -0.2, 0.3, 0.7]])
    batch, noise = some_batch(), some_noise(model, 6)
    wanted = []
    for obs, drawn in zip(batch.obs, noise.next_action, strict=True):
        action, log_prob = policy_by_hand(model, obs, drawn)
        wanted.append(min(q_by_hand(state.critic, obs, action)) - ALPHA * log_prob)
    off = [q_by_hand(state.value, obs, [])[0] - v for obs, v in zip(batch.obs, wanted, strict=True)]
    loss = update_value(state, batch.obs, noise, torch.tensor(ALPHA))["value_loss"]
    assert float(loss) == pytest.approx(0.5 * np.square(off).mean(), rel=1e-5)


def test_bug_07_every_update_has_its_own_noise_and_its_own_batch() -> None:
    """One batch for all updates of a step, or one noise for both actions, is less data than it is counted as."""
    noise = NoiseShape(ACT_DIM).draw(1000, torch.Generator().manual_seed(0))
    assert abs(float(torch.corrcoef(torch.stack((noise.action.ravel(), noise.next_action.ravel())))[0, 1])) < 0.1
    still = {"critic_lr": 1e-12, "actor_lr": 1e-12, "batch_size": 8, "temperature": ALPHA}
    one_transition = absorbed(episode(1, EpisodeEnd.TIME_LIMIT), **still)
    assert len({float(one_transition.update()["entropy"]) for _ in range(5)}) == 5
    many = absorbed(noisy_run(200, seed=1), **still)
    assert len({float(many.update()["q"]) for _ in range(5)}) == 5
    drawn: list[tuple[Batch, Noise]] = []
    many.backend.backend.updates = lambda *all_of: drawn.extend(one_by_one(*all_of)) or {}  # type: ignore[method-assign]
    many.update(3)
    assert len({float(batch.reward.sum()) for batch, _ in drawn}) == len({float(n.action.sum()) for _, n in drawn}) == 3


@pytest.mark.parametrize(("learn", "discount"), [({"horizon_s": 1.0}, 0.98), ({"discount": 0.9993}, 0.9993)])
def test_bug_07_the_discount_that_acts_is_the_one_that_was_asked_for(learn: dict[str, object], discount: float) -> None:
    """Read back where it acts, in float32: half precision makes 0.9993 a 1."""
    state = known(**{"discount": "from_horizon"} | learn)
    set_q(state.target, [[0.0] * 5 + [1.0]] * 2)
    nothing = torch.zeros(1)
    batch = Batch(torch.zeros(1, OBS_DIM), torch.zeros(1, ACT_DIM), nothing, torch.zeros(1, OBS_DIM), nothing)
    y = soft_target(state, batch, batch.next_obs, some_noise(state, 1), torch.tensor(0.0))
    assert float(y.detach()) == pytest.approx(discount, abs=1e-6)


def test_bug_07_n_step_returns_are_those_of_a_loop_and_cross_no_episode() -> None:
    """γ^n missing, or rewards of the next episode in the window, as when a ring is full and slots are neighbours."""
    run = noisy_run(120, seed=4, episode_steps=7)
    rows = all_rows(absorbed(run, n_step=3, smooth_time=0.1, replay_capacity=50, discount=DISCOUNT))
    assert len(rows) == 50 and rows.steps is not None and rows.after is not None
    start = {float(obs): i for i, obs in enumerate(run["obs"][:, 0])}
    for b in range(len(rows)):
        first = start[float(rows.obs[b, 0])]
        steps, total = 0, 0.0
        while steps < 3 and run["end"][first + steps] == EpisodeEnd.RUNNING:
            total += DISCOUNT**steps * float(run["reward"][first + steps])
            steps += 1
        assert float(rows.steps[b]) == steps
        assert float(rows.reward[b]) == pytest.approx(total, abs=1e-6)
        assert rows.next_obs[b].tolist() == run["obs"][first + steps].tolist()
        assert rows.after[b].tolist() == run["obs"][first + 1].tolist()
        assert float(rows.terminal[b]) == (run["end"][first + steps] == EpisodeEnd.SUCCESS)
    state, noise = known(), some_noise(known(), len(rows))
    got = soft_target(state, rows, rows.next_obs, noise, torch.tensor(ALPHA))
    assert got.tolist() == pytest.approx(targets_by_hand(state, rows, noise), rel=1e-4)


# --- 8: the replay -----------------------------------------------------------------------------------------------


def described(first: int, count: int) -> Transitions:
    """Transitions that say themselves which they are."""
    i = np.arange(first, first + count, dtype=np.float32)
    obs, action = np.stack([i] * OBS_DIM, axis=1), np.stack([i + 0.5] * ACT_DIM, axis=1)
    return Transitions(obs, action, 10 * i, obs + 1, (i % 2).astype(np.float32))


@pytest.mark.parametrize("cut", [1, 3, 5, 7, 20])
def test_bug_08_a_ring_of_seven_holds_the_last_seven_of_fifty_each_whole(cut: int) -> None:
    """Off by one where it wraps, or never sampling the newest, it learns from rows made of two transitions, or of none."""
    ring = Replay(7, OBS_DIM, ACT_DIM, CPU, torch.Generator().manual_seed(0))
    for first in range(0, 50, cut):
        ring.append(described(first, min(cut, 50 - first)))
        seen, oldest = ring.sample(400), max(0, ring.total - 7)
        i = seen.obs[:, 0]
        assert set(i.tolist()) == set(range(oldest, ring.total))
        assert torch.equal(seen.action[:, 1], i + 0.5) and torch.equal(seen.reward, 10 * i)
        assert torch.equal(seen.next_obs[:, 2], i + 1) and torch.equal(seen.terminal, i % 2)


def test_bug_08_nothing_sampled_or_stored_changes_afterwards() -> None:
    """Views of arrays that the robot or the ring writes again turn old transitions into new ones."""
    ring, made = Replay(4, OBS_DIM, ACT_DIM, CPU, torch.Generator().manual_seed(0)), described(0, 4)
    ring.append(made)
    made.obs[:] = 99.0
    batch = ring.sample(16)
    obs, reward = batch.obs.clone(), batch.reward.clone()
    assert set(obs[:, 0].tolist()) == {0.0, 1.0, 2.0, 3.0}
    assert torch.equal(reward, 10 * obs[:, 0])
    ring.append(described(50, 4))
    assert torch.equal(batch.obs, obs) and torch.equal(batch.reward, reward)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("episode_steps", [1, 3, 40])
def test_bug_08_what_is_stored_once_is_what_each_transition_saw(n_step: int, episode_steps: int) -> None:
    """Two that share an observation must both find it, wherever it wraps, moves or makes room, and no third one."""
    run = noisy_run(700, seed=4, episode_steps=episode_steps)
    learning = Learning(settings(n_step=n_step, smooth_time=0.1, replay_capacity=100), contract(), CPU)
    made, _ = Assembler(n_step, DISCOUNT).add(LoggedBatch(1, "r", "b", run))
    for first in range(0, len(run), 23):
        learning.absorb([LoggedBatch(1, "r", "b", run[first : first + 23])])
        kept = learning.replay.rows(learning.replay.oldest, learning.replay.total)
        at = slice(learning.replay.oldest, learning.replay.total)
        assert np.array_equal(kept[:, :OBS_DIM], made.obs[at])
        next_obs = slice(OBS_DIM + ACT_DIM + 1, 2 * OBS_DIM + ACT_DIM + 1)
        assert np.array_equal(kept[:, next_obs], made.next_obs[at])
        if n_step > 1:
            assert made.after is not None and np.array_equal(kept[:, -OBS_DIM:], made.after[at])


def test_bug_08_the_log_gives_back_what_went_in(tmp_path: Path) -> None:
    """However batches were cut, and although the arrays they came in are written again."""
    run = noisy_run(100, seed=3)
    whole, read = Learning(settings(), contract(), CPU), Learning(settings(), contract(), CPU)
    whole.absorb([LoggedBatch(1, "r", "b", run)])
    write_log(tmp_path / "replay.db", run, size=7)
    with ReplayLog(tmp_path / "replay.db", read_only=True) as log:
        for batch in log.read_after(0, 1000):
            records = batch.records.copy()
            read.absorb([LoggedBatch(batch.row, batch.robot, batch.boot, records)])
            records["obs"] = 99.0
    for name in ("obs", "action", "reward", "next_obs", "terminal"):
        assert torch.equal(getattr(all_rows(whole), name), getattr(all_rows(read), name))


def test_bug_08_no_transition_bridges_lost_records() -> None:
    """Neighbours in memory are not neighbours in time."""
    run = np.delete(noisy_run(60, seed=3), [4, 5, 30])
    led_to = {float(one["obs"][0]): other for one, other in itertools.pairwise(run) if other["seq"] == one["seq"] + 1}
    rows = all_rows(absorbed(run))
    assert len(rows) == 60 - 5
    for obs, next_obs in zip(rows.obs, rows.next_obs, strict=True):
        assert next_obs.tolist() == led_to[float(obs[0])]["obs"].tolist()


def test_bug_08_on_the_arm_each_observation_is_followed_by_the_one_its_action_led_to(env: ArmEnv) -> None:
    """One record that is reused, pushed late or with the observation after it, shifts all of experience by a step."""
    run = run_arm(env)
    n, made = run.q_after.shape[1], transitions(run.records)
    first = [0, len(run.q_after) // 2]
    before = np.concatenate([run.q_before[:1], run.q_after[:-1]])
    before[first] = run.q_before
    np.testing.assert_allclose(made.obs[:, :n] * math.pi, before, atol=1e-5)
    np.testing.assert_allclose(made.next_obs[:, :n] * math.pi, run.q_after, atol=1e-5)


def test_bug_09_statistics_are_those_of_what_the_log_brought_however_it_was_cut() -> None:
    """Counted at each update instead, what is drawn often would count often, and a resumed run would count it twice."""
    run = noisy_run(120, seed=6)
    learning = absorbed(run, normalise_obs=True)
    for _ in range(20):
        learning.update()
    obs = transitions(run).obs.astype(np.float64)
    assert learning.observed.count == len(obs) > 80
    np.testing.assert_allclose(learning.state.normaliser.mean, obs.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(learning.state.normaliser.std, obs.std(axis=0), rtol=1e-5)
    assert absorbed(run).state.normaliser.std.tolist() == [1.0] * OBS_DIM, "only where it is asked for"
