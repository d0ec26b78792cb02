"""The Beta head: its density, the samples it makes of normal numbers, and the gradients of both."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from head_world import BETA, KOLMOGOROV_MAX, RAWS, draws, kolmogorov, noise_for, raw_of
from torch import Tensor
from torch.distributions import AffineTransform, TransformedDistribution
from torch.distributions import Beta as TorchBeta

from robotsac.config.learn import BETA_SIGMA_MIN
from robotsac.learner.heads.beta import EXCESS_MAX, X_MIN, log_density, with_pathwise_gradient
from robotsac.learner.heads.gamma import CANDIDATES, gamma

Polynomial = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def raw_for(a: float, b: float, rows: int = 1) -> Tensor:
    """(rows, 2) whose concentrations are a and b (float64); 1 is that of −50 to within 2e-22."""
    excess = [(c - 1.0) / (1.0 - (c - 1.0) / EXCESS_MAX) for c in (a, b)]
    return torch.tensor([[math.log(math.expm1(e)) if e else -50.0 for e in excess]]).double().expand(rows, 2)


# --- density and samples -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(len(RAWS["beta"])))
def test_log_probability_is_that_of_torchs_beta_stretched_to_two(index: int) -> None:
    action, log_prob = draws("beta", index, rows=500)
    a, b = (part[0, 0] for part in BETA.parameters(raw_of("beta", index)))
    reference = TransformedDistribution(TorchBeta(a, b), AffineTransform(-1.0, 2.0), validate_args=False)
    assert torch.allclose(log_prob, reference.log_prob(action[:, 0]), atol=1e-6)


def test_the_density_is_per_unit_of_an_action_interval_of_length_two() -> None:
    # Beta(1, 1) is uniform: the density on [-1, 1] is a half, not one.
    log_prob = BETA.sample(raw_for(1.0, 1.0, rows=100), noise_for(BETA, 100, seed=0)).log_prob
    assert torch.allclose(log_prob, torch.full_like(log_prob, -math.log(2.0)), atol=1e-9)


@pytest.mark.parametrize(
    ("a", "b", "distribution"),
    [
        (1.0, 1.0, lambda x: x),
        (2.0, 1.0, lambda x: x**2),
        (1.0, 30.0, lambda x: 1 - (1 - x) ** 30),
        (2.0, 2.0, lambda x: 3 * x**2 - 2 * x**3),
        (2.0, 3.0, lambda x: 6 * x**2 - 8 * x**3 + 3 * x**4),
    ],
)
def test_samples_have_the_cdf_where_it_is_a_polynomial(a: float, b: float, distribution: Polynomial) -> None:
    action = BETA.sample(raw_for(a, b, rows=20_000), noise_for(BETA, 20_000, seed=1)).action[:, 0]
    assert kolmogorov(((action + 1) / 2).numpy(), distribution) < KOLMOGOROV_MAX  # type: ignore[arg-type]


@pytest.mark.parametrize("raw", [(1e4, -1e4), (-1e4, 1e4), (3e4, 3e4)])
def test_actions_stay_inside_the_open_interval_in_float32(raw: tuple[float, float]) -> None:
    # An epsilon of 1e-45 would leave 1 − ε = 1, and log(1 − x) = −∞.
    assert float(torch.tensor(1.0) - torch.tensor(X_MIN)) < 1.0
    rows = torch.tensor([raw]).expand(2000, 2).clone().requires_grad_()
    action, log_prob = BETA.sample(rows, noise_for(BETA, 2000, seed=2, dtype=torch.float32))
    assert bool((action.abs() < 1.0).all())
    assert bool(log_prob.isfinite().all())
    (action.sum() + log_prob.sum()).backward()
    assert rows.grad is not None and bool(rows.grad.isfinite().all())


def test_silence_is_the_mean() -> None:
    # E[x] = 3/4 of Beta(3, 1), stretched: 1/2.
    assert float(BETA.action(raw_for(3.0, 1.0), torch.zeros(1, BETA.noises))) == pytest.approx(0.5)


def test_concentrations_are_bounded_where_float32_still_has_their_density() -> None:
    a, b = BETA.parameters(torch.tensor([[1e9, -1e9]]))
    assert (float(a), float(b)) == (pytest.approx(1.0 + EXCESS_MAX, rel=1e-4), 1.0)
    # The variance of 2x − 1 with both at c is 1/(2c + 1).
    assert (2.0 * float(a) + 1.0) ** -0.5 == pytest.approx(BETA_SIGMA_MIN, rel=0.02)
    raw = torch.tensor([[3e4, -5.0]], requires_grad=True)
    torch.stack(BETA.parameters(raw)).sum().backward()
    assert raw.grad is not None and bool((raw.grad > 0).all()), "a policy finds its way back"


@pytest.mark.parametrize(("concentration", "tolerance"), [(20.0, 1e-4), (2000.0, 1e-2)])
def test_density_in_float32_agrees_with_float64(concentration: float, tolerance: float) -> None:
    x = torch.linspace(0.01, 0.99, 99)
    a, b = torch.full_like(x, concentration), torch.full_like(x, 0.3 * concentration)
    exact = log_density(x.double(), a.double(), b.double())
    near = exact > -30  # farther out nothing is drawn
    assert near.sum() > 5
    assert torch.allclose(log_density(x, a, b).double()[near], exact[near], atol=tolerance)


# --- gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (1.5, 4.0), (22.0, 22.0), (300.0, 40.0)])
def test_pathwise_gradients_are_those_of_torchs_rsample(a: float, b: float) -> None:
    torch.manual_seed(0)
    theirs = [torch.full((500,), c, dtype=torch.float64, requires_grad=True) for c in (a, b)]
    x = TorchBeta(*theirs).rsample()
    x.sin().sum().backward()
    ours = [torch.full((500,), c, dtype=torch.float64, requires_grad=True) for c in (a, b)]
    with_pathwise_gradient(x.detach(), *ours).sin().sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad is not None and other.grad is not None
        assert torch.allclose(mine.grad, other.grad, rtol=1e-6, atol=1e-12)


def test_pathwise_gradient_is_the_implicit_one_where_the_cdf_is_a_power() -> None:
    # F(x; a, 1) = x^a: dx/da = −(x^a log x)/(a x^{a−1}) = −x log x / a.
    x = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    a = torch.full_like(x, 2.5, requires_grad=True)
    with_pathwise_gradient(x, a, torch.ones_like(x)).sum().backward()
    assert a.grad is not None
    assert torch.allclose(a.grad, -x * x.log() / 2.5, rtol=5e-3)


@pytest.mark.parametrize(("a", "b"), [(1.2, 1.2), (1.5, 4.0), (22.0, 22.0), (300.0, 40.0)])
def test_gradients_of_the_mean_are_the_analytic_ones(a: float, b: float) -> None:
    # d E[x]/da = b/(a + b)², d E[x]/db = −a/(a + b)²; the raw output's by the derivatives of softplus and of its bound.
    rows = 50_000
    raw = raw_for(a, b, rows).clone().requires_grad_()
    ((BETA.sample(raw, noise_for(BETA, rows, seed=3)).action + 1.0) / 2.0).sum().backward()
    assert raw.grad is not None
    bounded = (1.0 - (torch.tensor([a, b]).double() - 1.0) / EXCESS_MAX) ** 2
    expected = torch.tensor([b, -a]).double() / (a + b) ** 2 * torch.sigmoid(raw.detach()[0]) * bounded
    error = raw.grad.std(dim=0) / math.sqrt(rows)
    # torch's series are good to a part in a thousand.
    assert bool(((raw.grad.mean(dim=0) - expected).abs() < 4 * error + 2e-3 * expected.abs()).all())
    assert bool((expected.abs() > 20 * error).all())


# --- Gamma ---------------------------------------------------------------------------------------------------------

CONCENTRATIONS = [1.0, 1.7, 5.0, 22.0, 1000.0]


def gammas(concentration: float, rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    place, judge = torch.randn(2, rows, CANDIDATES, 1, generator=generator, dtype=torch.float64)
    return gamma(torch.full((rows, 1), concentration, dtype=torch.float64), place, judge)[:, 0]


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_gamma_numbers_have_their_cdf(concentration: float) -> None:
    def distribution(z: object) -> object:
        places = torch.as_tensor(z)
        return torch.special.gammainc(torch.full_like(places, concentration), places).numpy()

    assert kolmogorov(gammas(concentration, 40_000, seed=5).numpy(), distribution) < KOLMOGOROV_MAX  # type: ignore[arg-type]


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_the_implicit_derivative_of_a_gamma_number_has_mean_one(concentration: float) -> None:
    # E[z] = α. dz/dα = −(∂F/∂α)/q(z), ∂F/∂α by differences of the regularised incomplete gamma function.
    z = gammas(concentration, 20_000, seed=6)
    alpha, h = torch.full_like(z, concentration), 1e-5 * concentration
    slope = (torch.special.gammainc(alpha + h, z) - torch.special.gammainc(alpha - h, z)) / (2 * h)
    log_q = (concentration - 1.0) * z.log() - z - math.lgamma(concentration)
    derivative = -slope / log_q.exp()
    assert float(derivative.mean()) == pytest.approx(1.0, abs=4 * float(derivative.std()) / math.sqrt(len(z)))
    assert torch.allclose(derivative, torch._standard_gamma_grad(alpha, z), rtol=1e-2, atol=1e-3)


def test_candidates_that_all_fail_still_give_a_number() -> None:
    # Roots below zero for every candidate: z = α − 1/3, near the mode.
    place, judge = torch.full((1, CANDIDATES, 1), -6.0), torch.zeros(1, CANDIDATES, 1)
    assert float(gamma(torch.ones(1, 1), place, judge)) == pytest.approx(2 / 3)
