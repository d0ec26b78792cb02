"""The tanh-Gaussian, SAC's own head (Haarnoja et al. 2018a, appendix C).

The pre-squash sample u is kept: recovering it from the action by atanh loses it near ±1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from robotsac.learner.heads.head import Draw, split

_LOG_2 = math.log(2.0)
_HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True, slots=True)
class TanhGaussian:
    """a = tanh(μ + σ ε). Outputs per dimension: μ, and log σ mapped into its bounds.

    Args:
        log_std_min, log_std_max: bounds of log σ, before squashing.
    """

    log_std_min: float
    log_std_max: float
    outputs: int = 2
    noises: int = 1

    def action(self, raw: Tensor, noise: Tensor) -> Tensor:
        """See :class:`~robotsac.learner.heads.head.Head`."""
        mean, log_std = self.parameters(raw)
        return squash(mean, log_std, noise)

    def sample(self, raw: Tensor, noise: Tensor, pathwise: bool = True) -> Draw:
        """See :class:`~robotsac.learner.heads.head.Head`; Haarnoja et al. 2018b, eq. 8."""
        mean, log_std = self.parameters(raw)
        std = log_std.exp()
        u = mean + std * noise
        if not pathwise:
            # (u − μ)/σ with u constant: the noise, with a gradient. u − μ itself would lose its digits at a large μ.
            noise = (mean.detach() - mean + std.detach() * noise) / std
            u = u.detach()
        return Draw(torch.tanh(u), log_prob(u, log_std, noise))

    def parameters(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 2·act_dim) → μ and log σ, (b, act_dim) each."""
        mean, raw_log_std = split(raw, 2)
        return mean, bounded_log_std(raw_log_std, self.log_std_min, self.log_std_max)


def bounded_log_std(raw: Tensor, log_std_min: float, log_std_max: float) -> Tensor:
    """Map any ``raw`` smoothly into [log_std_min, log_std_max]; unlike a clamp it has a gradient beyond where it is needed,
    in float32 up to \\|raw\\| = 9.

    0 maps to the middle. Same shape as ``raw``.
    """
    return log_std_min + 0.5 * (log_std_max - log_std_min) * (torch.tanh(raw) + 1.0)


def squash(mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """The action tanh(μ + σ·ε), (b, act_dim). Zero noise gives the deterministic action."""
    return torch.tanh(mean + log_std.exp() * noise)


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
