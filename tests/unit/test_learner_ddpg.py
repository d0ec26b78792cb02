"""DDPG: each equation against numbers worked out by hand, which loss moves which network, and that it learns."""

from __future__ import annotations

import pytest
import torch
from algorithm_world import changed, noise_for, some_batch, weights
from learner_world import ACT_DIM, OBS_DIM, RATE_HZ, settings

from robotsac.learner.algorithm import update
from robotsac.learner.ddpg import DdpgState, actor_loss, q_target, update_actor, update_critics
from robotsac.learner.heads import Deterministic
from robotsac.learner.replay import Batch
from robotsac.learner.variants import create_algorithm

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def fresh(**learn: object) -> DdpgState:
    state = create_algorithm(settings(variant="ddpg", **learn).learn, OBS_DIM, ACT_DIM, RATE_HZ, CPU)
    assert isinstance(state, DdpgState)
    return state


# --- equations ---------------------------------------------------------------------------------------------------


def test_target_worked_out_by_hand() -> None:
    next_q = torch.tensor([[10.0, 10.0, -5.0], [20.0, 5.0, -1.0]])
    y = q_target(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 0.0]), next_q, 0.9)
    assert y.tolist() == pytest.approx([10.0, 2.0, -1.5])
    one = q_target(torch.ones(2), torch.zeros(2), torch.tensor([[10.0, 10.0]]), torch.tensor([0.9, 0.81]))
    assert one.tolist() == pytest.approx([10.0, 9.1])


def test_actor_loss_worked_out_by_hand() -> None:
    assert float(actor_loss(torch.tensor([[1.0, 5.0], [2.0, 4.0]]))) == pytest.approx(-2.5)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="not the same"):
        q_target(torch.zeros(4), torch.zeros(4, 1), torch.zeros(2, 4), 0.9)


@pytest.mark.parametrize("critics", [1, 2])
def test_critics_are_fitted_to_the_target_networks_at_the_replays_action(critics: int) -> None:
    state, batch = fresh(critics=critics, horizon_s=10 / RATE_HZ), some_batch()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in (*state.critic_target.parameters(), *state.actor_target.parameters()):
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))  # away from the online networks
        silent = torch.zeros(len(batch), ACT_DIM)
        next_action = state.actor_target.action(batch.next_obs, silent)
        y = batch.reward + 0.9 * state.critic_target(batch.next_obs, next_action).amin(dim=0)
        expected = 0.5 * (state.critic(batch.obs, batch.action) - y).square().mean(dim=1).sum()
    metrics = update_critics(state, batch, batch.obs, batch.next_obs, noise_for(state))
    assert float(metrics["critic_loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_the_noise_of_exploration_does_not_enter_learning() -> None:
    one, other, batch = fresh(), fresh(), some_batch()
    update(one, batch, noise_for(one, seed=1))
    update(other, batch, noise_for(other, seed=2))
    assert changed(weights(one), weights(other)) == set()


# --- who moves whom ----------------------------------------------------------------------------------------------


def test_the_critic_loss_moves_the_critics_alone() -> None:
    state, batch = fresh(), some_batch()
    before = weights(state)
    update_critics(state, batch, batch.obs, batch.next_obs, noise_for(state))
    assert changed(before, weights(state)) == {"critic"}
    for module in (state.actor, state.actor_target, state.critic_target):
        assert all(p.grad is None for p in module.parameters())


def test_the_actor_loss_moves_the_actor_alone() -> None:
    state, batch = fresh(), some_batch()
    before = weights(state)
    update_actor(state, batch.obs, batch.next_obs, noise_for(state))
    assert changed(before, weights(state)) == {"actor"}
    for module in (state.critic, state.actor_target, state.critic_target):
        assert all(p.grad is None for p in module.parameters())


def test_the_actors_gradient_is_the_chain_rule_through_the_critic() -> None:
    # Silver et al. 2014 by hand: dJ/dφ = E[∂Q/∂a · ∂μ/∂φ], for the bias of the last layer ∂μ/∂φ = 1 − μ².
    state, batch = fresh(critics=1, activation="tanh"), some_batch()
    action = state.actor.action(batch.obs, torch.zeros(len(batch), ACT_DIM)).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(state.critic(batch.obs, action).sum(), action)
    expected = -(slope * (1.0 - action.detach().square())).mean(dim=0)
    update_actor(state, batch.obs, batch.next_obs, noise_for(state))
    assert state.actor.last.bias.grad is not None
    assert torch.allclose(state.actor.last.bias.grad, expected, atol=1e-6)


@pytest.mark.parametrize("delay", [1, 3])
def test_the_actor_moves_every_delay_updates(delay: int) -> None:
    state = fresh(actor_delay=delay)
    moved = {"actor": 0, "critic": 0, "critic_target": 0}
    for i in range(6):
        before, batch = weights(state), some_batch(seed=i)
        metrics = update(state, batch, noise_for(state))
        after = changed(before, weights(state))
        for name in moved:
            moved[name] += name in after
        assert ("actor_loss" in metrics) is ((i + 1) % delay == 0)
    assert moved == {"actor": 6 // delay, "critic": 6, "critic_target": 6}


def test_both_targets_move_by_tau() -> None:
    state, batch = fresh(polyak=0.1), some_batch()
    before = {"actor": state.actor.last.weight.detach().clone(), "critic": state.critic.tensors[0].detach().clone()}
    update(state, batch, noise_for(state))
    for target, online, start in (
        (state.actor_target.last.weight, state.actor.last.weight, before["actor"]),
        (state.critic_target.tensors[0], state.critic.tensors[0], before["critic"]),
    ):
        assert torch.allclose(target, start + 0.1 * (online - start), atol=1e-7)
        assert not torch.equal(target, start)


def test_there_is_no_temperature() -> None:
    state = fresh()
    assert (dict(state.scalars()), set(state.optimizers())) == ({}, {"actor", "critic"})
    batch = some_batch()
    metrics = update(state, batch, noise_for(state))
    assert set(metrics) == {"critic_loss", "q", "actor_loss"}
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())


# --- on the robot ------------------------------------------------------------------------------------------------


def test_the_robots_actions_are_the_policy_plus_noise_within_bounds() -> None:
    state = fresh(exploration_sigma=0.3)
    assert state.actor.head == Deterministic(0.3)
    obs, generator = some_batch(4000).obs, torch.Generator().manual_seed(2)
    with torch.no_grad():
        silent = state.actor.action(obs, torch.zeros(4000, ACT_DIM))
        noisy = state.actor.action(obs, torch.randn(4000, ACT_DIM, generator=generator))
        state.actor.last.bias.fill_(3.0)
        at_the_edge = state.actor.action(obs, torch.randn(4000, ACT_DIM, generator=generator))
    # 8000 draws: the standard error of σ is 0.3/√16000 = 0.0024; the first policy is near 0, so nothing is clipped.
    assert float((noisy - silent).std()) == pytest.approx(0.3, abs=0.012)
    assert float(at_the_edge.max()) == 1.0 and float(at_the_edge.min()) >= -1.0


# --- the whole ---------------------------------------------------------------------------------------------------


def test_it_finds_the_best_action_of_a_bandit() -> None:
    state = fresh(hidden=(32, 32), actor_lr=3e-3, critic_lr=3e-3, polyak=0.05)
    best, generator = torch.tensor([0.5, -0.3]), torch.Generator().manual_seed(0)
    nothing = torch.zeros(64, OBS_DIM)
    for _ in range(300):
        action = torch.empty(64, ACT_DIM).uniform_(-1, 1, generator=generator)
        reward = -4.0 * (action - best).square().sum(dim=1)
        batch = Batch(nothing, action, reward, nothing, torch.ones(64))
        update(state, batch, state.noise_shape.draw(64, generator))
    found = state.actor.action(nothing[:1], torch.zeros(1, ACT_DIM))[0]
    assert torch.allclose(found, best, atol=0.08)


@pytest.mark.parametrize("critics", [1, 2])
def test_a_constant_reward_of_one_is_worth_the_horizon_when_time_limits_bootstrap(critics: int) -> None:
    for terminal, worth in ((0.0, 10.0), (1.0, 1.0)):
        state = fresh(hidden=(16,), critics=critics, horizon_s=10 / RATE_HZ, critic_lr=2e-2, polyak=0.3)
        generator = torch.Generator().manual_seed(0)
        still = torch.ones(16, OBS_DIM)
        for _ in range(250):
            action = torch.empty(16, ACT_DIM).uniform_(-1, 1, generator=generator)
            batch = Batch(still, action, torch.ones(16), still, torch.full((16,), terminal))
            update(state, batch, state.noise_shape.draw(16, generator))
        assert float(state.critic(still, torch.zeros(16, ACT_DIM)).detach().mean()) == pytest.approx(worth, rel=0.05)
