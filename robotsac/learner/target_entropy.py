"""The target entropy, given as a standard deviation. Whether a policy can reach it is checked when the config loads.

All entropies here are in normalised units, actions in [-1, 1].
"""

from __future__ import annotations

import math

from robotsac.config.entropy import GAUSSIAN_ENTROPY_NATS


def target_entropy(sigma: float, act_dim: int) -> float:
    """Entropy (nats) of ``act_dim`` independent Gaussians of standard deviation ``sigma`` (normalised action units)."""
    return act_dim * (GAUSSIAN_ENTROPY_NATS + math.log(sigma))
