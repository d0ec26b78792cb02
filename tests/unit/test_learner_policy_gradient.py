"""Both gradients of the policy loss, against the loss itself by quadrature; their variance; Stein's identity."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from head_world import BETA, STOCHASTIC, curve, draws, noise_for, raw_of
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from robotsac.learner.actor import Actor
from robotsac.learner.actor_loss import actor_loss, score_function_loss
from robotsac.learner.critic import Critic
from robotsac.learner.heads import Head
from robotsac.learner.heads.gaussian import TanhGaussian, log_prob, tanh_log_det
from robotsac.learner.heads.mixture import TanhMixture, log_density, with_implicit_gradient
from robotsac.learner.networks import Shape

STATES = torch.tensor([[0.4, -1.0], [-0.7, 0.2], [1.1, 0.9]], dtype=torch.float64)
ALPHA = torch.tensor(0.2, dtype=torch.float64)
ROWS = 300
LOSSES = {True: actor_loss, False: score_function_loss}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def actor_of(head: Head, wide: bool = False) -> Actor:
    """Tiny, smooth, in float64, its policies neither alike nor far from each other; ``wide``: σ about 1."""
    generator = torch.Generator().manual_seed(11)
    actor = Actor(Shape(2, 1, (3,), "tanh"), head, generator).double()
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.normal_(0.0, 0.4, generator=generator)
        if wide:
            actor.last.bias[-(head.outputs // 3) :] += 0.3
    return actor


def critic() -> Critic:
    """One, smooth, with enough slope in the action to be worth following."""
    generator = torch.Generator().manual_seed(12)
    made = Critic(Shape(2, 1, (8,), "tanh"), 1, False, generator).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0.0, 0.7, generator=generator)
    return made


CRITIC = critic()


def value(obs: Tensor, action: Tensor) -> Tensor:
    """min_i Q_i as the actor sees it: (b,)."""
    return CRITIC.frozen(obs, action).amin(dim=0)


def exact_loss(name: str, actor: Actor) -> float:
    """J_π over STATES by the trapezoid rule over the action interval; no sample, no noise."""
    with torch.no_grad():
        total = 0.0
        for obs in STATES[:, None]:
            places, log_pi = curve(name, actor(obs), points=8001)
            cost = ALPHA * log_pi - value(obs.expand(len(places), -1), places[:, None])
            total += float(torch.trapezoid(log_pi.exp() * cost, places))
    return total / len(STATES)


def exact_gradient(name: str, actor: Actor, step: float = 1e-4) -> Tensor:
    """∇_φ J_π by central differences of :func:`exact_loss`: (parameters,)."""
    at = parameters_to_vector(actor.parameters()).detach().clone()
    gradient = torch.zeros_like(at)
    for i in range(len(at)):
        for sign in (1.0, -1.0):
            moved = at.clone()
            moved[i] += sign * step
            vector_to_parameters(moved, actor.parameters())
            gradient[i] += sign * exact_loss(name, actor) / (2 * step)
    vector_to_parameters(at, actor.parameters())
    return gradient


def gradient_of(loss: Tensor, actor: Actor) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(actor.parameters()))])


def estimates(actor: Actor, pathwise: bool, batches: int, seed: int = 0) -> Tensor:
    """The gradient of as many batches of ROWS rows, each with fresh noise: (batches, parameters)."""
    obs = STATES.repeat(ROWS // len(STATES), 1)
    found = []
    for i in range(batches):
        action, log_pi = actor.sample(obs, noise_for(actor.head, ROWS, seed=1000 * seed + i), pathwise)
        found.append(gradient_of(LOSSES[pathwise](log_pi, value(obs, action), ALPHA), actor))
    return torch.stack(found)


# --- the gradient --------------------------------------------------------------------------------------------------


def test_the_path_gradient_is_that_of_the_loss_by_gauss_hermite() -> None:
    # Quadrature over the noise makes it exact: no sampling error hides a missing term.
    actor = actor_of(STOCHASTIC["gaussian"])
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    total = torch.zeros((), dtype=torch.float64)
    for node, weight in zip(nodes, weights / math.sqrt(2 * math.pi), strict=True):
        action, log_pi = actor.sample(STATES, torch.full((3, 1), node, dtype=torch.float64))
        total = total + weight * actor_loss(log_pi, value(STATES, action), ALPHA)
    assert float(total.detach()) == pytest.approx(exact_loss("gaussian", actor), rel=1e-5)
    expected = exact_gradient("gaussian", actor)
    assert torch.allclose(gradient_of(total, actor), expected, rtol=1e-4, atol=1e-6)
    assert float(expected.abs().max()) > 0.05


@pytest.mark.parametrize("pathwise", [True, False])
@pytest.mark.parametrize("name", list(STOCHASTIC))
def test_either_estimator_is_the_gradient_of_the_loss_on_average(name: str, pathwise: bool) -> None:
    # Components that overlap: means over gaps converge too slowly to be judged (see below).
    actor = actor_of(STOCHASTIC[name], wide=name == "mixture")
    found, expected = estimates(actor, pathwise, batches=200), exact_gradient(name, actor)
    error = found.std(dim=0) / math.sqrt(len(found))
    # Torch's pathwise series for Beta are good to a part in a thousand.
    slack = 2e-3 * float(expected.abs().max()) if name == "beta" and pathwise else 1e-6
    assert bool(((found.mean(dim=0) - expected).abs() <= 4 * error + slack).all())
    assert float((expected.abs() / error).max()) > 20


def variances(name: str, outputs: slice) -> tuple[float, float]:
    """Of path and score-function gradient by these raw outputs, from the same states and noise."""
    actor = actor_of(STOCHASTIC[name])
    # The gradient by the last bias is that by the raw outputs.
    both = (estimates(actor, pathwise, batches=100)[:, -actor.head.outputs :] for pathwise in (True, False))
    path, score = (float(found[:, outputs].var(dim=0).sum()) for found in both)
    return path, score


@pytest.mark.parametrize(
    ("name", "outputs"), [("gaussian", slice(None)), ("mixture", slice(3, 9)), ("beta", slice(None))]
)
def test_the_path_has_the_lower_variance_on_the_same_batch(name: str, outputs: slice) -> None:
    path, score = variances(name, outputs)
    print(f"{name}: variance of the score-function gradient / of the path gradient = {score / path:.0f}")
    assert score > 5 * path


def test_but_the_path_of_a_mixtures_weights_is_the_longer_one() -> None:
    # Moving weight moves probability along z, through the gaps between components: few draws are there, far they go.
    path, score = variances("mixture", slice(0, 3))
    print(f"weights of a mixture: score-function / path = {score / path:.5f}")
    assert path > 5 * score


def test_the_benchmark_says_how_much_lower() -> None:
    tool = Path(__file__).parents[2] / "tools/bench_gradients.py"
    command = [sys.executable, str(tool), "--json", "--heads", "gaussian", "--updates", "5", "--draws", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    stages = json.loads(done.stdout)["heads"]["gaussian"]
    assert set(stages) == {"fresh", "trained"}
    for row in stages.values():
        assert row["score_over_path"] == pytest.approx(row["score_variance"] / row["path_variance"])
        assert row["score_over_path"] > 5


def test_the_score_function_loss_worked_out_by_hand() -> None:
    log_pi = torch.tensor([1.0, -1.0, 0.5], requires_grad=True)
    score_function_loss(log_pi, torch.tensor([2.0, 0.0, 1.0]), torch.tensor(0.5)).backward()
    # Costs −1.5, −0.5, −0.75; each less the mean of the other two; a third of it.
    assert log_pi.grad is not None
    assert log_pi.grad.tolist() == pytest.approx([(-1.5 + 0.625) / 3, (-0.5 + 1.125) / 3, (-0.75 + 1.0) / 3])


def test_one_row_alone_has_no_baseline() -> None:
    log_pi = torch.tensor([1.0], requires_grad=True)
    score_function_loss(log_pi, torch.tensor([2.0]), torch.tensor(0.5)).backward()
    assert log_pi.grad is not None and log_pi.grad.tolist() == [-1.5]


# --- the loss ------------------------------------------------------------------------------------------------------


def reward(action: Tensor) -> Tensor:
    """Stands for Q: (b, 1) → (b,)."""
    return -3.0 * (action[:, 0] - 0.4).square()


@pytest.mark.parametrize("name", list(STOCHASTIC))
def test_the_loss_is_the_divergence_from_the_soft_optimal_policy(name: str) -> None:
    # KL(π ‖ exp(Q/α)/Z) = E[log π − Q/α] + log Z, by quadrature and from the loss of many draws.
    for index in (0, 1, 2):
        places, log_pi = curve(name, raw_of(name, index))
        q = reward(places[:, None])
        log_z = math.log(torch.trapezoid((q / ALPHA).exp(), places))
        exact = float(torch.trapezoid(log_pi.exp() * (log_pi - q / ALPHA), places)) + log_z
        action, drawn = draws(name, index, rows=40_000, seed=index)
        error = float((drawn - reward(action) / ALPHA).std()) / math.sqrt(len(drawn))
        divergence = float(actor_loss(drawn, reward(action), ALPHA) / ALPHA) + log_z
        assert divergence == pytest.approx(exact, abs=4 * error + 1e-3)
        assert exact > 0


def test_at_the_soft_optimal_policy_every_score_gradient_is_zero() -> None:
    # With Q = α log π + const the policy is the optimum; then the cost is one number and the baseline takes it away.
    raw = raw_of("beta", 3, 500).clone().requires_grad_()
    log_pi = BETA.sample(raw, noise_for(BETA, 500, seed=0), pathwise=False).log_prob
    (gradient,) = torch.autograd.grad(score_function_loss(log_pi, ALPHA * log_pi.detach() - 0.7, ALPHA), raw)
    assert float(gradient.abs().max()) < 1e-12


# --- Stein's identity ----------------------------------------------------------------------------------------------


def log_q(head: Head, raw: Tensor, z: Tensor) -> Tensor:
    """Log-density before squashing, of the one policy ``raw`` (1, outputs) at z (n, 1): (n,)."""
    if isinstance(head, TanhMixture):
        return log_density(z, *head.parameters(raw))[:, 0]
    assert isinstance(head, TanhGaussian)
    mean, log_std = head.parameters(raw)
    return log_prob(z, log_std, (z - mean) / log_std.exp()) + tanh_log_det(z)[:, 0]


def along(head: Head, raw: Tensor, z: Tensor) -> Tensor:
    """z (n, 1) as the head would have drawn it, with its dz/dθ by ``raw`` (n, outputs)."""
    if isinstance(head, TanhMixture):
        return with_implicit_gradient(z, *head.parameters(raw))
    assert isinstance(head, TanhGaussian)
    mean, log_std = head.parameters(raw)
    return mean + log_std.exp() * ((z - mean) / log_std.exp()).detach()


@pytest.mark.parametrize("of", ["critic", "policy"])
@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_steins_identity(name: str, of: str) -> None:
    """E_q[∇_θ log q f] = E_q[∇_θ z ∇_z f], for every output θ of the policy; by quadrature, so that nothing is left to chance.

    f is the critics' value of the squashed action, or its log-probability. Left is the score function, right the path.
    """
    actor = actor_of(STOCHASTIC[name], wide=True)
    for obs in STATES[:, None]:
        raw = actor(obs).detach().requires_grad_()
        wide = torch.linspace(-60.0, 60.0, 120_001, dtype=torch.float64)
        places = wide[log_q(actor.head, raw.detach(), wide[:, None]) > -60.0]  # farther out 1/q has no digits left
        z = places[:, None].clone().requires_grad_()
        density = log_q(actor.head, raw, z)
        critic_value = value(obs.expand(len(z), -1), torch.tanh(z))
        f = critic_value if of == "critic" else density - tanh_log_det(z)[:, 0]
        (slope,) = torch.autograd.grad(f.sum(), z, retain_graph=True)
        q, f = density.detach().exp(), f.detach()
        assert float(torch.trapezoid(q, places)) == pytest.approx(1.0, abs=1e-6)
        (score,) = torch.autograd.grad(torch.trapezoid(q * f * density, places), raw)
        drawn = along(actor.head, raw.expand(len(places), -1), places[:, None])[:, 0]
        (path,) = torch.autograd.grad(torch.trapezoid(q * slope[:, 0] * drawn, places), raw)
        assert float(score.abs().max()) > 0.05
        assert torch.allclose(score, path, rtol=1e-5, atol=1e-7)


def test_steins_identity_is_why_score_and_path_agree_on_the_mean() -> None:
    # E[∇_μ log q f] = E[∇_z f], both as the estimators form them, from the same draws.
    rows = 200_000
    raw = raw_of("gaussian", 1, rows).clone().requires_grad_()
    noise = noise_for(STOCHASTIC["gaussian"], rows, seed=3)
    found = []
    for pathwise in (True, False):
        action, log_pi = STOCHASTIC["gaussian"].sample(raw, noise, pathwise)
        f = reward(action)
        (gradient,) = torch.autograd.grad((f if pathwise else log_pi * f).sum(), raw)
        found.append(gradient[:, 0])
    error = math.hypot(*(float(part.std()) for part in found)) / math.sqrt(rows)
    assert float((found[0] - found[1]).mean()) == pytest.approx(0.0, abs=4 * error)
    assert abs(float(found[0].mean())) > 20 * error
