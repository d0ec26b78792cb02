"""What holds for every algorithm alike: each optimizer moves its own network at its own rate, and α stays in bounds."""

from __future__ import annotations

import pytest
import torch
from algorithm_world import VARIANTS, changed, fresh_variant, noise_for, some_batch, weights

from robotsac.learner.algorithm import update
from robotsac.learner.temperature import ALPHA_MAX, ALPHA_MIN

RATES = {"actor_lr": 1e-3, "critic_lr": 2e-3, "temperature_lr": 4e-3}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_network_moves_at_its_own_learning_rate(variant: str) -> None:
    # Adam's first step is lr · g / (|g| + 1e-8), so the weight that moves most moves by the rate itself.
    rates = {"actor": 1e-3, "critic": 2e-3, "value": 2e-3, "log_alpha": 4e-3}
    state, batch = fresh_variant(variant, **RATES), some_batch()
    before = weights(state)
    update(state, batch, noise_for(state))
    after = weights(state)
    # Targets follow, and the statistics of batch normalisation are no weights.
    learned = {key for key in before if key.split(".")[0] in rates and ".mean" not in key and ".variance" not in key}
    moved = {
        name: max(float((after[key] - before[key]).abs().max()) for key in learned if key.split(".")[0] == name)
        for name in changed(before, after) & rates.keys()
    }
    assert moved == pytest.approx({name: rates[name] for name in moved}, rel=1e-3)
    assert moved.keys() >= {"actor", "critic"}


@pytest.mark.parametrize("variant", ["sac", "sac_v1", "cross_q"])
@pytest.mark.parametrize(("bound", "target_sigma"), [(ALPHA_MIN, 0.01), (ALPHA_MAX, 0.47)])
def test_a_step_that_would_carry_alpha_past_its_bound_ends_at_it(
    variant: str, bound: float, target_sigma: float
) -> None:
    """The first policy, of σ 0.22, is wider than the one target and narrower than the other."""
    state = fresh_variant(variant, target_sigma=target_sigma, temperature_init=0.1, temperature_lr=100.0)
    update(state, some_batch(), noise_for(state))
    assert float(state.scalars()["log_alpha"].detach().exp()) == pytest.approx(bound)
