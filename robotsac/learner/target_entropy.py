"""The target entropy, given as a standard deviation, and whether a policy can reach it.

All entropies here are in normalised units, actions in [-1, 1]: there no distribution of d numbers has more than
d·log 2 nats, and a tanh-Gaussian whose σ is bounded below has not less than about d·(1.419 + log σ_min). A target outside
is never met, and the temperature grows or shrinks without end.
"""

from __future__ import annotations

import math

from robotsac.config.schema import LearnConfig
from robotsac.errors import ConfigError

GAUSSIAN_ENTROPY_NATS = 0.5 * math.log(2 * math.pi * math.e)
"""Differential entropy of a Gaussian with σ = 1: 1.4189 nats."""


def target_entropy(sigma: float, act_dim: int) -> float:
    """Entropy (nats) of ``act_dim`` independent Gaussians of standard deviation ``sigma`` (normalised action units)."""
    return act_dim * (GAUSSIAN_ENTROPY_NATS + math.log(sigma))


def check_feasible(learn: LearnConfig, act_dim: int) -> None:
    """Refuse a target entropy that the policy cannot have.

    Args:
        learn: the settings.
        act_dim: length of the action; both bounds scale with it, so 1 will do before it is known.

    Raises:
        ConfigError: the target is at or beyond a bound; names the σ that would do.
    """
    target = target_entropy(learn.target_sigma, act_dim)
    most, least = act_dim * math.log(2.0), act_dim * (GAUSSIAN_ENTROPY_NATS + learn.log_std_min)
    if target >= most:
        sigma_max = math.exp(math.log(2.0) - GAUSSIAN_ENTROPY_NATS)
        raise ConfigError(
            f"learn.target_sigma {learn.target_sigma} cannot be reached: it must be below {sigma_max:.4f}",
            reason=f"it asks for an entropy of {target:.2f} nat, uniform actions have {most:.2f} nat",
            command="robotsac learn --set learn.target_sigma=0.15",
        )
    if target <= least:
        raise ConfigError(
            f"learn.target_sigma {learn.target_sigma} cannot be reached: it must be above exp(learn.log_std_min) = "
            f"{math.exp(learn.log_std_min):.3g}",
            reason=f"it asks for an entropy of {target:.2f} nat, the narrowest policy has {least:.2f} nat",
            command="robotsac learn --set learn.target_sigma=0.15",
        )
