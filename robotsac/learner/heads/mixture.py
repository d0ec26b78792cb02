"""A mixture of Gaussians per action dimension, squashed by tanh; differentiated through its CDF.

The CDF F(z; θ) = Σ_k w_k Φ((z − μ_k)/σ_k) has no closed inverse, so z cannot be written as a function of θ and noise.
Its derivative can: along a sample of constant F, dz/dθ = −(∂F/∂θ) / q(z) (implicit reparameterisation: Figurnov, Mohamed
and Mnih 2018, eq. 5). A draw picks a component and a point of it; the derivative is attached to the finished sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robotsac.learner.heads.gaussian import bounded_log_std, tanh_log_det
from robotsac.learner.heads.head import Draw, uniform, unless_silent

_LOG_SQRT_2_PI = 0.5 * math.log(2.0 * math.pi)
_SQRT_HALF = 0.5**0.5


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
        log_weight, mean, log_std = self.parameters(raw)
        heaviest = (log_weight == log_weight.amax(dim=-1, keepdim=True)).to(mean.dtype)
        centre = (heaviest * mean).sum(dim=-1) / heaviest.sum(dim=-1)
        return torch.tanh(unless_silent(noise, _draw(log_weight, mean, log_std, noise), centre))

    def sample(self, raw: Tensor, noise: Tensor, pathwise: bool = True) -> Draw:
        """See :class:`~robotsac.learner.heads.head.Head`."""
        log_weight, mean, log_std = self.parameters(raw)
        z = _draw(log_weight, mean, log_std, noise).detach()
        if pathwise:
            z = with_implicit_gradient(z, log_weight, mean, log_std)
        per_dimension = log_density(z, log_weight, mean, log_std) - tanh_log_det(z)
        return Draw(torch.tanh(z), per_dimension.sum(dim=-1))

    def parameters(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(b, 3·K·act_dim) → log weights, means, log σ: (b, act_dim, K) each."""
        act_dim = raw.shape[-1] // self.outputs
        logit, spread, raw_log_std = raw.reshape(raw.shape[0], 3, act_dim, self.components).unbind(dim=1)
        log_std = bounded_log_std(raw_log_std, self.log_std_min, self.log_std_max)
        return torch.log_softmax(logit, dim=-1), spread + self._offsets(raw), log_std

    def _offsets(self, raw: Tensor) -> Tensor:
        """Where the components start, (K,): apart, or the gradients of all would stay the same."""
        return (
            torch.linspace(-0.5, 0.5, self.components, device=raw.device) if self.components > 1 else raw.new_zeros(1)
        )


def log_density(z: Tensor, log_weight: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log q(z): z (b, d), the rest (b, d, K) → (b, d)."""
    scaled = (z[..., None] - mean) * (-log_std).exp()
    return torch.logsumexp(log_weight - 0.5 * scaled.square() - log_std - _LOG_SQRT_2_PI, dim=-1)


def distribution(z: Tensor, log_weight: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """F(z): z (b, d), the rest (b, d, K) → (b, d)."""
    scaled = (z[..., None] - mean) * (-log_std).exp()
    return (log_weight.exp() * 0.5 * (1.0 + torch.erf(_SQRT_HALF * scaled))).sum(dim=-1)


def with_implicit_gradient(z: Tensor, log_weight: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """``z`` (b, d), a constant, with dz/dθ = −(∂F/∂θ)/q(z) attached (Figurnov et al. 2018, eq. 5).

    The value is unchanged: what is added is zero, and has that gradient.
    """
    f = distribution(z, log_weight, mean, log_std)
    density = log_density(z, log_weight, mean, log_std).exp().detach()
    return z - (f - f.detach()) / density


def _draw(log_weight: Tensor, mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """One normal number chooses the component, the other the place within it: (b, d)."""
    choose, place = noise.chunk(2, dim=-1)
    weight = log_weight.exp()
    # Component k is taken when the uniform number lies in [w_0 + … + w_{k-1}, w_0 + … + w_k).
    upper = torch.cumsum(weight, dim=-1)
    u = uniform(choose)[..., None] * upper[..., -1:]
    taken = ((u < upper) & (u >= upper - weight)).to(mean.dtype)
    return (taken * (mean + log_std.exp() * place[..., None])).sum(dim=-1) / taken.sum(dim=-1)
