"""SAC v1: each equation against numbers worked out by hand, which loss moves which network, and that it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from algorithm_world import changed, noise_for, some_batch, weights
from learner_world import ACT_DIM, OBS_DIM, RATE_HZ, settings
from torch import Tensor

from robotsac.errors import ConfigError
from robotsac.learner.algorithm import NoiseShape, update
from robotsac.learner.critic import critic_loss
from robotsac.learner.replay import Batch
from robotsac.learner.sac_v1 import (
    SacV1State,
    q_target,
    update_critics,
    update_value,
    value_loss,
    value_of,
    value_target,
)
from robotsac.learner.temperature import ALPHA_MIN
from robotsac.learner.variants import create_algorithm

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def fresh(obs_dim: int = OBS_DIM, act_dim: int = ACT_DIM, **learn: object) -> SacV1State:
    state = create_algorithm(settings(variant="sac_v1", **learn).learn, obs_dim, act_dim, RATE_HZ, CPU)
    assert isinstance(state, SacV1State)
    return state


# --- equations ---------------------------------------------------------------------------------------------------


def test_value_target_worked_out_by_hand() -> None:
    q = torch.tensor([[1.0, 5.0], [2.0, 4.0]])
    target = value_target(q, torch.tensor([3.0, -1.0]), torch.tensor(0.5))
    assert target.tolist() == pytest.approx([1.0 - 1.5, 4.0 + 0.5])


def test_q_target_worked_out_by_hand() -> None:
    target = q_target(
        torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 0.0]), torch.tensor([10.0, 10.0, -1.0]), 0.9
    )
    assert target.tolist() == pytest.approx([10.0, 2.0, 2.1])
    over_steps = q_target(torch.ones(2), torch.zeros(2), torch.tensor([10.0, 10.0]), torch.tensor([0.9, 0.81]))
    assert over_steps.tolist() == pytest.approx([10.0, 9.1])


def test_value_loss_worked_out_by_hand_and_not_grown_by_the_batch() -> None:
    value, target = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 5.0])
    assert float(value_loss(value, target)) == pytest.approx(0.5 * (1.0 + 9.0) / 2)
    assert float(value_loss(value.repeat(3), target.repeat(3))) == pytest.approx(0.5 * (1.0 + 9.0) / 2)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="not the same"):
        value_target(torch.zeros(2, 4), torch.zeros(4, 1), torch.tensor(0.1))
    with pytest.raises(ValueError, match="not the same"):
        value_loss(torch.zeros(4), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="not the same"):
        q_target(torch.zeros(4), torch.zeros(4), torch.zeros(4, 1), 0.9)


def test_the_value_network_sees_the_state_and_no_action() -> None:
    state = fresh()
    assert state.value.layers[0].weight.shape == (1, OBS_DIM, 16)
    obs = some_batch(5).obs
    value = value_of(state.value, obs)
    assert value.shape == (5,)
    assert torch.allclose(value[3:4], value_of(state.value, obs[3:4]), atol=1e-6)
    assert torch.equal(value, value_of(state.target, obs))  # the target starts as a copy


# --- who moves whom ----------------------------------------------------------------------------------------------


def test_the_value_loss_moves_the_value_network_alone() -> None:
    state, batch = fresh(), some_batch()
    before = weights(state)
    update_value(state, batch.obs, noise_for(state), torch.tensor(0.2))
    assert changed(before, weights(state)) == {"value"}
    assert all(p.grad is None for module in (state.actor, state.critic, state.target) for p in module.parameters())


def test_the_q_loss_moves_the_q_functions_alone() -> None:
    state, batch = fresh(), some_batch()
    before = weights(state)
    update_critics(state, batch, batch.obs, batch.next_obs)
    assert changed(before, weights(state)) == {"critic"}
    assert all(p.grad is None for module in (state.actor, state.value, state.target) for p in module.parameters())


def test_an_update_moves_everything_but_the_normaliser() -> None:
    state, batch = fresh(), some_batch()
    before = weights(state)
    metrics = update(state, batch, noise_for(state))
    assert changed(before, weights(state)) == {"actor", "critic", "value", "target", "log_alpha"}
    assert set(metrics) == {"value_loss", "v", "critic_loss", "q", "actor_loss", "entropy", "alpha"}
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())


def test_one_q_functions_error_does_not_reach_another() -> None:
    def gradient_of_second(shift: float) -> Tensor:
        state, batch = fresh(), some_batch()
        q = state.critic(batch.obs, batch.action)
        critic_loss(q + torch.tensor([[shift], [0.0]]), batch.reward).backward()
        grad = state.critic.layers[0].weight.grad
        assert grad is not None
        return grad[1]

    assert torch.equal(gradient_of_second(0.0), gradient_of_second(5.0))


@pytest.mark.parametrize("delay", [1, 3])
def test_actor_and_alpha_move_every_delay_updates_the_rest_each_time(delay: int) -> None:
    state = fresh(actor_delay=delay)
    moved = {"actor": 0, "log_alpha": 0, "critic": 0, "value": 0, "target": 0}
    for i in range(6):
        before, batch = weights(state), some_batch(seed=i)
        update(state, batch, noise_for(state, seed=i))
        for name in changed(before, weights(state)):
            moved[name] += 1
    assert moved == {"actor": 6 // delay, "log_alpha": 6 // delay, "critic": 6, "value": 6, "target": 6}


def test_a_fixed_temperature_stays() -> None:
    state, batch = fresh(temperature=0.3), some_batch()
    before = weights(state)
    metrics = update(state, batch, noise_for(state))
    assert "log_alpha" not in changed(before, weights(state))
    assert float(metrics["alpha"]) == pytest.approx(0.3)


def test_the_target_moves_by_tau_towards_v() -> None:
    state, batch = fresh(polyak=0.1), some_batch()
    before = state.target.tensors[0].clone()
    update(state, batch, noise_for(state))
    expected = before + 0.1 * (state.value.tensors[0] - before)
    assert torch.allclose(state.target.tensors[0], expected, atol=1e-7)


def test_there_is_no_target_of_q() -> None:
    assert set(fresh().modules()) == {"normaliser", "actor", "critic", "value", "target"}


# --- the right action and the right network ----------------------------------------------------------------------


def test_v_is_fitted_at_a_fresh_action_of_the_policy_and_not_at_the_replays() -> None:
    # By hand: min Q − α log π at the action that the noise gives. The batch's action appears nowhere.
    state, batch = fresh(), some_batch()
    noise = noise_for(state)
    with torch.no_grad():
        action, log_prob = state.actor.sample(batch.obs, noise.next_action)
        target = state.critic(batch.obs, action).amin(dim=0) - 0.2 * log_prob
        expected = 0.5 * (value_of(state.value, batch.obs) - target).square().mean()
    metrics = update_value(state, batch.obs, noise, torch.tensor(0.2))
    assert float(metrics["value_loss"]) == pytest.approx(float(expected), rel=1e-5)
    other = update_value(fresh(), batch.obs, noise_for(state, seed=7), torch.tensor(0.2))
    assert float(other["value_loss"]) != pytest.approx(float(expected), rel=1e-3)


def test_q_is_fitted_at_the_replays_action_towards_the_target_value_of_the_next_state() -> None:
    state, batch = fresh(horizon_s=10 / RATE_HZ), some_batch()
    with torch.no_grad():
        for tensor in state.target.tensors:
            tensor.add_(0.1)  # V and its target differ
        y = batch.reward + 0.9 * value_of(state.target, batch.next_obs)
        expected = 0.5 * (state.critic(batch.obs, batch.action) - y).square().mean(dim=1).sum()
    metrics = update_critics(state, batch, batch.obs, batch.next_obs)
    assert float(metrics["critic_loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_a_terminal_row_is_worth_its_reward_and_a_row_of_k_steps_is_discounted_k_times() -> None:
    batch = some_batch(2)
    batch = Batch(
        batch.obs, batch.action, batch.reward, batch.next_obs, torch.tensor([1.0, 0.0]), steps=torch.tensor([1.0, 3.0])
    )
    state = fresh(horizon_s=10 / RATE_HZ)
    with torch.no_grad():
        y = torch.stack((batch.reward[0], batch.reward[1] + 0.9**3 * value_of(state.target, batch.next_obs)[1]))
        expected = 0.5 * (state.critic(batch.obs, batch.action) - y).square().mean(dim=1).sum()
    metrics = update_critics(state, batch, batch.obs, batch.next_obs)
    assert float(metrics["critic_loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_v_and_actor_draw_different_actions() -> None:
    noise = noise_for(fresh())
    assert not torch.equal(noise.action, noise.next_action)


def test_an_update_is_a_function_of_state_batch_and_noise() -> None:
    once, again, other, batch = fresh(), fresh(), fresh(), some_batch()
    update(once, batch, noise_for(once))
    update(again, batch, noise_for(again))
    update(other, batch, noise_for(other, seed=9))
    assert changed(weights(once), weights(again)) == set()
    assert "actor" in changed(weights(once), weights(other))


def test_a_horizon_shorter_than_a_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="horizon"):
        fresh(horizon_s=0.02)


# --- the whole ---------------------------------------------------------------------------------------------------


def test_a_constant_reward_of_one_is_worth_the_horizon_when_time_limits_bootstrap() -> None:
    # γ = 0.9: a state that goes on for ever is worth 10, one that ends 1. α at its least: V is Q without entropy.
    for terminal, worth in ((0.0, 10.0), (1.0, 1.0)):
        state = fresh(hidden=(16,), horizon_s=10 / RATE_HZ, critic_lr=2e-2, polyak=0.3, temperature=ALPHA_MIN)
        generator = torch.Generator().manual_seed(0)
        still = torch.ones(16, OBS_DIM)
        for _ in range(300):
            action = torch.empty(16, ACT_DIM).uniform_(-1, 1, generator=generator)
            batch = Batch(still, action, torch.ones(16), still, torch.full((16,), terminal))
            update(state, batch, state.noise_shape.draw(16, generator))
        assert float(state.critic(still, torch.zeros(16, ACT_DIM)).detach().mean()) == pytest.approx(worth, rel=0.05)


def bandit(updates: int, **learn: object) -> tuple[SacV1State, list[float]]:
    """Learn a one-step bandit of reward −2 a²; the entropies on the way."""
    state = fresh(1, 1, hidden=(32, 32), actor_lr=5e-3, critic_lr=5e-3, polyak=0.05, **learn)
    generator = torch.Generator().manual_seed(0)
    nothing, entropies = torch.zeros(64, 1), []
    for _ in range(updates):
        action = torch.empty(64, 1).uniform_(-1, 1, generator=generator)
        batch = Batch(nothing, action, -2.0 * action[:, 0].square(), nothing, torch.ones(64))
        metrics = update(state, batch, NoiseShape(1).draw(64, generator))
        entropies.append(float(metrics["entropy"]))
    return state, entropies


def test_on_a_bandit_v_is_the_soft_maximum_and_the_policy_earns_it() -> None:
    # V* = α log ∫ exp(r/α) da. A tanh-Gaussian comes close to the optimal policy exp(r/α)/Z here.
    state, _ = bandit(400, temperature=0.2)
    grid = np.linspace(-1, 1, 2001)
    best = 0.2 * math.log(np.trapezoid(np.exp(-2.0 * grid**2 / 0.2), grid))
    with torch.no_grad():
        noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(1))
        action, log_prob = state.actor.sample(torch.zeros(20_000, 1), noise)
        earned = float((-2.0 * action[:, 0].square() - 0.2 * log_prob).mean())
        assert float(value_of(state.value, torch.zeros(1, 1))) == pytest.approx(best, abs=0.05)
    assert best - 0.03 < earned < best + 0.01


def test_an_automatic_temperature_keeps_the_target_entropy() -> None:
    state, entropies = bandit(400, target_sigma=0.1, temperature_lr=1e-2)
    # 0.002 nat off when measured.
    assert np.mean(entropies[-100:]) == pytest.approx(state.constants.target_entropy, abs=0.05)
