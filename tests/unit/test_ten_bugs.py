"""The ten bugs that SAC implementations are known for, and what shows each of them here.

One group of tests per bug, ``test_bug_NN_…``, with what goes wrong in its docstring:

    1 time limits treated as ends             5 gradients that leak            8 replay: aliasing, indexing
    2 the log-probability                     6 shapes that fit by accident    9 action units, the normaliser
    3 the temperature                         7 the wrong action or discount   10 the run is not the run you think
    4 the entropy in the target                 in the backup

One to six are here, seven and eight in ``test_ten_bugs_data``, nine and ten in ``test_ten_bugs_robot``; those of DDPG and
CrossQ in ``test_ten_bugs_variants``, those of ``train --sync`` in ``test_ten_bugs_sync``.
``tools/check_bugs.py`` puts every bug back into the software in several ways (``mutations``) and requires that a test of its
number fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from bugs import (
    ALPHA,
    CPU,
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
    with_gradient,
)  # fmt: skip
from learner_world import ACT_DIM, OBS_DIM, RATE_HZ, batches, contract, episode, settings
from pydantic import ValidationError

from robotsac.env.arm_env import ArmEnv
from robotsac.learner.actor_loss import actor_loss, score_function_loss
from robotsac.learner.actor_step import update_actor_and_temperature, update_temperature
from robotsac.learner.algorithm import Noise, update
from robotsac.learner.critic import bellman_target, critic_loss
from robotsac.learner.heads import TanhGaussian, TanhMixture
from robotsac.learner.heads.gaussian import tanh_log_det
from robotsac.learner.learning import Learning
from robotsac.learner.replay import Batch
from robotsac.learner.sac import SacState, soft_target
from robotsac.learner.sac_v1 import SacV1State, update_critics, update_value
from robotsac.learner.temperature import temperature_loss
from robotsac.records import EpisodeEnd, transitions

E = EpisodeEnd


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def env() -> Iterator[ArmEnv]:
    with short_episodes() as env:
        yield env


def targets(state: SacState, batch: Batch, seed: int = 1) -> list[float]:
    noise = some_noise(state, len(batch), seed)
    with torch.no_grad():
        return soft_target(state, batch, batch.next_obs, noise, torch.tensor(ALPHA)).tolist()


# --- 1: time limits treated as ends, and the wrong next observation ----------------------------------------------


@pytest.mark.parametrize(
    ("end", "steps", "bootstraps"),
    [(E.TIME_LIMIT, 4, True), (E.OPERATOR, 4, True), (E.SUCCESS, 4, False), (E.FAILURE, 4, False), (E.FAULT, 3, True)],
)
def test_bug_01_only_an_end_of_the_task_ends_the_bootstrap(end: EpisodeEnd, steps: int, bootstraps: bool) -> None:
    """A time limit learned as an end teaches that nothing comes after it; a fault learned at all, what no action did."""
    learning = Learning(settings(**linear()), contract(), CPU)
    learning.absorb(batches(episode(4, end), 2))
    rows, state = all_rows(learning), known()
    set_q(state.target, [[0.0] * 5 + [1000.0]] * 2)
    gain = np.array(targets(state, rows)) - rows.reward.numpy()
    assert len(rows) == steps
    assert (gain[:-1] > 800.0).all()
    assert gain[-1] > 800.0 if bootstraps else gain[-1] == 0.0


def test_bug_01_the_last_next_observation_is_where_the_episode_ended(env: ArmEnv) -> None:
    """Stored after an automatic reset, it is where the next episode began: here the same place, without a past."""
    run, n = run_arm(env), env.contract.act_dim
    made, past = transitions(run.records), env.contract.obs_dim - n * env.contract.history_steps
    assert len(made) == len(run.q_after) and np.abs(made.action).max(axis=1).min() > 0.0
    np.testing.assert_allclose(made.next_obs[:, :n] * math.pi, run.q_after, atol=1e-5)
    np.testing.assert_allclose(made.next_obs[:, past : past + n], made.action, atol=1e-6)


# --- 2: the log-probability --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [-2.0, 0.0, 0.7])
@pytest.mark.parametrize("raw_log_std", [-0.6, 0.0, 0.4])
def test_bug_02_the_density_of_actions_integrates_to_one(mean: float, raw_log_std: float) -> None:
    """Without the tanh term, with its sign turned, or in other units than [-1, 1], it does not."""
    head = TanhGaussian(-5.0, 2.0)
    raw = torch.tensor([[mean, raw_log_std]], dtype=torch.float64).expand(40_001, 2)
    noise = torch.linspace(-9.0, 9.0, 40_001, dtype=torch.float64)[:, None]
    action, log_prob = head.sample(raw, noise)
    assert float(torch.trapezoid(log_prob.exp(), action[:, 0])) == pytest.approx(1.0, abs=1e-3)


def test_bug_02_the_density_of_a_mixture_integrates_to_one() -> None:
    """The choice of a component must not count: the density is that of all of them."""
    head = TanhMixture(2, -5.0, 2.0)
    raw = torch.tensor([[0.3, -0.2, -0.5, 0.9, 0.0, -0.3]], dtype=torch.float64).expand(40_000, 6)
    noise = torch.randn(40_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    action, log_prob = (part.detach() for part in head.sample(raw, noise))
    order = action[:, 0].argsort()
    assert float(torch.trapezoid(log_prob[order].exp(), action[order, 0])) == pytest.approx(1.0, abs=2e-3)


def test_bug_02_dimensions_add_up_and_rows_do_not() -> None:
    """A sum over the wrong axis, or a constant that is counted once, is off by a number that grows with the arm."""
    state, obs = known(), some_batch().obs
    noise = some_noise(state, len(obs)).action
    log_prob = state.actor.sample(obs, noise).log_prob
    assert log_prob.shape == (len(obs),)
    assert log_prob.tolist() == pytest.approx([policy_by_hand(state, o, z)[1] for o, z in zip(obs, noise, strict=True)])


def test_bug_02_it_is_right_where_tanh_is_one() -> None:
    """log(1 − tanh² + 1e-6) ends at −13.8; the truth goes on, and so does its gradient."""
    u = torch.linspace(-20.0, 20.0, 401, requires_grad=True)
    tanh_log_det(u).sum().backward()
    wide = u.detach().double()
    exact = math.log(4.0) - 2.0 * wide.abs() - 2.0 * torch.log1p(torch.exp(-2.0 * wide.abs()))
    assert torch.allclose(tanh_log_det(u.detach()).double(), exact, rtol=1e-5, atol=1e-4)
    assert u.grad is not None and torch.allclose(u.grad.double(), -2.0 * torch.tanh(wide), atol=1e-4)


# --- 3: the temperature ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("above", "grows"), [(+1.0, False), (-1.0, True)])
def test_bug_03_entropy_above_its_target_lowers_alpha(above: float, grows: bool) -> None:
    """With the sign turned, α runs away from the target, to one of its bounds."""
    state = known(temperature="auto", temperature_init=0.1)
    assert state.constants.target_entropy is not None
    update_temperature(state, torch.full((4,), -(state.constants.target_entropy + above)))
    assert (float(state.log_alpha.detach().exp()) > 0.1) is grows


def test_bug_03_alphas_loss_leaves_the_actor_alone() -> None:
    """Without a detach it pulls the policy towards the entropy that α should be priced by."""
    state, batch = known(temperature="auto"), some_batch()
    log_prob = state.actor.sample(batch.obs, some_noise(state, len(batch)).action).log_prob
    temperature_loss(state.log_alpha, log_prob, -1.0).backward()
    assert with_gradient(("actor", state.actor.parameters()), ("alpha", [state.log_alpha])) == {"alpha"}


def test_bug_03_the_target_grows_with_the_arm_and_is_refused_out_of_reach() -> None:
    """A constant −1, or a target above d·log 2, is a price that no policy can pay: α grows without end."""
    learn = settings(target_sigma=0.15).learn
    one, six = (SacState.create(learn, OBS_DIM, d, RATE_HZ, CPU).constants.target_entropy for d in (1, 6))
    assert one == pytest.approx(-0.478, abs=1e-3) and six == pytest.approx(6 * -0.478, abs=6e-3)
    # Uniform actions have 0.484; a Gaussian or a mixture falls short of that on its own, a Beta policy does not.
    for unreachable in ({"target_sigma": 0.49, "head": "beta"}, {"target_sigma": 0.3, "log_std_max": -2.0}):
        with pytest.raises(ValidationError, match="target_sigma"):
            settings(**unreachable)


def test_bug_03_the_entropy_settles_on_its_target() -> None:
    """The whole loop, α moving the policy and the policy α; 0.02 nats off when measured."""
    learn = {"hidden": (), "critic_hidden": (32,), "activation": "silu", "target_sigma": 0.3, "temperature_init": 0.1}
    fast = {"critic_lr": 1e-2, "actor_lr": 1e-2, "temperature_lr": 2e-2}
    state = SacState.create(settings(**learn, **fast).learn, OBS_DIM, ACT_DIM, RATE_HZ, CPU)
    generator, nothing, entropies = torch.Generator().manual_seed(0), torch.zeros(128, OBS_DIM), []
    for done in range(400):
        action = torch.empty(128, ACT_DIM).uniform_(-1.0, 1.0, generator=generator)
        batch = Batch(nothing, action, -2.0 * action.square().sum(dim=1), nothing, torch.ones(128))
        metrics = update(state, batch, state.noise_shape.draw(128, generator))
        entropies += [float(metrics["entropy"])] if done >= 200 else []
    assert np.mean(entropies) == pytest.approx(state.constants.target_entropy, abs=0.05)


# --- 4: the entropy in the target --------------------------------------------------------------------------------


def test_bug_04_the_target_is_that_of_the_next_state_with_its_entropy_and_of_an_end_the_reward() -> None:
    """Missing, with a plus, outside of (1 − d), or that of the current state: Q learns another problem."""
    state, batch = known(), some_batch()
    got = targets(state, batch)
    assert got == pytest.approx(targets_by_hand(state, batch, some_noise(state, len(batch))), rel=1e-5)
    assert [got[b] for b in (1, -1)] == [float(batch.reward[b]) for b in (1, -1)]


def test_bug_04_the_critics_learn_towards_that_target() -> None:
    """What :func:`soft_target` says must be what the update uses."""
    state, batch = known(), some_batch()
    noise = some_noise(state, len(batch))
    y = targets_by_hand(state, batch, noise)
    q = [q_by_hand(state.critic, o, a.tolist()) for o, a in zip(batch.obs, batch.action, strict=True)]
    loss = sum(0.5 * (q[b][i] - y[b]) ** 2 / len(y) for i in range(2) for b in range(len(y)))
    assert float(update(state, batch, noise)["critic_loss"]) == pytest.approx(loss, rel=1e-5)


# --- 5: who gets which gradient ----------------------------------------------------------------------------------


def players(state: SacState) -> set[str]:
    return with_gradient(
        ("actor", state.actor.parameters()),
        ("critic", state.critic.parameters()),
        ("target", state.target.parameters()),
        ("alpha", [state.log_alpha]),
    )


def test_bug_05_the_critics_loss_moves_critics_alone() -> None:
    """A target that is not detached pulls the policy, or the target network, towards what Q happens to be."""
    state, batch = known(actor_delay=2, temperature="auto"), some_batch()
    update(state, batch, some_noise(state, len(batch)))
    assert players(state) == {"critic"}


@pytest.mark.parametrize("policy_gradient", ["reparameterised", "score"])
def test_bug_05_the_actors_loss_moves_the_actor_alone_and_up_q(policy_gradient: str) -> None:
    """Critics in the actor's graph are made to flatter it; an action cut out of the graph gives no direction."""
    state = known(policy_gradient=policy_gradient, actor_lr=1e-2)
    set_q(state.critic, [[0.0] * 3 + [5.0, -5.0, 0.0]] * 2)
    batch = some_batch(256)
    before = state.actor.last.bias.detach().clone()
    update_actor_and_temperature(state, batch.obs, batch.next_obs, some_noise(state, 256), torch.tensor(0.01))
    assert players(state) == {"actor"}
    assert (state.actor.last.bias - before)[:2].sign().tolist() == [1.0, -1.0]


def test_bug_05_one_critics_error_is_its_own() -> None:
    """Both trained on the mean of both are one critic, and their minimum is no caution."""

    def gradient_of_second(first: float) -> list[float]:
        state, batch = known(actor_delay=2), some_batch()
        set_q(state.critic, [[first] * 6, [0.1] * 6])
        update(state, batch, some_noise(state, len(batch)))
        grad = state.critic.layers[0].weight.grad
        assert grad is not None
        return grad[1, :, 0].tolist()

    assert gradient_of_second(0.0) == gradient_of_second(7.0)


def test_bug_05_v_learns_from_its_own_loss_and_q_from_its_own() -> None:
    """SAC v1 has two value functions; each has once been trained with the other's loss."""
    for step, moved in ((1, {"value"}), (2, {"critic"})):
        state = SacV1State.create(settings(**linear(variant="sac_v1")).learn, OBS_DIM, ACT_DIM, RATE_HZ, CPU)
        batch = some_batch()
        if step == 1:
            update_value(state, batch.obs, state.noise_shape.draw(len(batch), torch.Generator()), torch.tensor(ALPHA))
        else:
            update_critics(state, batch, batch.obs, batch.next_obs)
        assert with_gradient(*((name, module.parameters()) for name, module in state.modules().items())) == moved


# --- 6: shapes that fit by accident ------------------------------------------------------------------------------


def test_bug_06_losses_are_those_of_a_loop_over_rows() -> None:
    """(b,) against (b, 1) gives (b, b): every row learns every other row's target, and the loss looks well."""
    rng = np.random.default_rng(0)
    q, y, log_prob = (torch.tensor(rng.normal(size=size)) for size in ((2, 5), (5,), (5,)))
    by_loop = sum(0.5 * float((q[i, b] - y[b]) ** 2) / 5 for i in range(2) for b in range(5))
    assert float(critic_loss(q, y)) == pytest.approx(by_loop)
    by_loop = sum(0.3 * float(log_prob[b]) - float(y[b]) for b in range(5)) / 5
    assert float(actor_loss(log_prob, y, torch.tensor(0.3))) == pytest.approx(by_loop)


def test_bug_06_a_column_where_a_row_belongs_is_refused() -> None:
    """By every function in which broadcasting would make it fit."""
    row, column, both, alpha = torch.zeros(5), torch.zeros(5, 1), torch.zeros(2, 5), torch.tensor(0.1)
    for reward, terminal, log_prob in ((column, row, row), (row, column, row), (row, row, column)):
        with pytest.raises(ValueError, match="not the same"):
            bellman_target(reward, terminal, both, log_prob, alpha, 0.9)
    for refused in (lambda: critic_loss(both, column), lambda: actor_loss(column, row, alpha),
                    lambda: score_function_loss(row, column, alpha)):  # fmt: skip
        with pytest.raises(ValueError, match="not the same"):
            refused()


def test_bug_06_a_minibatch_has_one_number_per_row_where_losses_want_one() -> None:
    """The ring keeps whole rows; what it hands out must not be a column of them."""
    learning = Learning(settings(batch_size=8, n_step=2), contract(), CPU)
    learning.absorb(batches(episode(20, E.SUCCESS), 7))
    batch = learning.samples(1)
    assert [part.shape for part in (batch.reward, batch.terminal, batch.steps) if part is not None] == [(8,)] * 3


def test_bug_06_a_batch_twice_over_has_the_same_losses() -> None:
    """A sum where the mean belongs makes the learning rate a matter of the batch."""
    losses = []
    for copies in (1, 2):
        state, batch = known(), some_batch()
        noise = some_noise(state, len(batch))
        twice = Batch(*(torch.cat([t] * copies) for t in (batch.obs, batch.action, batch.reward, batch.next_obs,
                                                          batch.terminal)))  # fmt: skip
        drawn = Noise(torch.cat([noise.next_action] * copies), torch.cat([noise.action] * copies))
        metrics = update(state, twice, drawn)
        losses.append([float(metrics["critic_loss"]), float(metrics["actor_loss"])])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
