"""Many critics: the random subset (REDQ), dropout (DroQ), the delayed actor; all of it a function of the noise."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from algorithm_world import changed, noise_for, some_batch, weights
from learner_world import ACT_DIM, OBS_DIM, RATE_HZ, settings
from torch import Tensor

from robotsac.learner.actor_loss import actor_loss
from robotsac.learner.algorithm import Noise, NoiseShape, update
from robotsac.learner.critic import critic_loss
from robotsac.learner.replay import Batch
from robotsac.learner.sac import SacState, soft_target

CPU = torch.device("cpu")
REDQ = {"critics": 5, "critic_subset": 2, "updates_per_step": 20.0, "actor_delay": 20}
DROQ = {"critic_dropout": 0.25, "updates_per_step": 20.0, "actor_delay": 20}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def fresh(**learn: object) -> SacState:
    return SacState.create(settings(**learn).learn, OBS_DIM, ACT_DIM, RATE_HZ, CPU)


# --- the subset --------------------------------------------------------------------------------------------------


def test_the_target_is_the_minimum_over_the_chosen_critics_alone() -> None:
    state, batch, noise = fresh(**REDQ, horizon_s=10 / RATE_HZ), some_batch(), noise_for(fresh(**REDQ))
    alpha = torch.tensor(0.2)
    with torch.no_grad():
        for part in state.target.tensors:
            part.add_(torch.linspace(-0.1, 0.1, 5).view(5, *[1] * (part.dim() - 1)))  # five different critics
        next_action, log_prob = state.actor.sample(batch.next_obs, noise.next_action)
        q = state.target(batch.next_obs, next_action)
    for chosen in ([3, 1], [0, 4], [2, 0]):
        noise = Noise(noise.next_action, noise.action, subset=torch.tensor(chosen))
        with torch.no_grad():
            target = soft_target(state, batch, batch.next_obs, noise, alpha)
        by_hand = [
            float(batch.reward[b]) + 0.9 * (min(float(q[i, b]) for i in chosen) - 0.2 * float(log_prob[b]))
            for b in range(8)
        ]
        assert target.tolist() == pytest.approx(by_hand, abs=1e-5)


def test_all_critics_learn_from_the_one_target_and_the_actor_follows_their_mean() -> None:
    state, batch = fresh(**REDQ | {"actor_delay": 1}), some_batch()
    noise = noise_for(state)
    alpha = state.log_alpha.detach().exp()
    with torch.no_grad():
        target = soft_target(state, batch, batch.next_obs, noise, alpha)
        expected = critic_loss(state.critic(batch.obs, batch.action), target)
    before = [part.clone() for part in state.critic.tensors]
    metrics = update(state, batch, noise)
    assert float(metrics["critic_loss"]) == pytest.approx(float(expected), rel=1e-5)
    for now, then in zip(state.critic.tensors, before, strict=True):
        assert all(not torch.equal(now[i], then[i]) for i in range(5))
    # The actor's loss was taken at the critics just moved, by the actor of before: the first policy, made again.
    with torch.no_grad():
        action, log_prob = fresh(**REDQ).actor.sample(batch.obs, noise.action)
        q = state.critic(batch.obs, action)
        assert float(metrics["actor_loss"]) == pytest.approx(
            float(actor_loss(log_prob, q.mean(dim=0), alpha)), abs=1e-5
        )
        assert float(metrics["actor_loss"]) != pytest.approx(
            float(actor_loss(log_prob, q.amin(dim=0), alpha)), abs=1e-3
        )


def test_of_two_critics_the_actor_follows_the_smaller_and_nothing_is_chosen() -> None:
    state, batch = fresh(), some_batch()
    noise = noise_for(state)
    assert noise.subset is None
    metrics = update(state, batch, noise)
    with torch.no_grad():
        action, log_prob = fresh().actor.sample(batch.obs, noise.action)
        value = state.critic(batch.obs, action).amin(dim=0)
        expected = actor_loss(log_prob, value, torch.tensor(0.02))
    assert float(metrics["actor_loss"]) == pytest.approx(float(expected), abs=1e-5)


def test_every_pair_of_critics_is_chosen_equally_often() -> None:
    shape, generator = NoiseShape(ACT_DIM, critics=5, subset=2), torch.Generator().manual_seed(0)
    drawn = 4000
    counts = Counter()
    for _ in range(drawn):
        subset = shape.draw(1, generator).subset
        assert subset is not None and len(set(subset.tolist())) == 2
        counts[frozenset(subset.tolist())] += 1
    assert len(counts) == math.comb(5, 2)
    # χ² with 9 degrees of freedom exceeds 33.7 once in 10,000 seeds; this one is fixed.
    expected = drawn / 10
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 33.7


@pytest.mark.parametrize(("critics", "subset", "chosen"), [(1, 2, 0), (2, 2, 0), (10, 2, 2), (10, 10, 0), (3, 1, 1)])
def test_a_subset_is_drawn_only_where_there_is_a_choice(critics: int, subset: int, chosen: int) -> None:
    state = fresh(critics=critics, critic_subset=subset)
    assert state.noise_shape.subset == chosen
    update(state, some_batch(), noise_for(state))


# --- dropout -----------------------------------------------------------------------------------------------------


def by_loop(state: SacState, obs: Tensor, action: Tensor, uniform: Tensor, share: float) -> Tensor:
    """Q (N, b) critic by critic: linear, dropout, LayerNorm, activation (Hiraoka et al. 2022, figure 2)."""
    values = []
    for i in range(uniform.shape[0]):
        x, at = torch.cat((obs, action), dim=1), 0
        for layer in state.critic.layers[:-1]:
            x = x @ layer.weight[i] + layer.bias[i]
            width = x.shape[1]
            kept = uniform[i, :, at : at + width] >= share
            x, at = torch.where(kept, x / (1.0 - share), torch.zeros(())), at + width
            if layer.scale is not None and layer.shift is not None:
                x = torch.nn.functional.layer_norm(x, (width,)) * layer.scale[i] + layer.shift[i]
            x = torch.relu(x)
        values.append((x @ state.critic.layers[-1].weight[i] + state.critic.layers[-1].bias[i])[:, 0])
    return torch.stack(values)


@pytest.mark.parametrize("normed", [True, False])
def test_dropout_leaves_out_what_the_noise_says_and_keeps_the_mean(normed: bool) -> None:
    state, batch = fresh(critic_dropout=0.25, hidden=(12, 7), critic_layer_norm=normed), some_batch()
    uniform = noise_for(state).dropout
    assert uniform is not None and uniform.shape == (3, 2, 8, 19)
    q = state.critic(batch.obs, batch.action, uniform[1])
    assert torch.allclose(q, by_loop(state, batch.obs, batch.action, uniform[1], 0.25), atol=1e-5)
    assert torch.equal(q, state.critic(batch.obs, batch.action, uniform[1]))
    assert not torch.allclose(q, state.critic(batch.obs, batch.action, uniform[0]))
    assert not torch.allclose(q, state.critic(batch.obs, batch.action))


def test_with_dropout_the_actor_follows_the_mean_of_the_critics() -> None:
    state, batch = fresh(critic_dropout=0.25), some_batch()
    noise = noise_for(state)
    assert noise.dropout is not None
    metrics = update(state, batch, noise)
    with torch.no_grad():
        action, log_prob = fresh().actor.sample(batch.obs, noise.action)
        q = state.critic(batch.obs, action, noise.dropout[2])
        mean, least = (float(actor_loss(log_prob, v, torch.tensor(0.02))) for v in (q.mean(dim=0), q.amin(dim=0)))
    assert float(metrics["actor_loss"]) == pytest.approx(mean, abs=1e-5)
    assert mean != pytest.approx(least, abs=1e-4)


def test_the_share_left_out_is_the_configured_one_and_every_row_and_critic_has_its_own() -> None:
    state = fresh(**DROQ, hidden=(64, 64))
    uniform = noise_for(state, rows=256).dropout
    assert uniform is not None
    left_out = (uniform[1] < 0.25).float()
    # 65,536 units: the standard error of the share is 0.0017.
    assert float(left_out.mean()) == pytest.approx(0.25, abs=0.009)
    assert not torch.equal(left_out[0], left_out[1])
    assert not torch.equal(left_out[0, 0], left_out[0, 1])
    assert not torch.equal(uniform[0], uniform[1])


def test_target_loss_and_actor_each_drop_units_of_their_own() -> None:
    batch, plain = some_batch(), fresh(critic_dropout=0.25)
    noise = noise_for(plain)
    assert noise.dropout is not None

    def after(use: int) -> SacState:
        state, uniform = fresh(critic_dropout=0.25), noise.dropout.clone()  # type: ignore[union-attr]
        uniform[use] = uniform[use].flip(0)
        update(state, batch, Noise(noise.next_action, noise.action, dropout=uniform))
        return state

    update(plain, batch, noise)
    for use, critics_differ in ((0, True), (1, True), (2, False)):
        differing = changed(weights(plain), weights(after(use)))
        assert ("critic" in differing) is critics_differ, use
        assert "actor" in differing, use  # it follows critics that have moved otherwise, or others of their units


def test_no_dropout_asks_for_no_noise() -> None:
    assert noise_for(fresh()).dropout is None


def test_an_update_with_dropout_and_subset_is_a_function_of_the_noise() -> None:
    options = {"critics": 5, "critic_dropout": 0.1}
    once, again, other, batch = fresh(**options), fresh(**options), fresh(**options), some_batch()
    update(once, batch, noise_for(once))
    update(again, batch, noise_for(again))
    update(other, batch, noise_for(other, seed=2))
    assert changed(weights(once), weights(again)) == set()
    assert changed(weights(once), weights(other)) >= {"critic", "actor", "target"}


# --- the whole ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "learn", [REDQ | {"actor_delay": 2}, DROQ | {"critic_dropout": 0.01, "actor_delay": 2}], ids=["redq", "droq"]
)
def test_it_finds_the_best_action_of_a_bandit(learn: dict[str, object]) -> None:
    state = fresh(hidden=(32, 32), actor_lr=5e-3, critic_lr=5e-3, polyak=0.05, **learn)
    best, generator = torch.tensor([0.5, -0.3]), torch.Generator().manual_seed(0)
    nothing = torch.zeros(64, OBS_DIM)
    for _ in range(400):
        action = torch.empty(64, ACT_DIM).uniform_(-1, 1, generator=generator)
        reward = -4.0 * (action - best).square().sum(dim=1)
        batch = Batch(nothing, action, reward, nothing, torch.ones(64))
        update(state, batch, state.noise_shape.draw(64, generator))
    found = state.actor.action(nothing[:1], torch.zeros(1, ACT_DIM))[0]
    assert torch.allclose(found, best, atol=0.12)
