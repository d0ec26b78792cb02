"""Gradient corrections: against dense matrices, on games whose course is known, and in SAC."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from learner_world import RATE_HZ, settings
from torch import Tensor

from robotsac.learner.actor_loss import actor_loss
from robotsac.learner.actor_step import update_temperature
from robotsac.learner.algorithm import Noise, update
from robotsac.learner.correction import Correction, jacobian_product, transposed_product
from robotsac.learner.critic import critic_loss
from robotsac.learner.replay import Batch
from robotsac.learner.sac import SacState, soft_target

CPU = torch.device("cpu")
Kind = Literal["consensus", "symplectic"]
KINDS: tuple[Kind, ...] = ("consensus", "symplectic")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def flat(vectors: list[Tensor] | list[list[Tensor]]) -> Tensor:
    return torch.cat([v.reshape(-1) if isinstance(v, Tensor) else flat(v) for v in vectors])


def corrected_densely(kind: Kind, weight: float, xi: Tensor, jacobian: Tensor) -> Tensor:
    """What the papers say, with H written out; the sign of λ without any tolerance."""
    transposed = jacobian.T @ xi
    if kind == "consensus":
        return xi + weight * transposed
    adjustment = 0.5 * (jacobian - jacobian.T).T @ xi
    sign = 1.0 if float((xi @ transposed) * (adjustment @ transposed)) >= 0 else -1.0
    return xi + sign * weight * adjustment


# --- quadratic games ---------------------------------------------------------------------------------------------


def quadratic_game(seed: int) -> tuple[list[Tensor], list[list[Tensor]], Tensor, Tensor]:
    """Three players with ½ wᵀM w + bᵀw each, w all their parameters; their losses, parameters, ξ and H, in float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [[(2, 3), (1,)], [(4,)], [(2, 2), (1,)]]
    players = [
        [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in player]
        for player in shapes
    ]
    sizes = [sum(p.numel() for p in player) for player in players]
    total, w = sum(sizes), flat(players)
    losses, xi, rows, start = [], [], [], 0
    for size in sizes:
        m = torch.randn(total, total, generator=generator, dtype=torch.float64)
        b = torch.randn(total, generator=generator, dtype=torch.float64)
        losses.append(0.5 * w @ m @ w + b @ w)
        symmetric = 0.5 * (m + m.T)
        rows.append(symmetric[start : start + size])
        xi.append((symmetric @ w + b)[start : start + size].detach())
        start += size
    return losses, players, torch.cat(xi), torch.cat(rows)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", KINDS)
def test_a_quadratic_game_is_corrected_as_its_dense_matrix_says(kind: Kind, seed: int) -> None:
    losses, players, xi, jacobian = quadratic_game(seed)
    got = flat(Correction(kind, 0.3, normalised=False).gradients(losses, players))
    assert torch.allclose(got, corrected_densely(kind, 0.3, xi, jacobian), atol=1e-9, rtol=1e-9)


def test_the_sign_of_the_adjustment_is_met_both_ways_among_those_games() -> None:
    # Else the test above would not test it.
    signs = set()
    for seed in range(20):
        _, _, xi, jacobian = quadratic_game(seed)
        adjustment = 0.5 * (jacobian - jacobian.T).T @ xi
        signs.add(bool((corrected_densely("symplectic", 0.3, xi, jacobian) - xi) @ adjustment > 0))
    assert signs == {True, False}


def test_products_with_the_jacobian_and_its_transpose_are_those_of_the_dense_matrix() -> None:
    losses, players, _, jacobian = quadratic_game(1)
    parameters = [p for player in players for p in player]
    xi = [
        g
        for loss, player in zip(losses, players, strict=True)
        for g in torch.autograd.grad(loss, player, create_graph=True)
    ]
    generator = torch.Generator().manual_seed(5)
    vector = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    assert torch.allclose(flat(transposed_product(xi, parameters, vector)), jacobian.T @ flat(vector), atol=1e-9)
    assert torch.allclose(flat(jacobian_product(xi, parameters, vector)), jacobian @ flat(vector), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_normalised_corrections_are_as_long_as_the_gradient_player_by_player(kind: Kind) -> None:
    losses, players, xi, _ = quadratic_game(2)
    got = Correction(kind, 0.5, normalised=True).gradients(losses, players)
    start = 0
    for player in got:
        plain = xi[start : start + flat(player).numel()]
        start += flat(player).numel()
        assert float((flat(player) - plain).norm()) == pytest.approx(0.5 * float(plain.norm()), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalised", [False, True])
def test_games_without_curvature_or_gradient_are_left_as_they_are(kind: Kind, normalised: bool) -> None:
    x, y = (torch.tensor(v, requires_grad=True) for v in (1.0, 2.0))
    linear = Correction(kind, 0.5, normalised).gradients((3.0 * x, -2.0 * y), ([x], [y]))
    assert [float(g) for player in linear for g in player] == [3.0, -2.0]
    zero = torch.zeros((), requires_grad=True)
    still = Correction(kind, 0.5, normalised).gradients((zero * zero, zero.square()), ([zero], [zero]))
    assert [float(g) for player in still for g in player] == [0.0, 0.0]


def test_where_the_alignment_is_undefined_the_sign_is_positive() -> None:
    # Losses xy and 3y at y = 0: ξ = (0, 3), H = [[0, 1], [0, 0]], so Hᵀξ = 0 while Aᵀξ = (−1.5, 0).
    x, y = (torch.tensor(v, requires_grad=True) for v in (1.0, 0.0))
    got = Correction("symplectic", 0.5, normalised=False).gradients((x * y, 3.0 * y), ([x], [y]))
    assert [float(g) for player in got for g in player] == [-0.75, 3.0]


# --- the bilinear game -------------------------------------------------------------------------------------------


def bilinear_step(kind: Kind | None, w: Tensor, rate: float, weight: float) -> Tensor:
    """One simultaneous step of players x and y with losses xy and −xy."""
    x, y = (v.clone().requires_grad_(True) for v in w)
    losses = (x * y, -x * y)
    if kind is None:
        xi = [*torch.autograd.grad(losses[0], x), *torch.autograd.grad(losses[1], y)]
    else:
        xi = [g for (g,) in Correction(kind, weight, normalised=False).gradients(losses, ([x], [y]))]
    return w - rate * torch.stack(xi)


def test_plain_descent_spirals_out_of_the_bilinear_game_by_a_known_factor() -> None:
    w = torch.tensor([0.6, -0.8], dtype=torch.float64)
    for step in range(1, 11):
        w = bilinear_step(None, w, 0.1, 0.0)
        assert float(w.norm()) == pytest.approx(math.sqrt(1.01) ** step, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_both_corrections_shrink_the_bilinear_game_by_a_known_factor(kind: Kind) -> None:
    # H = [[0, 1], [−1, 0]] has no symmetric part, so A = H and both give w − η(H + λ)w: |1 − ηλ − ηi| per step.
    w, rate, weight = torch.tensor([0.6, -0.8], dtype=torch.float64), 0.1, 0.5
    for step in range(1, 101):
        w = bilinear_step(kind, w, rate, weight)
        assert float(w.norm()) == pytest.approx(math.hypot(1 - rate * weight, rate) ** step, rel=1e-9)
    assert float(w.norm()) < 0.02


@pytest.mark.parametrize(("stable", "factor"), [(True, 1.0), (False, -1.0)])
def test_the_adjustment_pulls_towards_a_stable_point_and_pushes_off_an_unstable_one(
    stable: bool, factor: float
) -> None:
    # Rotation plus a pull (or push) s: ξᵀHᵀξ = ±s|ξ|² and (Aᵀξ)ᵀHᵀξ = |ξ|², so λ's sign is that of s.
    s = 0.5 if stable else -0.5
    x, y = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.6, -0.8))
    losses = (0.5 * s * x * x + x * y, 0.5 * s * y * y - x * y)
    got = flat(Correction("symplectic", 0.25, normalised=False).gradients(losses, ([x], [y])))
    xi = torch.tensor([s * 0.6 - 0.8, s * -0.8 - 0.6], dtype=torch.float64)
    adjustment = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64) @ xi
    assert torch.allclose(got, xi + factor * 0.25 * adjustment, atol=1e-12)
    w = torch.tensor([0.6, -0.8], dtype=torch.float64)
    along, along_plain = float(w @ got), float(w @ xi)
    assert (along > along_plain) is stable  # descent goes against the gradient: more of it pulls in


def test_rounding_does_not_turn_the_adjustment_of_a_pure_rotation_around() -> None:
    # ξᵀHᵀξ is 0 here, in float32 a small number of either sign.
    generator = torch.Generator().manual_seed(0)
    correction = Correction("symplectic", 1.0, normalised=False)
    rounded = set()
    for _ in range(40):
        b = torch.randn(300, 300, generator=generator)
        x, y = (torch.randn(300, generator=generator).requires_grad_(True) for _ in range(2))
        got = flat(correction.gradients((x @ b @ y, -x @ b @ y), ([x], [y])))
        xi = torch.cat((b @ y, -b.T @ x)).detach()
        transposed = torch.cat((b @ b.T @ x, b.T @ b @ y)).detach()  # Aᵀξ = Hᵀξ
        rounded.add(bool(xi @ transposed < 0))
        assert torch.allclose(got, xi + transposed, atol=1e-4 * float(transposed.norm()))
    assert rounded == {True, False}


# --- SAC ---------------------------------------------------------------------------------------------------------

OBS, ACT = 2, 1


def fresh(**learn: object) -> SacState:
    small = {"hidden": (5,), "activation": "silu", "temperature_init": 0.2, "horizon_s": 10 / RATE_HZ}
    return SacState.create(settings(**small | learn).learn, OBS, ACT, RATE_HZ, CPU)


def doubled(state: SacState) -> SacState:
    for module in state.modules().values():
        module.double()
    state.log_alpha.data = state.log_alpha.data.double()
    with torch.no_grad():
        for parameter in state.actor.parameters():  # away from the small first policy, where all curvature is small
            generator = torch.Generator().manual_seed(parameter.numel())
            parameter.normal_(0.0, 0.5, generator=generator)
    return state


def some_batch(rows: int = 6, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(rows, OBS * 2 + ACT + 1, generator=generator, dtype=dtype)
    obs, next_obs, action, reward = wide.split([OBS, OBS, ACT, 1], dim=1)
    return Batch(obs, action.tanh(), reward[:, 0], next_obs, torch.zeros(rows, dtype=dtype))


def some_noise(rows: int = 6, seed: int = 1, dtype: torch.dtype = torch.float32, width: int = ACT) -> Noise:
    both = torch.randn(2, rows, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return Noise(both[0], both[1])


def game(state: SacState, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor, int]:
    """ξ and H of the game that the docstring describes, H row by row; and where the actor's rows begin."""
    alpha = state.log_alpha.detach().exp()
    q_loss = critic_loss(state.critic(batch.obs, batch.action), soft_target(state, batch, batch.next_obs, noise, alpha))
    action, log_prob = state.actor.sample(batch.obs, noise.action)
    policy_loss = actor_loss(log_prob, state.critic(batch.obs, action).amin(dim=0), alpha)
    theta, phi = list(state.critic.parameters()), list(state.actor.parameters())
    xi = flat(
        [
            *torch.autograd.grad(q_loss, theta, create_graph=True),
            *torch.autograd.grad(policy_loss, phi, create_graph=True),
        ]
    )
    rows = []
    for entry in xi:
        row = torch.autograd.grad(entry, [*theta, *phi], retain_graph=True, allow_unused=True)
        parts = zip(row, [*theta, *phi], strict=True)
        rows.append(flat([torch.zeros_like(p) if g is None else g for g, p in parts]))
    return xi.detach(), torch.stack(rows), sum(p.numel() for p in theta)


def test_critic_and_actor_depend_on_each_other_both_ways() -> None:
    state = doubled(fresh())
    _, jacobian, border = game(state, some_batch(dtype=torch.float64), some_noise(dtype=torch.float64))
    critic_by_actor, actor_by_critic = jacobian[:border, border:], jacobian[border:, :border]
    scale = float(jacobian.abs().max())
    assert float(critic_by_actor.abs().max()) > 1e-3 * scale
    assert float(actor_by_critic.abs().max()) > 1e-3 * scale
    assert not torch.allclose(critic_by_actor, actor_by_critic.T, atol=1e-3 * scale)  # a rotation, not one potential


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", ["gaussian", "mixture"])
@pytest.mark.parametrize("normed", [True, False])
def test_sacs_corrected_gradients_are_those_of_the_dense_matrix(kind: Kind, normed: bool, head: str) -> None:
    choice = {"correction": kind, "correction_weight": 0.3, "critic_layer_norm": normed, "head": head}
    width = fresh(**choice).noise_shape.action
    batch, noise = some_batch(dtype=torch.float64), some_noise(dtype=torch.float64, width=width)
    xi, jacobian, _ = game(doubled(fresh(**choice)), batch, noise)
    state = doubled(fresh(**choice))
    update(state, batch, noise)
    got = flat([p.grad for p in (*state.critic.parameters(), *state.actor.parameters()) if p.grad is not None])
    expected = corrected_densely(kind, 0.3, xi, jacobian)
    assert torch.allclose(got, expected, atol=1e-6 * float(expected.abs().max()))
    assert float((expected - xi).norm()) > 1e-3 * float(xi.norm())


def simultaneous(state: SacState, batch: Batch, noise: Noise) -> None:
    """Plain SAC with both gradients taken before either step."""
    alpha = state.log_alpha.detach().exp()
    with torch.no_grad():
        target = soft_target(state, batch, batch.next_obs, noise, alpha)
    action, log_prob = state.actor.sample(batch.obs, noise.action)
    policy_loss = actor_loss(log_prob, state.critic.frozen(batch.obs, action).amin(dim=0), alpha)
    q_loss = critic_loss(state.critic(batch.obs, batch.action), target)
    for adam, loss in ((state.actor_adam, policy_loss), (state.critic_adam, q_loss)):
        adam.zero_grad()
        loss.backward()
    state.actor_adam.step()
    state.critic_adam.step()
    update_temperature(state, log_prob.detach())
    torch._foreach_lerp_(state.target.tensors, [t.detach() for t in state.critic.tensors], state.constants.polyak)


@pytest.mark.parametrize("kind", KINDS)
def test_without_weight_it_is_plain_simultaneous_sac(kind: Kind) -> None:
    corrected, plain = fresh(correction=kind, correction_weight=1e-30), fresh()
    for i in range(5):
        update(corrected, some_batch(seed=i), some_noise(seed=i))
        simultaneous(plain, some_batch(seed=i), some_noise(seed=i))
    for name, module in plain.modules().items():
        for key, tensor in module.state_dict().items():
            # The same numbers along another order of float32 sums; Adam's steps are of size 1e-3.
            assert torch.allclose(corrected.modules()[name].state_dict()[key], tensor, atol=2e-6), (name, key)
    assert torch.allclose(corrected.log_alpha, plain.log_alpha, atol=2e-6)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_sac_runs_with_a_correction_and_goes_another_way(kind: Kind, normalised: bool) -> None:
    corrected = fresh(correction=kind, correction_normalised=normalised)
    slight = fresh(correction=kind, correction_normalised=normalised, correction_weight=1e-30)
    for state in (corrected, slight):
        for i in range(20):
            metrics = update(state, some_batch(seed=i), some_noise(seed=i))
        assert set(metrics) == {"critic_loss", "q", "actor_loss", "entropy", "alpha"}
        assert all(math.isfinite(float(value)) and not value.requires_grad for value in metrics.values())
        assert all(p.grad is None for p in state.target.parameters())
        assert state.updates == 20
    for key in ("actor", "critic", "target"):
        ours, theirs = corrected.modules()[key].state_dict(), slight.modules()[key].state_dict()
        assert any(not torch.equal(ours[name], theirs[name]) for name in ours)
        assert all(bool(torch.isfinite(tensor).all()) for tensor in ours.values())
