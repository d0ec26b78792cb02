"""What holds of every policy head: its log-probability is that of its samples, and its numerics hold at the extremes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from head_world import (
    CASES,
    KOLMOGOROV_MAX,
    RAWS,
    STOCHASTIC,
    curve,
    distribution_of,
    draws,
    kolmogorov,
    noise_for,
    raw_of,
)
from torch import Tensor

from robotsac.learner.heads import Deterministic, Head

ALL: dict[str, Head] = {**STOCHASTIC, "deterministic": Deterministic(0.1)}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=list(ALL))
def head(request: pytest.FixtureRequest) -> Head:
    return ALL[request.param]


def some_raw(head: Head, rows: int, act_dim: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    return scale * torch.randn(rows, head.outputs * act_dim, generator=torch.Generator().manual_seed(seed))


# --- density and samples -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "index"), CASES)
def test_the_probability_of_all_actions_is_one(name: str, index: int) -> None:
    places, log_density = curve(name, raw_of(name, index))
    assert float(torch.trapezoid(log_density.exp(), places)) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_the_log_probability_of_a_draw_is_the_log_density_at_its_action(name: str, index: int) -> None:
    action, log_prob = draws(name, index, rows=2000)
    # Where the curve's places lie close enough for straight lines between them.
    inner = action[:, 0].abs() < 0.999
    expected = np.interp(action[inner, 0].numpy(), *(part.numpy() for part in curve(name, raw_of(name, index))))
    assert inner.sum() > 1000
    assert np.abs(log_prob[inner].numpy() - expected).max() < 1e-3


@pytest.mark.parametrize(("name", "index"), CASES)
def test_actions_are_distributed_as_their_log_probability_says(name: str, index: int) -> None:
    action = draws(name, index, rows=20_000, seed=1).action[:, 0]
    assert kolmogorov(action.numpy(), distribution_of(*curve(name, raw_of(name, index)))) < KOLMOGOROV_MAX


@pytest.mark.parametrize(("name", "index"), CASES)
def test_the_mean_log_probability_is_the_negative_entropy(name: str, index: int) -> None:
    log_prob = draws(name, index, rows=40_000, seed=2).log_prob
    places, log_density = curve(name, raw_of(name, index))
    entropy = -float(torch.trapezoid(log_density.exp() * log_density, places))
    error = float(log_prob.std()) / math.sqrt(len(log_prob))
    assert -float(log_prob.mean()) == pytest.approx(entropy, abs=4 * error + 1e-3)


@pytest.mark.parametrize("name", list(STOCHASTIC))
def test_dimensions_are_independent_and_their_log_probabilities_add_up(name: str) -> None:
    head = STOCHASTIC[name]
    raw, noise = some_raw(head, 5, 3), noise_for(head, 5, seed=1, act_dim=3, dtype=torch.float32)
    action, log_prob = head.sample(raw, noise)
    assert action.shape == (5, 3)
    assert log_prob.shape == (5,)
    # Outputs and noises are blocks of act_dim; the mixture's blocks are dimensions of K numbers each.
    blocks = raw.reshape(5, 3, 3, -1) if name == "mixture" else raw.reshape(5, -1, 3, 1)
    alone = [
        head.sample(blocks[:, :, j].reshape(5, -1), noise.reshape(5, -1, 3)[:, :, j].reshape(5, -1)) for j in range(3)
    ]
    assert torch.allclose(action, torch.cat([draw.action for draw in alone], dim=1), atol=1e-6)
    assert torch.allclose(log_prob, torch.stack([draw.log_prob for draw in alone]).sum(dim=0), atol=1e-4)


# --- the action ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(STOCHASTIC))
def test_what_is_learned_from_is_what_runs_on_the_robot(name: str) -> None:
    head = STOCHASTIC[name]
    raw, noise = some_raw(head, 50, 2), noise_for(head, 50, seed=1, act_dim=2, dtype=torch.float32)
    assert torch.allclose(head.sample(raw, noise).action, head.action(raw, noise), atol=1e-6)


def test_actions_stay_within_their_interval_and_finite_for_any_raw_output(head: Head) -> None:
    for scale in (0.0, 1.0, 50.0, 1e4):
        raw = some_raw(head, 500, 2, scale)
        for noise in (torch.zeros(500, 2 * head.noises), 3.0 * torch.randn(500, 2 * head.noises)):
            action = head.action(raw, noise)
            assert action.shape == (500, 2)
            assert bool((action.abs() <= 1.0).all())


def test_silence_is_one_action_whatever_rows_stand_beside_it(head: Head) -> None:
    raw = some_raw(head, 4, 2)
    noise = torch.randn(4, 2 * head.noises, generator=torch.Generator().manual_seed(5))
    noise[1] = 0.0
    silent = head.action(raw, torch.zeros_like(noise))
    got = head.action(raw, noise)
    assert torch.equal(got[1], silent[1])
    assert not torch.isclose(got[[0, 2, 3]], silent[[0, 2, 3]]).any()


def test_the_silent_action_carries_a_gradient_for_smoothness(head: Head) -> None:
    raw = some_raw(head, 4, 2).requires_grad_()
    head.action(raw, torch.zeros(4, 2 * head.noises)).square().sum().backward()
    assert raw.grad is not None and bool(raw.grad.isfinite().all()) and float(raw.grad.abs().sum()) > 0


# --- gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(STOCHASTIC))
def test_without_a_path_the_action_is_a_constant_and_the_values_are_the_same(name: str) -> None:
    head = STOCHASTIC[name]
    raw = some_raw(head, 200, 2).requires_grad_()
    noise = noise_for(head, 200, seed=1, act_dim=2, dtype=torch.float32)
    path, score = head.sample(raw, noise), head.sample(raw, noise, pathwise=False)
    assert path.action.requires_grad and not score.action.requires_grad
    assert torch.equal(path.action, score.action)
    assert torch.allclose(path.log_prob, score.log_prob, atol=1e-5)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_the_score_has_mean_zero(name: str, index: int) -> None:
    # E[∇ log π] = ∇ ∫ π = 0: true only if the samples are those of the density that is differentiated.
    head, rows = STOCHASTIC[name], 40_000
    raw = raw_of(name, index, rows).clone().requires_grad_()
    head.sample(raw, noise_for(head, rows, seed=4), pathwise=False).log_prob.sum().backward()
    assert raw.grad is not None
    error = raw.grad.std(dim=0) / math.sqrt(rows)
    assert bool((raw.grad.mean(dim=0).abs() <= 4.5 * error + 1e-9).all())


@pytest.mark.parametrize("name", list(STOCHASTIC))
def test_float32_agrees_with_float64(name: str) -> None:
    head = STOCHASTIC[name]
    raw, noise = some_raw(head, 2000, 1, scale=0.7), noise_for(head, 2000, seed=1, dtype=torch.float32)
    got, exact = head.sample(raw, noise), head.sample(raw.double(), noise.double())
    assert torch.allclose(got.action.double(), exact.action, atol=1e-5)
    assert torch.allclose(got.log_prob.double(), exact.log_prob, atol=1e-4)


@pytest.mark.parametrize("pathwise", [True, False])
@pytest.mark.parametrize("name", list(STOCHASTIC))
@pytest.mark.parametrize("size", [1.0, 20.0, 50.0])
def test_gradients_are_finite_at_extreme_parameters(name: str, pathwise: bool, size: float) -> None:
    # Every combination of ±size, so components far apart, spreads at either bound, concentrations near 1 and near 51.
    head = STOCHASTIC[name]
    corners = torch.cartesian_prod(*[torch.tensor([-size, 0.0, size])] * head.outputs)
    raw = corners[:: max(1, len(corners) // 3000)].repeat(4, 1).requires_grad_()
    noise = 1.5 * noise_for(head, len(raw), seed=1, dtype=torch.float32)
    action, log_prob = head.sample(raw, noise, pathwise)
    assert bool(action.isfinite().all() and log_prob.isfinite().all())
    (action.square().sum() + log_prob.sum()).backward()
    assert raw.grad is not None and bool(raw.grad.isfinite().all())


def test_every_output_is_learned(head: Head) -> None:
    raw = torch.tensor(RAWS["mixture"][2])[: head.outputs].expand(300, -1).clone().requires_grad_()
    noise = noise_for(head, 300, seed=1, dtype=torch.float32)
    action, log_prob = head.sample(raw, noise)
    (action.square().sum() + 0.1 * log_prob.sum()).backward()
    assert raw.grad is not None and bool((raw.grad.sum(dim=0) != 0).all())
