"""The entropy of a squashed Gaussian: against sampling, and where it is most."""

from __future__ import annotations

import math

import numpy as np
import pytest

from robotsac.config.entropy import GAUSSIAN_ENTROPY_NATS, SIGMA_MAX, SPREAD_BEST, squashed_sigma, widest_sigma


def entropy_nats(sigma: float) -> float:
    """−∫ p log p over the action itself, in (−1, 1); p by change of variables on a fine grid of u."""
    u = np.linspace(-12.0, 12.0, 400_001) * max(sigma, 0.1)
    density = np.exp(-0.5 * (u / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    slope = 1.0 / np.cosh(u) ** 2  # da/du
    p = density / slope
    return float(-(p * np.log(np.maximum(p, 1e-300)) * slope).sum() * (u[1] - u[0]))


@pytest.mark.parametrize("sigma", [0.0067, 0.1, 0.3, 0.8744, 2.0])
def test_it_is_the_entropy_of_the_actions(sigma: float) -> None:
    assert GAUSSIAN_ENTROPY_NATS + math.log(squashed_sigma(sigma)) == pytest.approx(entropy_nats(sigma), abs=1e-4)


def test_squashing_takes_entropy_and_hardly_any_from_a_narrow_policy() -> None:
    assert squashed_sigma(0.01) == pytest.approx(0.01, rel=2e-4)
    for sigma in (0.01, 0.1, 1.0, 5.0):
        assert squashed_sigma(sigma) < sigma


def test_no_spread_gives_more_than_the_best_one_and_that_is_less_than_uniform() -> None:
    best = squashed_sigma(SPREAD_BEST)
    assert all(squashed_sigma(SPREAD_BEST * factor) < best for factor in (0.5, 0.99, 1.01, 2.0))
    assert best < SIGMA_MAX
    assert widest_sigma(5.0) == widest_sigma(0.0) == best
    assert widest_sigma(-1.0) == squashed_sigma(math.exp(-1.0))
