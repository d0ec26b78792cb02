"""The ten bugs in DDPG and in CrossQ, and those that any algorithm can have. What this is about: ``test_ten_bugs``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeVar

import pytest
import torch
from algorithm_world import VARIANTS, changed, fresh_variant, noise_for, weights
from bugs import (
    ALPHA,
    DISCOUNT,
    known,
    linear,
    policy_by_hand,
    q_by_hand,
    set_q,
    some_batch,
    some_noise,
    with_gradient,
)  # fmt: skip
from learner_world import ACT_DIM
from torch import Tensor

from robotsac.learner.actor import Actor
from robotsac.learner.actor_step import update_actor_and_temperature
from robotsac.learner.algorithm import Algorithm, Noise, update
from robotsac.learner.batch_norm_critic import EPS, MOMENTUM
from robotsac.learner.cross_q import CrossQState
from robotsac.learner.ddpg import DdpgState, update_actor
from robotsac.learner.replay import Batch
from robotsac.learner.sac import SacState, soft_target


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# --- DDPG by hand: linear networks, each target somewhere else than its network ----------------------------------


def known_ddpg(**learn: object) -> DdpgState:
    state = fresh_variant("ddpg", hidden=(), discount=DISCOUNT, **learn)
    assert isinstance(state, DdpgState)
    set_q(state.critic, [[0.3, 0.2, -0.1, 0.5, -0.2, 1.0], [-0.4, 0.1, 0.2, -0.3, 0.6, 1.2]])
    set_q(state.critic_target, [[2.0, 0.5, -0.3, 1.0, -0.7, 0.0], [-1.0, 0.2, 0.4, -0.5, 2.0, 1.0]])
    with torch.no_grad():
        state.actor_target.last.weight.copy_(torch.tensor([[0.8, -0.3, 0.1], [-0.5, 0.4, 0.2]]))
        state.actor_target.last.bias.copy_(torch.tensor([0.1, -0.2]))
    return state


def point_by_hand(actor: Actor, obs: Tensor) -> list[float]:
    """μ(s) = tanh of a linear function."""
    weight, bias = (part.detach().double().tolist() for part in (actor.last.weight, actor.last.bias))
    pairs = zip(weight, bias, strict=True)
    return [math.tanh(sum(w * v for w, v in zip(row, obs.tolist(), strict=True)) + b) for row, b in pairs]


def ddpg_loss_by_hand(state: DdpgState, batch: Batch) -> float:
    """The critics' loss: y = r + γ^k (1 − d) min_i Q_θ̄i(s', μ_φ̄(s'))."""
    y = []
    for b, obs in enumerate(batch.next_obs):
        value = min(q_by_hand(state.critic_target, obs, point_by_hand(state.actor_target, obs)))
        discount = DISCOUNT ** (1.0 if batch.steps is None else float(batch.steps[b]))
        y.append(float(batch.reward[b]) + discount * (0.0 if batch.terminal[b] else 1.0) * value)
    q = [q_by_hand(state.critic, o, a.tolist()) for o, a in zip(batch.obs, batch.action, strict=True)]
    return loss_by_hand([[row[i] for row in q] for i in range(2)], y)


def loss_by_hand(q: Sequence[Sequence[float]], y: Sequence[float]) -> float:
    """Σ_i mean_b ½ (Q_i − y)²."""
    return sum(0.5 * (one[b] - y[b]) ** 2 / len(y) for one in q for b in range(len(y)))


def over_several_steps(batch: Batch) -> Batch:
    """The same, each row of 1 to 3 control steps."""
    return dataclasses.replace(batch, steps=torch.arange(len(batch)) % 3 + 1.0)


def test_bug_01_ddpg_does_not_bootstrap_from_an_end() -> None:
    """An end that bootstraps is worth more than it paid."""
    state, batch = known_ddpg(), some_batch()
    batch = dataclasses.replace(batch, terminal=torch.ones(len(batch)))
    q = [q_by_hand(state.critic, o, a.tolist()) for o, a in zip(batch.obs, batch.action, strict=True)]
    wanted = loss_by_hand([[row[i] for row in q] for i in range(2)], batch.reward.tolist())
    assert float(update(state, batch, noise_for(state, rows=len(batch)))["critic_loss"]) == pytest.approx(wanted)


def test_bug_05_ddpgs_actor_loss_moves_the_actor_alone() -> None:
    """Critics in the actor's graph are made to flatter it."""
    state, batch = known_ddpg(), some_batch()
    update_actor(state, batch.obs, batch.next_obs, noise_for(state, rows=len(batch)))
    assert with_gradient(*((name, module.parameters()) for name, module in state.modules().items())) == {"actor"}


def test_bug_07_ddpg_asks_the_target_critics_about_the_target_actors_action() -> None:
    """The replay's action there is an old policy's, the online actor's one that the target critics do not know yet."""
    state, batch = known_ddpg(), some_batch()
    wanted = ddpg_loss_by_hand(state, batch)
    metrics = update(state, batch, noise_for(state, rows=len(batch)))
    assert float(metrics["critic_loss"]) == pytest.approx(wanted, rel=1e-5)


def test_bug_07_ddpg_discounts_a_row_of_k_steps_k_times() -> None:
    """γ for γ^k makes whatever is beyond a longer step worth too much."""
    state, batch = known_ddpg(), over_several_steps(some_batch())
    wanted = ddpg_loss_by_hand(state, batch)
    metrics = update(state, batch, noise_for(state, rows=len(batch)))
    assert float(metrics["critic_loss"]) == pytest.approx(wanted, rel=1e-5)


def test_bug_10_both_of_ddpgs_targets_move_by_tau_towards_their_networks() -> None:
    """A target that stands still, or is a copy, is another algorithm."""
    state, batch = known_ddpg(polyak=0.1), some_batch()
    before = weights(state)
    update(state, batch, noise_for(state, rows=len(batch)))
    after = weights(state)
    for target, online in (("actor_target", "actor"), ("critic_target", "critic")):
        for key in (key for key in before if key.startswith(f"{target}.")):
            wanted = 0.9 * before[key] + 0.1 * after[key.replace(target, online, 1)]
            assert torch.allclose(after[key], wanted, atol=1e-6) and not torch.equal(after[key], before[key])


# --- CrossQ by hand: one normalised linear layer -----------------------------------------------------------------


def known_cross_q(**learn: object) -> CrossQState:
    """The policy is that of ``known``."""
    state = fresh_variant("cross_q", **linear(**learn))
    assert isinstance(state, CrossQState)
    state.actor.load_state_dict(known().actor.state_dict())
    set_q(state.critic, [[0.3, 0.2, -0.1, 0.5, -0.2, 1.0], [-0.4, 0.1, 0.2, -0.3, 0.6, 1.2]])  # type: ignore[arg-type]
    return state


def joint_by_hand(state: CrossQState, rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Q_i of each row of (s, a), normalised by the mean and variance of all of them."""
    columns = list(zip(*rows, strict=True))
    means = [sum(column) / len(rows) for column in columns]
    variances = [sum((v - m) ** 2 for v in c) / len(rows) for c, m in zip(columns, means, strict=True)]
    layer, values = state.critic.layers[0], []
    for weight, bias in zip(layer.weight.detach().double()[..., 0], layer.bias.detach().double().ravel(), strict=True):
        parts = list(zip(weight.tolist(), means, variances, strict=True))
        normed = [[w * (v - m) / math.sqrt(s + EPS) for v, (w, m, s) in zip(r, parts, strict=True)] for r in rows]
        values.append([sum(row) + float(bias) for row in normed])
    return values


def q_and_targets_by_hand(state: CrossQState, batch: Batch, noise: Noise) -> tuple[list[list[float]], list[float]]:
    """Q_i(s, a) of each row, and y = r + γ^k (1 − d) (min_i Q_i(s', a') − α log π(a'|s')), a' fresh."""
    drawn = [policy_by_hand(state, o, z) for o, z in zip(batch.next_obs, noise.next_action, strict=True)]  # type: ignore[arg-type]
    rows = [[*o.tolist(), *a.tolist()] for o, a in zip(batch.obs, batch.action, strict=True)]
    rows += [[*o.tolist(), *a] for o, (a, _) in zip(batch.next_obs, drawn, strict=True)]
    both, y = joint_by_hand(state, rows), []
    for b, (_, log_prob) in enumerate(drawn):
        value = min(one[len(batch) + b] for one in both) - ALPHA * log_prob
        discount = DISCOUNT ** (1.0 if batch.steps is None else float(batch.steps[b]))
        y.append(float(batch.reward[b]) + discount * (0.0 if batch.terminal[b] else 1.0) * value)
    return [one[: len(batch)] for one in both], y


def test_bug_04_cross_q_learns_towards_the_soft_target_of_a_fresh_action_at_the_next_state() -> None:
    """The entropy missing, the replay's action at s', or what is there of another state."""
    state, batch = known_cross_q(), some_batch()
    noise = noise_for(state, rows=len(batch))
    wanted = loss_by_hand(*q_and_targets_by_hand(state, batch, noise))
    assert float(update(state, batch, noise)["critic_loss"]) == pytest.approx(wanted, rel=1e-5)


def test_bug_05_cross_qs_target_is_a_constant_to_its_loss() -> None:
    """Q(s', a') comes out of the same pass as Q(s, a): uncut, the loss moves the target towards Q as well."""
    state, batch = known_cross_q(), some_batch()
    noise = noise_for(state, rows=len(batch))
    q, y = q_and_targets_by_hand(state, batch, noise)
    update(state, batch, noise)
    grad = state.critic.layers[0].bias.grad
    # ∂/∂bias of ½ (Q − y)² is Q − y where y is a constant, and (1 − γ)(Q − y) of a row that bootstraps where it is not.
    wanted = [sum(one[b] - y[b] for b in range(len(y))) / len(y) for one in q]
    assert grad is not None and grad.ravel().tolist() == pytest.approx(wanted, rel=1e-4)


def test_bug_05_cross_qs_actor_loss_moves_the_actor_alone() -> None:
    """Critics in the actor's graph are made to flatter it."""
    state, batch = known_cross_q(), some_batch()
    noise = noise_for(state, rows=len(batch))
    update_actor_and_temperature(state, batch.obs, batch.next_obs, noise, torch.tensor(ALPHA))
    assert with_gradient(*((name, module.parameters()) for name, module in state.modules().items())) == {"actor"}


def test_bug_07_cross_q_discounts_a_row_of_k_steps_k_times() -> None:
    """γ for γ^k makes whatever is beyond a longer step worth too much."""
    state, batch = known_cross_q(), over_several_steps(some_batch())
    noise = noise_for(state, rows=len(batch))
    wanted = loss_by_hand(*q_and_targets_by_hand(state, batch, noise))
    assert float(update(state, batch, noise)["critic_loss"]) == pytest.approx(wanted, rel=1e-5)


def test_bug_09_cross_qs_running_statistics_move_by_a_hundredth_towards_the_joint_batch() -> None:
    """The other way round, or of (s, a) alone, the actor asks critics that the critics' own loss has never seen."""
    state, batch = known_cross_q(), some_batch()
    noise = noise_for(state, rows=len(batch))
    drawn = [policy_by_hand(state, o, z)[0] for o, z in zip(batch.next_obs, noise.next_action, strict=True)]  # type: ignore[arg-type]
    pairs = ((batch.obs, batch.action.tolist()), (batch.next_obs, drawn))
    rows = [[*o.tolist(), *a] for obs, actions in pairs for o, a in zip(obs, actions, strict=True)]
    joint = torch.tensor(rows, dtype=torch.float64)
    update(state, batch, noise)
    found = {name: buffer.double().flatten() for name, buffer in state.critic.named_buffers()}
    width = joint.shape[1]
    for which in (slice(0, width), slice(width, 2 * width)):  # of either critic
        assert torch.allclose(found["mean0"][which], MOMENTUM * joint.mean(dim=0), atol=1e-7)
        variance = 1.0 - MOMENTUM + MOMENTUM * joint.var(dim=0, correction=0)
        assert torch.allclose(found["variance0"][which], variance, atol=1e-6)


def test_bug_09_cross_qs_actor_asks_by_the_running_statistics() -> None:
    """By those of the batch of its own actions, the critics would answer another question than they were trained on."""
    state, batch = known_cross_q(), some_batch()
    mean, variance = (torch.linspace(low, 2.0, 10).reshape(2, 1, 5) for low in (-1.0, 0.5))
    state.critic.mean0.copy_(mean)  # type: ignore[operator]
    state.critic.variance0.copy_(variance)  # type: ignore[operator]
    q = state.critic.frozen(batch.obs, batch.action).detach()
    weight, bias = (part.detach().double() for part in (state.critic.layers[0].weight, state.critic.layers[0].bias))
    x = torch.cat((batch.obs, batch.action), dim=1).double()
    for which in range(2):
        normed = (x - mean[which].double()) / (variance[which].double() + EPS).sqrt()
        assert torch.allclose(q[which].double(), (normed @ weight[which] + bias[which])[:, 0], atol=1e-5)


# --- any algorithm -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_bug_07_a_policy_is_smooth_from_one_step_to_the_next_however_many_a_row_has(variant: str) -> None:
    """μ(s) against μ of the state n steps later damps what the arm is meant to do, and lets it tremble in between."""
    one, other = (fresh_variant(variant, smooth_time=10.0) for _ in range(2))
    batch = over_several_steps(some_batch())
    for state, after in ((one, batch.obs + 0.1), (other, batch.obs - 0.1)):
        update(state, dataclasses.replace(batch, after=after), noise_for(state, rows=len(batch)))
    assert "actor" in changed(weights(one), weights(other))


@pytest.mark.parametrize("variant", VARIANTS)
def test_bug_09_an_update_normalises_every_observation(variant: str) -> None:
    """Of raw ones with a normaliser it is, to the bit, the update of normalised ones without: s or s' left raw is not."""
    plain, scaled = (fresh_variant(variant, smooth_time=1.0) for _ in range(2))
    batch = over_several_steps(some_batch())
    batch = dataclasses.replace(batch, after=batch.obs.flip(0))
    scaled.normaliser.mean.fill_(2.0)
    scaled.normaliser.std.fill_(8.0)
    observed = {"obs": batch.obs, "next_obs": batch.next_obs, "after": batch.obs.flip(0)}
    normalised = dataclasses.replace(batch, **{name: (x - 2.0) / 8.0 for name, x in observed.items()})
    noise = noise_for(plain, rows=len(batch))
    metrics = [{k: float(v) for k, v in update(s, b, noise).items()} for s, b in ((plain, normalised), (scaled, batch))]
    assert metrics[0] == metrics[1]
    assert changed(weights(plain), weights(scaled)) == {"normaliser"}


Columns = TypeVar("Columns", Batch, Noise)


def in_double(columns: Columns) -> Columns:
    parts = (getattr(columns, field.name) for field in dataclasses.fields(columns))
    return type(columns)(*(part if part is None else part.double() for part in parts))


def made_double(state: Algorithm) -> Algorithm:
    """All numbers in float64, in place."""
    for module in state.modules().values():
        module.double()
    for scalar in state.scalars().values():
        scalar.data = scalar.data.double()
    return state


def both_precisions(variant: str) -> tuple[Algorithm, Algorithm]:
    """The same learner twice, with a policy that is at its limits often: there most digits can be lost."""
    made = []
    for _ in range(2):
        state = fresh_variant(variant, hidden=(32, 32), activation="silu")
        with torch.no_grad():
            state.actor.last.bias[:ACT_DIM] += torch.tensor([6.0, -1.0])
        made.append(state)
    return made[0], made_double(made[1])


def gradients(state: Algorithm) -> dict[str, Tensor]:
    """Of all that an optimizer moves, by its name and number."""
    return {
        f"{name} {number}": parameter.grad
        for name, adam in state.optimizers().items()
        for number, parameter in enumerate(adam.param_groups[0]["params"])
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_bug_10_a_whole_update_in_float32_is_that_in_float64_to_rounding(variant: str) -> None:
    """Half precision somewhere, or a difference of large numbers, gives no error: it learns from other gradients."""
    single, double = both_precisions(variant)
    batch, noise = some_batch(64), noise_for(single, rows=64)
    got, exact = update(single, batch, noise), update(double, in_double(batch), in_double(noise))
    for name, value in got.items():
        assert value.dtype == torch.float32 and exact[name].dtype == torch.float64
        assert float(value) == pytest.approx(float(exact[name]), rel=1e-5), name
    wanted = gradients(double)
    for name, gradient in gradients(single).items():
        off = torch.linalg.vector_norm(gradient.double() - wanted[name])
        assert float(off / torch.linalg.vector_norm(wanted[name])) < 1e-5, name


def test_bug_10_sacs_target_in_float32_is_that_in_float64_to_rounding() -> None:
    """Row by row: a mean would hide a row that is off."""
    single, double = both_precisions("sac")
    assert isinstance(single, SacState) and isinstance(double, SacState)
    batch, noise, alpha = some_batch(64), some_noise(single, 64), torch.tensor(ALPHA)
    with torch.no_grad():
        y = soft_target(single, batch, batch.next_obs, noise, alpha)
        exact = soft_target(double, in_double(batch), batch.next_obs.double(), in_double(noise), alpha.double())
    assert y.dtype == torch.float32 and exact.dtype == torch.float64
    assert float(((y.double() - exact) / exact).abs().max()) < 1e-5
