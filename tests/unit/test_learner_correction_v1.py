"""Gradient corrections in SAC v1: three players, against the dense matrix of the game that is documented."""

from __future__ import annotations

import math

import pytest
import torch
from learner_world import RATE_HZ, settings
from test_learner_correction import ACT, CPU, KINDS, OBS, Kind, corrected_densely, flat, some_batch, some_noise
from torch import Tensor

from robotsac.learner.algorithm import Noise, update
from robotsac.learner.replay import Batch
from robotsac.learner.sac_v1 import SacV1State


def fresh(**learn: object) -> SacV1State:
    """Small, smooth, and away from the first policy, where all curvature is small; in float64."""
    small = {"hidden": (4,), "activation": "silu", "temperature_init": 0.2, "horizon_s": 10 / RATE_HZ}
    state = SacV1State.create(settings(**small | {"variant": "sac_v1"} | learn).learn, OBS, ACT, RATE_HZ, CPU)
    for module in state.modules().values():
        module.double()
    state.log_alpha.data = state.log_alpha.data.double()
    with torch.no_grad():
        for k, parameter in enumerate((*state.actor.parameters(), *state.target.parameters())):
            parameter.normal_(0.0, 0.5, generator=torch.Generator().manual_seed(k))
    return state


def players(state: SacV1State) -> list[list[Tensor]]:
    return [list(network.parameters()) for network in (state.value, state.critic, state.actor)]


def written_out(state: SacV1State, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
    """The three losses of the docstring of ``correction``, from the networks alone."""
    alpha, discount = state.log_alpha.detach().exp(), state.constants.discount
    nothing = batch.obs[:, :0]
    seen, seen_log_prob = state.actor.sample(batch.obs, noise.next_action)
    v_target = torch.minimum(*state.critic(batch.obs, seen)) - alpha * seen_log_prob
    v_loss = (0.5 * (state.value(batch.obs, nothing)[0] - v_target) ** 2).mean()
    y = batch.reward + discount * (1.0 - batch.terminal) * state.target(batch.next_obs, nothing)[0]
    q_loss = sum((0.5 * (q - y) ** 2).mean() for q in state.critic(batch.obs, batch.action))
    action, log_prob = state.actor.sample(batch.obs, noise.action)
    policy_loss = (alpha * log_prob - torch.minimum(*state.critic(batch.obs, action))).mean()
    return v_loss, q_loss, policy_loss


def dense(state: SacV1State, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
    """ξ, and H row by row."""
    own = players(state)
    everything = [p for player in own for p in player]
    losses = written_out(state, batch, noise)
    xi = flat([torch.autograd.grad(loss, p, create_graph=True) for loss, p in zip(losses, own, strict=True)])
    rows = []
    for entry in xi:
        row = torch.autograd.grad(entry, everything, retain_graph=True, allow_unused=True)
        rows.append(flat([torch.zeros_like(p) if g is None else g for g, p in zip(row, everything, strict=True)]))
    return xi.detach(), torch.stack(rows)


def test_v_notices_both_others_and_nobody_notices_v() -> None:
    state = fresh()
    _, jacobian = dense(state, some_batch(dtype=torch.float64), some_noise(dtype=torch.float64))
    value, critic, actor = torch.split(jacobian, [sum(p.numel() for p in player) for player in players(state)])
    sizes = [len(value), len(critic), len(actor)]
    scale = float(jacobian.abs().max())
    assert all(float(block.abs().max()) > 1e-4 * scale for block in torch.split(value, sizes, dim=1))
    assert not critic[:, : sizes[0]].any(), "the target network of V is a constant of the game"
    assert not actor[:, : sizes[0]].any()
    assert float(actor[:, sizes[0] : -sizes[2]].abs().max()) > 1e-4 * scale


@pytest.mark.parametrize("kind", KINDS)
def test_corrected_gradients_are_those_of_the_dense_matrix(kind: Kind) -> None:
    batch, noise = some_batch(dtype=torch.float64), some_noise(dtype=torch.float64)
    choice = {"correction": kind, "correction_weight": 0.3}
    xi, jacobian = dense(fresh(**choice), batch, noise)
    state = fresh(**choice)
    update(state, batch, noise)
    got = flat([p.grad for player in players(state) for p in player if p.grad is not None])
    expected = corrected_densely(kind, 0.3, xi, jacobian)
    assert torch.allclose(got, expected, atol=1e-6 * float(expected.abs().max()))
    assert float((expected - xi).norm()) > 1e-3 * float(xi.norm())


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_runs_with_a_correction_and_goes_another_way(kind: Kind, normalised: bool) -> None:
    corrected = fresh(correction=kind, correction_normalised=normalised)
    slight = fresh(correction=kind, correction_normalised=normalised, correction_weight=1e-30)
    for state in (corrected, slight):
        for i in range(20):
            metrics = update(state, some_batch(seed=i, dtype=torch.float64), some_noise(seed=i, dtype=torch.float64))
        assert set(metrics) == {"value_loss", "v", "critic_loss", "q", "actor_loss", "entropy", "alpha"}
        assert all(math.isfinite(float(value)) and not value.requires_grad for value in metrics.values())
        assert all(p.grad is None for p in state.target.parameters())
        assert state.updates == 20
    for key in ("actor", "critic", "value", "target"):
        ours, theirs = corrected.modules()[key].state_dict(), slight.modules()[key].state_dict()
        assert any(not torch.equal(ours[name], theirs[name]) for name in ours), key
