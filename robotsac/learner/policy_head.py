"""The tanh-Gaussian: from the actor's raw output to an action in [-1, 1] and its log-probability.

The pre-squash sample u is kept: recovering it from the action by atanh loses it near ±1. Log-probabilities are in
normalised units, that is per unit of the action in [-1, 1], not of torque.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

_LOG_2 = math.log(2.0)
_HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)


def bounded_log_std(raw: Tensor, log_std_min: float, log_std_max: float) -> Tensor:
    """Map any ``raw`` smoothly into [log_std_min, log_std_max]; unlike a clamp it has a gradient everywhere.

    0 maps to the middle. Same shape as ``raw``.
    """
    return log_std_min + 0.5 * (log_std_max - log_std_min) * (torch.tanh(raw) + 1.0)


def squash(mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """The action tanh(μ + σ·ε), (b, act_dim). Zero noise gives the deterministic action."""
    return torch.tanh(mean + log_std.exp() * noise)


def sample(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Reparametrised action and its log-probability (SAC, Haarnoja et al. 2018b, eq. 8; 2018a, appendix C).

    Args:
        mean, log_std, noise: (b, act_dim), noise standard normal.

    Returns:
        ``action`` (b, act_dim) in [-1, 1] and ``log_prob`` (b,), nats, normalised units.
    """
    u = mean + log_std.exp() * noise
    return torch.tanh(u), log_prob(u, log_std, noise)


def log_prob(u: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """log π(tanh u) = log N(u; μ, σ) − Σ log(1 − tanh² u) (Haarnoja et al. 2018a, appendix C, eq. 21).

    Args:
        u: (b, act_dim) the sample before squashing, μ + σ·noise.
        log_std, noise: (b, act_dim).

    Returns:
        (b,)
    """
    per_dimension = -0.5 * noise.square() - log_std - tanh_log_det(u)
    return per_dimension.sum(dim=-1) - _HALF_LOG_2_PI * u.shape[-1]


def tanh_log_det(u: Tensor) -> Tensor:
    """log(1 − tanh² u) per element, as 2(log 2 − u − softplus(−2u)), exact for large \\|u\\| in float32.

    The textbook form with an epsilon inside saturates at −13.8 from \\|u\\| ≈ 7.6 on.
    """
    return 2.0 * (_LOG_2 - u - softplus(-2.0 * u))
