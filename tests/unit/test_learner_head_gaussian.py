"""The tanh-Gaussian: its density, its bounds, its numerics."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from robotsac.learner.heads.gaussian import TanhGaussian, bounded_log_std, log_prob, squash, tanh_log_det

HEAD = TanhGaussian(-5.0, 2.0)


@pytest.mark.parametrize("mean", [0.0, 0.8, -2.0])
@pytest.mark.parametrize("log_std", [-3.0, -1.5, 0.0, 1.0])
def test_density_over_the_action_interval_integrates_to_one(mean: float, log_std: float) -> None:
    # Integrated over u, where it is smooth: da = (1 − tanh² u) du.
    sigma = math.exp(log_std)
    u = torch.linspace(mean - 9 * sigma, mean + 9 * sigma, 20001, dtype=torch.float64)[:, None]
    density = log_prob(u, torch.full_like(u, log_std), (u - mean) / sigma).exp()
    jacobian = tanh_log_det(u)[:, 0].exp()
    assert float(torch.trapezoid(density * jacobian, u[:, 0])) == pytest.approx(1.0, abs=1e-3)


def test_density_is_per_unit_of_the_action() -> None:
    # σ large and squashed: nearly all mass at ±1. σ small at 0: a Gaussian of the same σ.
    zero = torch.zeros(1, 1, dtype=torch.float64)
    assert float(log_prob(zero, zero + math.log(0.01), zero)) == pytest.approx(-math.log(0.01 * math.sqrt(2 * math.pi)))


def test_log_det_in_float32_agrees_with_float64_and_has_finite_gradients() -> None:
    u = torch.linspace(-20, 20, 4001, requires_grad=True)
    exact = tanh_log_det(u.detach().double())
    got = tanh_log_det(u)
    assert torch.allclose(got.double(), exact, atol=1e-4)
    got.sum().backward()
    assert u.grad is not None and bool(u.grad.isfinite().all())


def test_log_det_does_not_saturate() -> None:
    # 1 − tanh²(10) = 8.24e-9: its logarithm is −18.61, where the textbook form in float32 says −13.8.
    assert float(tanh_log_det(torch.tensor(10.0))) == pytest.approx(-18.6137, abs=1e-3)


@given(st.floats(-1e6, 1e6))
def test_log_std_stays_within_its_bounds_for_any_raw_output(raw: float) -> None:
    got = float(bounded_log_std(torch.tensor(raw, dtype=torch.float64), -5.0, 2.0))
    assert -5.0 <= got <= 2.0


def test_log_std_is_in_the_middle_at_zero_and_has_a_gradient_far_out() -> None:
    raw = torch.tensor([0.0, 3.0], dtype=torch.float64, requires_grad=True)
    got = bounded_log_std(raw, -5.0, 2.0)
    got.sum().backward()
    assert float(got[0].detach()) == pytest.approx(-1.5)
    assert raw.grad is not None and bool((raw.grad > 0).all())
    far = torch.tensor([-8.5, 8.5], requires_grad=True)
    bounded_log_std(far, -5.0, 2.0).sum().backward()
    assert far.grad is not None and bool((far.grad > 0).all())


def test_log_prob_is_summed_over_dimensions_and_one_per_row() -> None:
    mean, raw, noise = torch.randn(4, 3), torch.randn(4, 3), torch.randn(4, 3)
    action, got = HEAD.sample(torch.cat((mean, raw), dim=1), noise)
    assert action.shape == (4, 3)
    assert got.shape == (4,)
    alone = [
        HEAD.sample(torch.stack((mean[i, j], raw[i, j]))[None], noise[i : i + 1, j : j + 1]).log_prob
        for i in range(4)
        for j in range(3)
    ]
    assert torch.allclose(got, torch.stack(alone).reshape(4, 3).sum(dim=1), atol=1e-5)


@pytest.mark.parametrize(("mean", "raw"), [(0.0, 0.0), (0.8, -0.45), (-2.0, 0.3)])
def test_log_probability_is_that_of_torchs_normal_behind_tanh(mean: float, raw: float) -> None:
    rows = torch.tensor([[mean, raw]], dtype=torch.float64).expand(500, 2)
    noise = torch.randn(500, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    action, got = HEAD.sample(rows, noise)
    log_std = HEAD.parameters(rows)[1][0, 0]
    reference = TransformedDistribution(Normal(mean, log_std.exp().item()), TanhTransform(), validate_args=False)
    # Back from the action through atanh: exact enough in float64 away from ±1.
    kept = action[:, 0].abs() < 0.9999
    assert kept.sum() > 400
    assert torch.allclose(got[kept], reference.log_prob(action[kept, 0]), atol=1e-6)


def test_the_score_keeps_its_digits_at_a_large_mean_and_a_small_spread() -> None:
    # u = 20 ± 0.007 has four digits behind the point in float32; u − μ would say little about the noise.
    raw = torch.tensor([[20.0, -20.0]]).expand(500, 2)
    noise = torch.randn(500, 1, generator=torch.Generator().manual_seed(1))
    found = []
    for dtype in (torch.float32, torch.float64):
        leaf = raw.to(dtype).clone().requires_grad_()
        draw = HEAD.sample(leaf, noise.to(dtype), pathwise=False)
        draw.log_prob.sum().backward()
        assert leaf.grad is not None
        found.append((draw.log_prob.detach().double(), leaf.grad[:, 0].double()))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-4)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-5, atol=1e-3)


def test_zero_noise_gives_the_squashed_mean() -> None:
    mean = torch.tensor([[0.3, -4.0]])
    assert torch.equal(squash(mean, torch.zeros(1, 2), torch.zeros(1, 2)), torch.tanh(mean))


def test_what_is_learned_from_is_what_runs_on_the_robot() -> None:
    raw, noise = torch.randn(5, 4), torch.randn(5, 2)
    assert torch.equal(HEAD.sample(raw, noise).action, HEAD.action(raw, noise))
