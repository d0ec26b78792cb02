"""Every head and both gradients learn, through the whole update: one-step tasks whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from learner_world import OBS_DIM, RATE_HZ, settings
from torch import Tensor

from robotsac.learner.algorithm import update
from robotsac.learner.replay import Batch
from robotsac.learner.sac import SacState

Reward = Callable[[Tensor], Tensor]
ROWS = 64
ALPHA = 0.1


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def learned(reward: Reward, updates: int, **learn: object) -> SacState:
    """SAC at fixed α on a one-step task of one action and no observation, from its own growing replay."""
    quick = {"hidden": (16, 16), "actor_lr": 3e-3, "critic_lr": 3e-3, "polyak": 0.05, "temperature": ALPHA}
    state = SacState.create(settings(**(quick | learn)).learn, OBS_DIM, 1, RATE_HZ, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    replay: list[Tensor] = []
    nothing = torch.zeros(ROWS, OBS_DIM)
    for _ in range(updates):
        with torch.no_grad():
            noise = torch.randn(16, state.noise_shape.action, generator=generator)
            replay.append(state.actor.sample(nothing[:16], noise).action)
        seen = torch.cat(replay)
        action = seen[torch.randint(len(seen), (ROWS,), generator=generator)]
        update(
            state,
            Batch(nothing, action, reward(action), nothing, torch.ones(ROWS)),
            state.noise_shape.draw(ROWS, generator),
        )
    return state


def soft_value(state: SacState, reward: Reward) -> tuple[float, float]:
    """E[r − α log π] of the policy, and the share of its actions above 0."""
    noise = torch.randn(20_000, state.noise_shape.action, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        action, log_pi = state.actor.sample(torch.zeros(20_000, OBS_DIM), noise)
    return float((reward(action) - ALPHA * log_pi).mean()), float((action > 0).float().mean())


def best_soft_value(reward: Reward) -> float:
    """α log ∫ exp(r/α) da, which no policy exceeds."""
    places = torch.linspace(-1.0, 1.0, 10_001, dtype=torch.float64)[:, None]
    return ALPHA * math.log(torch.trapezoid((reward(places) / ALPHA).exp(), places[:, 0]))


def one_peak(action: Tensor) -> Tensor:
    """(b, 1) → (b,): 0 at 0.5."""
    return -4.0 * (action[:, 0] - 0.5).square()


def two_peaks(action: Tensor) -> Tensor:
    """(b, 1) → (b,): 0 at ±0.6, and deep below between."""
    return -8.0 * torch.minimum((action - 0.6).square(), (action + 0.6).square())[:, 0]


@pytest.mark.parametrize("policy_gradient", ["reparameterised", "score"])
@pytest.mark.parametrize("head", ["gaussian", "mixture", "beta"])
def test_each_head_and_gradient_comes_to_the_best_soft_value(head: str, policy_gradient: str) -> None:
    state = learned(one_peak, 350, head=head, policy_gradient=policy_gradient)
    best = best_soft_value(one_peak)
    # The policy it starts from is far from it; the best one is almost a Gaussian of σ 0.11.
    assert soft_value(learned(one_peak, 0, head=head), one_peak)[0] < best - 0.5
    # Beta's concentrations have to grow to 45, where softplus moves them by 1 per unit.
    short = 0.1 if head == "beta" else 0.02
    assert best - short < soft_value(state, one_peak)[0] < best + 0.005
    silent = state.actor.action(torch.zeros(1, OBS_DIM), torch.zeros(1, state.noise_shape.action))
    assert silent.item() == pytest.approx(0.5, abs=0.12)


def test_a_mixture_does_both_of_two_best_actions() -> None:
    state = learned(two_peaks, 500, head="mixture", policy_gradient="score")
    value, share = soft_value(state, two_peaks)
    assert value == pytest.approx(best_soft_value(two_peaks), abs=0.02)
    assert 0.3 < share < 0.7


def test_one_peak_alone_is_worth_less_and_a_gaussian_does_no_better() -> None:
    # Half of the probability gone costs α log 2.
    alone = best_soft_value(two_peaks) - ALPHA * math.log(2.0)
    assert soft_value(learned(two_peaks, 400), two_peaks)[0] < alone + 0.01
