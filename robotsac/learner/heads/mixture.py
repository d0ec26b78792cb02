"""A mixture of Gaussians per action dimension, squashed by tanh; differentiated through its CDF.

The CDF F(z; θ) = Σ_k w_k Φ((z − μ_k)/σ_k) has no closed inverse, so z cannot be written as a function of θ and noise.
Its derivative can: along a sample of constant F, dz/dθ = −(∂F/∂θ) / q(z) (implicit reparameterisation: Figurnov, Mohamed
and Mnih 2018, section 3). A draw picks a component and a point of it; the derivative is attached to the finished sample.

It moves probability along z. Between components that stand apart there is a gap, where q is small and dz/dw large: the
gradient of the weights is right on average, but rare and long. Where a task has modes that must be weighed against each
other, ``policy_gradient = "score"`` learns the weights with far less variance (``tools/bench_gradients.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robotsac.learner.heads.gaussian import bounded_log_std, tanh_log_det
from robotsac.learner.heads.head import Draw, first, uniform, unless_silent

_LOG_SQRT_2_PI = 0.5 * math.log(2.0 * math.pi)
_SQRT_HALF = 0.5**0.5
SPREAD = 1.0
"""The components start evenly within ±SPREAD, before squashing. Together, they would stay so; and the gradient of a weight
moves probability along z, so that one mode gets nothing from another across a gap where there is none."""


@dataclass(frozen=True, slots=True)
class TanhMixture:
    """a = tanh(z), z from K Gaussians. Outputs per dimension: K logits, K means, K log σ.

    Args:
        components: K ≥ 1.
        log_std_min, log_std_max: bounds of every log σ.
    """

    components: int
    log_std_min: float
    log_std_max: float
    noises: int = 2

    @property
    def outputs(self) -> int:
        """Numbers per action dimension."""
        return 3 * self.components

    def action(self, raw: Tensor, noise: Tensor) -> Tensor:
        """See :class:`~robotsac.learner.heads.head.Head`; deterministic is the mean of the heaviest component."""
        logit, mean, log_std = self._split(raw)
        heaviest = 1.0 - (logit < logit.amax(dim=-1, keepdim=True)).to(mean.dtype)
        centre = (heaviest * mean).sum(dim=-1) / heaviest.sum(dim=-1)
        return torch.tanh(unless_silent(noise, _draw(logit, mean, log_std, noise), centre))

    def sample(self, raw: Tensor, noise: Tensor, pathwise: bool = True) -> Draw:
        """See :class:`~robotsac.learner.heads.head.Head`."""
        logit, mean, log_std = self._split(raw)
        log_weight = torch.log_softmax(logit, dim=-1)
        with torch.no_grad():
            z = _draw(logit, mean, log_std, noise)
        if pathwise:
            z = with_implicit_gradient(z, log_weight, mean, log_std)
        per_dimension = log_density(z, log_weight, mean, log_std) - tanh_log_det(z)
        return Draw(torch.tanh(z), per_dimension.sum(dim=-1))

    def parameters(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(b, 3·K·act_dim) → log weights, means, log σ: (b, act_dim, K) each."""
        logit, mean, log_std = self._split(raw)
        return torch.log_softmax(logit, dim=-1), mean, log_std

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(b, 3·K·act_dim) → logits, means, log σ: (b, act_dim, K) each."""
        act_dim = raw.shape[-1] // self.outputs
        logit, mean, raw_log_std = raw.reshape(raw.shape[0], 3, act_dim, self.components).unbind(dim=1)
        # The inner ones of K + 2 places: one component alone starts at 0.
        start = torch.linspace(-SPREAD, SPREAD, self.components + 2, dtype=raw.dtype, device=raw.device)[1:-1]
        return logit, mean + start, bounded_log_std(raw_log_std, self.log_std_min, self.log_std_max)


def log_density(z: Tensor, log_weight: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log q(z): z (b, d), the rest (b, d, K) → (b, d)."""
    return torch.logsumexp(_log_parts(z, log_weight, mean, log_std), dim=-1)


def _log_parts(z: Tensor, log_weight: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log (w_k N(z; μ_k, σ_k)): (b, d, K)."""
    scaled = (z[..., None] - mean) * (-log_std).exp()
    return log_weight - 0.5 * scaled.square() - log_std - _LOG_SQRT_2_PI


def with_implicit_gradient(z: Tensor, log_weight: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """``z`` as it is, with dz/dθ = −(∂F/∂θ)/q(z) attached (Figurnov et al. 2018, section 3), in closed form:

        dz/dμ_k = r_k,   dz/d log σ_k = r_k (z − μ_k),   dz/d log w_k = −w_k Φ_k(z) / q(z),   r_k = w_k N_k(z) / q(z)

    Args:
        z: (b, d), a constant.
        log_weight: (b, d, K) out of ``log_softmax``: its gradient is right up to a multiple of w, which that cancels.
        mean, log_std: (b, d, K).

    Returns:
        (b, d)
    """
    attached: Tensor = _Implicit.apply(z, log_weight, mean, log_std)  # type: ignore[no-untyped-call]
    return attached


class _Implicit(torch.autograd.Function):
    """The backward pass is made of differentiable operations on the *output*, so second derivatives are right as well."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, log_weight: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
        out = z.clone()
        ctx.save_for_backward(out, log_weight, mean, log_std)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor, Tensor]:
        """Of :func:`with_implicit_gradient`: by z none, by log w, μ and log σ (b, d, K) each."""
        z, log_weight, mean, log_std = ctx.saved_tensors
        grad = grads[0][..., None]
        log_parts = _log_parts(z, log_weight, mean, log_std)
        log_q = torch.logsumexp(log_parts, dim=-1, keepdim=True)
        share = grad * (log_parts - log_q).exp()
        offset = z[..., None] - mean
        # Φ_k, or Φ_k − 1 above the median: log_softmax cancels the constant, and either tail keeps its digits.
        scaled = _SQRT_HALF * offset * (-log_std).exp()
        below = 0.5 * torch.erfc(-scaled)
        upper = (log_weight.exp() * below).sum(dim=-1, keepdim=True) > 0.5
        phi = torch.where(upper, -0.5 * torch.erfc(scaled), below)
        return None, -grad * (log_weight - log_q).exp() * phi, share, share * offset


def _draw(logit: Tensor, mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """One normal number chooses the component, the other the place within it: (b, d)."""
    choose, place = noise.chunk(2, dim=-1)
    upper = torch.cumsum(torch.exp(logit - logit.amax(dim=-1, keepdim=True)), dim=-1)
    # The first component whose upper bound lies above; the last one's always does, as a uniform number is below 1.
    u = uniform(choose)[..., None] * upper[..., -1:]
    return first(u < upper, mean + log_std.exp() * place[..., None], dim=-1)
