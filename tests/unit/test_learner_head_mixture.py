"""The mixture: its density and samples against torch's own, its implicit gradients against the analytic expectation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from head_world import KOLMOGOROV_MAX, MIXTURE, RAWS, draws, kolmogorov, noise_for, normal_distribution, raw_of
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal, TanhTransform, TransformedDistribution

from robotsac.learner.heads import TanhGaussian, TanhMixture
from robotsac.learner.heads.mixture import log_density, with_implicit_gradient

MIXED = range(len(RAWS["mixture"]))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def raw_with_means(logits: Tensor, means: Tensor, raw_log_std: float) -> Tensor:
    """(1, 3·K) float64, of components with exactly these means."""
    head = TanhMixture(len(logits), -5.0, 2.0)
    start = head.parameters(torch.zeros(1, head.outputs))[1][0, 0]
    return torch.cat((logits, means - start, torch.full_like(means, raw_log_std))).double()[None]


def cdf(z: Tensor, log_weight: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """F(z): (…,) and parameters (…, K)."""
    return (log_weight.exp() * normal_distribution((z[..., None] - mean) / log_std.exp())).sum(dim=-1)


# --- density and samples -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", MIXED)
def test_log_probability_is_that_of_torchs_mixture_behind_tanh(index: int) -> None:
    action, log_prob = draws("mixture", index, rows=500)
    log_weight, mean, log_std = (part[0, 0] for part in MIXTURE.parameters(raw_of("mixture", index)))
    inner = MixtureSameFamily(Categorical(logits=log_weight), Normal(mean, log_std.exp()))
    # Back from the action through atanh: exact enough in float64 away from ±1.
    kept = action[:, 0].abs() < 0.9999
    reference = TransformedDistribution(inner, TanhTransform(), validate_args=False).log_prob(action[kept, 0])
    assert kept.sum() > 200
    assert torch.allclose(log_prob[kept], reference, atol=1e-6)


@pytest.mark.parametrize("index", MIXED)
def test_samples_before_squashing_have_the_cdf_of_the_mixture(index: int) -> None:
    parameters = [part[0] for part in MIXTURE.parameters(raw_of("mixture", index))]
    z = torch.atanh(draws("mixture", index, rows=20_000, seed=1).action[:, 0])
    assert kolmogorov(z.numpy(), lambda x: cdf(torch.from_numpy(x), *parameters).numpy()) < KOLMOGOROV_MAX


@pytest.mark.parametrize("components", [1, 2, 16])
def test_any_number_of_components_is_drawn_in_its_share(components: int) -> None:
    head, rows = TanhMixture(components, -5.0, 2.0), 40_000
    logits = torch.linspace(0.0, 1.5, components)
    # Narrow ones, 0.3 apart: which one was drawn can be read off the sample.
    raw = raw_with_means(logits, 0.3 * torch.arange(components) - 2.4, raw_log_std=-9.0)
    z = torch.atanh(head.sample(raw.expand(rows, -1), noise_for(head, rows, seed=0)).action[:, 0])
    share = torch.bincount(((z + 2.4) / 0.3).round().long(), minlength=components) / rows
    assert share.tolist() == pytest.approx(torch.softmax(logits, dim=0).tolist(), abs=5 * math.sqrt(0.25 / rows))


def test_at_the_very_edge_between_components_exactly_one_is_drawn() -> None:
    # Uniform numbers that differ in their last bits, around each bound of 16 components of awkward weights.
    head = TanhMixture(16, -5.0, 2.0)
    logits = torch.randn(16, generator=torch.Generator().manual_seed(3))
    raw = raw_with_means(logits, 0.3 * torch.arange(16) - 2.4, raw_log_std=-9.0).float()
    bounds = torch.softmax(logits.double(), dim=0).cumsum(dim=0)[:-1]
    centres = (math.sqrt(2.0) * torch.erfinv(2.0 * bounds - 1.0)).float().numpy()
    close = np.concatenate([c + np.spacing(c) * np.arange(-40, 41, dtype=np.float32) for c in centres])
    noise = torch.zeros(len(close), 2)
    noise[:, 0] = torch.from_numpy(close.astype(np.float32))
    place = (torch.atanh(head.action(raw.expand(len(close), -1), noise)[:, 0]) + 2.4) / 0.3
    assert torch.allclose(place, place.round(), atol=1e-2)
    assert set(place.round().int().tolist()) == set(range(16))


def test_silence_is_the_mean_of_the_heaviest_component() -> None:
    raw = raw_with_means(torch.tensor([0.3, 0.5, -1.0]), torch.tensor([-0.7, 0.4, 0.9]), raw_log_std=0.0)
    assert float(MIXTURE.action(raw, torch.zeros(1, 2))) == pytest.approx(math.tanh(0.4), abs=1e-6)


def test_the_first_policy_is_centred_and_its_components_apart() -> None:
    _, mean, _ = MIXTURE.parameters(torch.zeros(1, 9))
    assert mean[0, 0].tolist() == pytest.approx([-0.5, 0.0, 0.5])
    assert float(TanhMixture(1, -5.0, 2.0).parameters(torch.zeros(1, 3))[1]) == 0.0


# --- implicit gradients --------------------------------------------------------------------------------------------


def gradient_of_moment(index: int, power: int) -> Tensor:
    """Of E[z] = Σ w μ, or E[z²] = Σ w (μ² + σ²), by all nine raw outputs: (9,)."""
    raw = raw_of("mixture", index).clone().requires_grad_()
    log_weight, mean, log_std = MIXTURE.parameters(raw)
    moment = mean if power == 1 else mean.square() + (2.0 * log_std).exp()
    (log_weight.exp() * moment).sum().backward()
    assert raw.grad is not None
    return raw.grad[0]


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(("index", "pathwise"), [(0, True), (1, True), (3, True), (0, False), (2, False)])
def test_gradients_of_moments_are_the_analytic_ones(index: int, pathwise: bool, power: int) -> None:
    # Case 2 has a gap between its modes. A path across it is taken once in a million draws and is a million long then:
    # right on average, but no number of draws shows it. The score function needs no path.
    rows = 100_000
    raw = raw_of("mixture", index, rows).clone().requires_grad_()
    action, log_prob = MIXTURE.sample(raw, noise_for(MIXTURE, rows, seed=7), pathwise)
    moment = torch.atanh(action[:, 0]) ** power
    (moment if pathwise else log_prob * moment).sum().backward()
    assert raw.grad is not None
    expected, error = gradient_of_moment(index, power), raw.grad.std(dim=0) / math.sqrt(rows)
    assert bool(((raw.grad.mean(dim=0) - expected).abs() < 4.5 * error + 1e-9).all())
    # The test has teeth: some gradients are many standard errors away from zero.
    assert float((expected.abs() / error).max()) > 20


def test_along_the_sample_the_cdf_does_not_change() -> None:
    # dF/dθ = ∂F/∂θ + q dz/dθ = 0, for every sample and not only on average.
    raw = raw_of("mixture", 1, 200).clone().requires_grad_()
    parameters = MIXTURE.parameters(raw)
    z = torch.randn(200, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cdf(with_implicit_gradient(z, *parameters), *parameters).sum().backward()
    assert raw.grad is not None
    assert float(raw.grad.abs().max()) < 1e-12


def test_second_derivatives_are_those_of_the_sample_moved_along() -> None:
    # z(θ) on the line θ + t·v by solving F(z; θ) = F_0; its curvature by differences, against autograd's.
    base = raw_of("mixture", 1).clone()
    direction = torch.randn(1, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z0 = torch.tensor([[0.3]], dtype=torch.float64)
    level = cdf(z0, *MIXTURE.parameters(base))

    def solved(t: float) -> float:
        low, high = torch.full_like(z0, -9.0), torch.full_like(z0, 9.0)
        for _ in range(80):
            middle = (low + high) / 2
            below = cdf(middle, *MIXTURE.parameters(base + t * direction)) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return float(low)

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    z = with_implicit_gradient(z0, *MIXTURE.parameters(base + t * direction))
    (slope,) = torch.autograd.grad(z.sum(), t, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, t)
    h = 1e-3
    assert slope.item() == pytest.approx((solved(h) - solved(-h)) / (2 * h), rel=1e-4)
    assert curvature.item() == pytest.approx((solved(h) - 2 * solved(0.0) + solved(-h)) / h**2, rel=1e-3)


@pytest.mark.parametrize("pathwise", [True, False])
def test_one_component_is_the_reparameterised_gaussian(pathwise: bool) -> None:
    mixture, gaussian = TanhMixture(1, -5.0, 2.0), TanhGaussian(-5.0, 2.0)
    raw = torch.randn(300, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    noise = noise_for(mixture, 300, seed=3)
    with_weight = torch.cat((torch.zeros(300, 1), raw), dim=1).requires_grad_()
    raw = raw.requires_grad_()
    got, expected = mixture.sample(with_weight, noise, pathwise), gaussian.sample(raw, noise[:, 1:], pathwise)
    assert torch.allclose(got.action, expected.action, atol=1e-12)
    assert torch.allclose(got.log_prob, expected.log_prob, atol=1e-10)
    for action, log_prob in (got, expected):
        ((action.sin().sum() if pathwise else 0.0) + 0.3 * log_prob.sum()).backward()
    assert with_weight.grad is not None and raw.grad is not None
    assert torch.allclose(with_weight.grad[:, 1:], raw.grad, atol=1e-9)
    assert float(with_weight.grad[:, 0].abs().max()) < 1e-12


# --- numerics ------------------------------------------------------------------------------------------------------


def test_density_in_float32_agrees_with_float64_up_to_20_before_squashing() -> None:
    z = torch.linspace(-20.0, 20.0, 4001)[:, None]
    log_weight = torch.log_softmax(torch.tensor([1.0, 0.0, -1.0]), dim=0).expand(4001, 1, 3)
    mean = z[..., None] + torch.tensor([-1.0, 0.5, 2.0])
    log_std = torch.tensor([-1.5, 0.0, 1.0]).expand(4001, 1, 3)
    got = log_density(z, log_weight, mean, log_std)
    exact = log_density(*(part.double() for part in (z, log_weight, mean, log_std)))
    assert torch.allclose(got.double(), exact, atol=1e-4)


@pytest.mark.parametrize("z", [-5.5, -4.0, 4.0, 5.5])
def test_gradients_keep_their_digits_in_either_tail(z: float) -> None:
    # 1 − F is 2e-8 at 5.5 σ: formed as F − 1 in float32 it would have no digit left.
    found = []
    for dtype in (torch.float32, torch.float64):
        logit = torch.tensor([[[0.0, 0.3]]], dtype=dtype, requires_grad=True)
        mean = torch.tensor([[[-0.01, 0.01]]], dtype=dtype)
        log_weight, place = torch.log_softmax(logit, dim=-1), torch.full((1, 1), z, dtype=dtype)
        with_implicit_gradient(place, log_weight, mean, torch.zeros_like(mean)).sum().backward()
        assert logit.grad is not None
        found.append(logit.grad.double())
    assert torch.allclose(found[0], found[1], rtol=1e-3, atol=0.0)
