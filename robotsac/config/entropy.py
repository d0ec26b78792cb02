"""How much entropy a policy head can have, in nats per action dimension, actions in [-1, 1].

What ``target_sigma`` asks for is the entropy of a plain Gaussian; squashing takes some of it away again, so a head whose
pre-squash σ may reach the target's can still be unable to reach its entropy.
"""

from __future__ import annotations

import math

GAUSSIAN_ENTROPY_NATS = 0.5 * math.log(2 * math.pi * math.e)
"""Differential entropy of a Gaussian with σ = 1: 1.4189 nats."""
SIGMA_MAX = math.exp(math.log(2.0) - GAUSSIAN_ENTROPY_NATS)
"""A Gaussian of this σ, 0.484, has the entropy of uniform actions in [-1, 1], log 2 nats: no policy has more."""
SPREAD_BEST = 0.8744
"""tanh(σ ε) has most entropy at this σ, 0.684 nat; a wider one piles up at ±1. Where 1/σ = 2 E[ε tanh(σ ε)]."""

_REACH, _STEP = 9.0, 0.05


def squashed_sigma(sigma: float) -> float:
    """σ' of the plain Gaussian that has the entropy of tanh(σ ε), ε ~ N(0, 1): σ' < σ.

    log σ' = log σ + E[log(1 − tanh² σε)] (change of variables; Haarnoja et al. 2018a, appendix C). The trapezoid rule is
    exact to rounding here: the integrand is smooth and gone at the ends.
    """
    loss = weight = 0.0
    for k in range(int(2 * _REACH / _STEP) + 1):
        epsilon = k * _STEP - _REACH
        density = math.exp(-0.5 * epsilon * epsilon)
        u = abs(sigma * epsilon)
        loss += density * 2.0 * (math.log(2.0) - u - math.log1p(math.exp(-2.0 * u)))
        weight += density
    return sigma * math.exp(loss / weight)


def widest_sigma(log_std_max: float) -> float:
    """σ' of the most entropy that a tanh-Gaussian with log σ ≤ ``log_std_max`` can have; a mean of 0 has it."""
    return squashed_sigma(min(math.exp(log_std_max), SPREAD_BEST))
