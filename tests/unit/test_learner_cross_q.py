"""Batch-normalised critics without targets: the arithmetic by hand, who gets which gradient, and that they learn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from learner_world import ACT_DIM, OBS_DIM, RATE_HZ, settings
from torch import Tensor

from robotsac.learner.algorithm import NoiseShape, update
from robotsac.learner.batch_norm_critic import EPS, MOMENTUM, BatchNormCritic
from robotsac.learner.cross_q import CrossQState
from robotsac.learner.networks import Shape
from robotsac.learner.replay import Batch
from robotsac.learner.variants import create_algorithm

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def critic(critics: int = 2, hidden: tuple[int, ...] = (8, 8)) -> BatchNormCritic:
    return BatchNormCritic(Shape(OBS_DIM, ACT_DIM, hidden, "relu"), critics, torch.Generator().manual_seed(0))


def fresh(**learn: object) -> CrossQState:
    made = create_algorithm(settings(critic="batch_norm", **learn).learn, OBS_DIM, ACT_DIM, RATE_HZ, CPU)
    assert isinstance(made, CrossQState)
    return made


def some_batch(rows: int = 16, seed: int = 0) -> Batch:
    wide = torch.randn(rows, OBS_DIM * 2 + ACT_DIM + 1, generator=torch.Generator().manual_seed(seed))
    obs, next_obs, action, reward = wide.split([OBS_DIM, OBS_DIM, ACT_DIM, 1], dim=1)
    return Batch(obs, action.tanh(), reward[:, 0], next_obs, torch.zeros(rows))


def by_hand(made: BatchNormCritic, which: int, x: Tensor) -> Tensor:
    """One critic's output for rows ``x``, normalised over these rows."""
    for depth, layer in enumerate(made.layers):
        mean, variance = x.mean(dim=0), x.var(dim=0, correction=0)
        x = (x - mean) / torch.sqrt(variance + EPS) * layer.scale[which] + layer.shift[which]
        x = x @ layer.weight[which] + layer.bias[which]
        x = x if depth == len(made.layers) - 1 else torch.relu(x)
    return x[:, 0]


def test_both_halves_are_normalised_by_the_statistics_of_their_mixture() -> None:
    made, batch = critic(), some_batch()
    next_action = torch.rand(16, ACT_DIM) * 2 - 1
    q, next_q = made.joint(batch.obs, batch.action, 5.0 + batch.next_obs, next_action)
    rows = torch.cat((torch.cat((batch.obs, batch.action), 1), torch.cat((5.0 + batch.next_obs, next_action), 1)))
    for which in range(2):
        assert torch.allclose(torch.cat((q[which], next_q[which])), by_hand(made, which, rows), atol=1e-5)


def test_the_running_statistics_become_those_of_the_data_and_then_both_ways_agree() -> None:
    made, batch = critic(), some_batch(256)
    for _ in range(int(14 / MOMENTUM)):
        q, _ = made.joint(batch.obs, batch.action, batch.obs, batch.action)
    assert torch.allclose(made(batch.obs, batch.action), q, atol=1e-2)


def test_asking_moves_no_statistics() -> None:
    made, batch = critic(), some_batch()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made(batch.obs, batch.action)
    made.frozen(batch.obs, batch.action)
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())


def test_a_channel_that_never_changes_stays_finite() -> None:
    made, batch = critic(), some_batch()
    q, next_q = made.joint(torch.zeros(16, OBS_DIM), batch.action * 0, torch.zeros(16, OBS_DIM), batch.action * 0)
    assert bool(q.isfinite().all() and next_q.isfinite().all())


def test_the_actor_gets_a_gradient_through_the_critics_and_they_get_none() -> None:
    made, batch = critic(), some_batch()
    action = batch.action.clone().requires_grad_()
    made.frozen(batch.obs, action).sum().backward()
    assert action.grad is not None and bool((action.grad != 0).any())
    assert all(parameter.grad is None for parameter in made.parameters())


def test_one_critics_error_does_not_reach_another() -> None:
    def gradient_of_second(shift: float) -> Tensor:
        made, batch = critic(), some_batch()
        q, _ = made.joint(batch.obs, batch.action, batch.next_obs, batch.action)
        (q - torch.tensor([[shift], [0.0]])).square().sum().backward()
        grad = made.layers[0].weight.grad
        assert grad is not None
        return grad[1]

    assert torch.equal(gradient_of_second(0.0), gradient_of_second(5.0))


def test_the_targets_own_gradient_is_cut() -> None:
    """With a discount of 0.9 the target depends on the critics as much as Q does; the gradient is that of a constant."""
    batch = some_batch()
    noise = NoiseShape(ACT_DIM).draw(16, torch.Generator().manual_seed(1))
    state, same = fresh(discount=0.9), fresh(discount=0.9)
    metrics = update(state, batch, noise)
    with torch.no_grad():
        next_action, log_prob = same.actor.sample(batch.next_obs, noise.next_action)
    q, next_q = same.critic.joint(batch.obs, batch.action, batch.next_obs, next_action)
    constant = (batch.reward + 0.9 * (next_q.amin(dim=0) - same.log_alpha.exp() * log_prob)).detach()
    loss = 0.5 * (q - constant).square().mean(dim=1).sum()
    loss.backward()
    assert float(metrics["critic_loss"]) == pytest.approx(float(loss.detach()), rel=1e-5)
    for got, wanted in zip(state.critic.parameters(), same.critic.parameters(), strict=True):
        assert got.grad is not None and wanted.grad is not None
        assert torch.allclose(got.grad, wanted.grad, atol=1e-6)


def test_the_target_is_the_minimum_over_the_chosen_critics_alone() -> None:
    state, batch = fresh(critics=5, critic_subset=2, discount=0.9), some_batch()
    drawn = state.noise_shape.draw(16, torch.Generator().manual_seed(1))
    with torch.no_grad():
        alpha = state.log_alpha.exp()
        next_action, log_prob = state.actor.sample(batch.next_obs, drawn.next_action)
    for chosen in ([3, 1], [0, 4], [2, 0]):
        state, noise = fresh(critics=5, critic_subset=2, discount=0.9), replace(drawn, subset=torch.tensor(chosen))
        with torch.no_grad():
            q, next_q = state.critic.joint(batch.obs, batch.action, batch.next_obs, next_action)
            y = batch.reward + 0.9 * (torch.minimum(next_q[chosen[0]], next_q[chosen[1]]) - alpha * log_prob)
            wanted = 0.5 * (q - y).square().mean(dim=1).sum()
        assert float(update(state, batch, noise)["critic_loss"]) == pytest.approx(float(wanted), rel=1e-5)


def test_adams_first_moment_keeps_half_of_what_it_was() -> None:
    """β1 = ½ (Bhatt et al. 2024), of actor, critics and α: after one step the moment is half the gradient."""
    state = fresh()
    update(state, some_batch(), state.noise_shape.draw(16, torch.Generator().manual_seed(1)))
    for name, adam in state.optimizers().items():
        for parameter in adam.param_groups[0]["params"]:
            assert torch.allclose(adam.state[parameter]["exp_avg"], 0.5 * parameter.grad, rtol=1e-5, atol=1e-9), name


@pytest.mark.parametrize("delay", [1, 3])
def test_the_actor_moves_every_delay_updates(delay: int) -> None:
    state = fresh(actor_delay=delay)
    moved = 0
    for i in range(6):
        before = state.actor.last.weight.clone()
        batch = some_batch(seed=i)
        update(state, batch, state.noise_shape.draw(16, torch.Generator().manual_seed(i)))
        moved += not torch.equal(before, state.actor.last.weight)
    assert moved == 6 // delay
    assert state.updates == 6


def test_a_constant_reward_of_one_is_worth_the_horizon() -> None:
    """γ = 0.9: a state that goes on for ever is worth 10, without any target network, and one that ends is worth 1."""
    worth = {}
    for terminal in (0.0, 1.0):
        state = fresh(hidden=(16,), discount=0.9, critic_lr=1e-2, temperature=1e-5)
        generator = torch.Generator().manual_seed(0)
        for _ in range(600):
            obs = torch.randn(32, OBS_DIM, generator=generator)
            action = torch.empty(32, ACT_DIM).uniform_(-1, 1, generator=generator)
            batch = Batch(obs, action, torch.ones(32), obs, torch.full((32,), terminal))
            update(state, batch, state.noise_shape.draw(32, generator))
        worth[terminal] = float(state.critic(torch.zeros(1, OBS_DIM), torch.zeros(1, ACT_DIM)).detach().mean())
    assert worth[1.0] == pytest.approx(1.0, abs=0.05)
    assert worth[0.0] == pytest.approx(10.0, rel=0.05)


def test_it_solves_a_bandit() -> None:
    state = fresh(hidden=(32, 32), actor_lr=3e-3, critic_lr=3e-3, temperature_lr=1e-2, target_sigma=0.1)
    best = torch.tensor([0.5, -0.3])
    generator = torch.Generator().manual_seed(0)
    for _ in range(700):
        obs = torch.randn(64, OBS_DIM, generator=generator)
        action = torch.empty(64, ACT_DIM).uniform_(-1, 1, generator=generator)
        reward = -4.0 * (action - best).square().sum(dim=1)
        update(state, Batch(obs, action, reward, obs, torch.ones(64)), state.noise_shape.draw(64, generator))
    found = state.actor.action(torch.zeros(1, OBS_DIM), torch.zeros(1, ACT_DIM))
    assert torch.allclose(found[0], best, atol=0.1)
