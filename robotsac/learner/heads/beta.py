"""The Beta head: bounded by nature, no squashing (Chou, Maturana and Scherer 2017).

x ~ Beta(a, b) is G_a / (G_a + G_b) of two Gamma numbers, which are drawn from normal ones by rejection with a fixed number
of candidates (Marsaglia and Tsang 2000); the gradient is torch's own pathwise derivative of the Beta distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from robotsac.learner.heads.head import Draw, split, uniform, unless_silent

_LOG_2 = math.log(2.0)
CANDIDATES = 4
"""Each is accepted with a probability of at least 0.95 at a, b ≥ 1; that none is, happens once in 160,000 draws."""
X_MIN = 1e-6
"""x is kept this far from 0 and 1, where the density of some Beta is infinite; 1 − 1e-6 is below 1 in float32."""


@dataclass(frozen=True, slots=True)
class Beta:
    """a = 2x − 1, x ~ Beta(1 + softplus(·), 1 + softplus(·)): one maximum, never at the border."""

    outputs: int = 2
    noises: int = 4 * CANDIDATES

    def action(self, raw: Tensor, noise: Tensor) -> Tensor:
        """See :class:`~robotsac.learner.heads.head.Head`; deterministic is the mean a / (a + b)."""
        a, b = self.parameters(raw)
        return 2.0 * unless_silent(noise, _draw(a, b, noise), a / (a + b)) - 1.0

    def sample(self, raw: Tensor, noise: Tensor, pathwise: bool = True) -> Draw:
        """See :class:`~robotsac.learner.heads.head.Head`."""
        a, b = self.parameters(raw)
        with torch.no_grad():
            x = _draw(a, b, noise)
        if pathwise:
            x = _Pathwise.apply(x, a, b)  # type: ignore[no-untyped-call]
        # da = 2 dx: the density per unit of the action is half of that per unit of x.
        return Draw(2.0 * x - 1.0, (log_density(x, a, b) - _LOG_2).sum(dim=-1))

    def parameters(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 2·act_dim) → both concentrations, (b, act_dim) each, above 1."""
        first, second = split(raw, 2)
        return 1.0 + softplus(first), 1.0 + softplus(second)


def log_density(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """log Beta(x; a, b) per element."""
    normaliser = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
    return (a - 1.0) * torch.log(x) + (b - 1.0) * torch.log1p(-x) - normaliser


class _Pathwise(torch.autograd.Function):
    """x as it is, with torch's dx/da and dx/db (``torch._dirichlet_grad``, which its own ``Beta.rsample`` uses)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, a, b)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor]:
        x, a, b = ctx.saved_tensors
        total = a + b
        both = torch.stack((x, 1.0 - x), dim=-1)
        to_a, to_b = torch._dirichlet_grad(
            both, torch.stack((a, b), dim=-1), torch.stack((total, total), dim=-1)
        ).unbind(dim=-1)
        # Of the pair (x, 1 − x) only x goes on: its gradient is g, its mean over the simplex x·g.
        return None, grads[0] * to_a * (1.0 - x), grads[0] * -to_b * x


def _draw(a: Tensor, b: Tensor, noise: Tensor) -> Tensor:
    """x ~ Beta(a, b), (b, d), of (b, 4·CANDIDATES·d) normal numbers."""
    for_a, for_b = noise.chunk(2, dim=-1)
    g_a, g_b = _gamma(a, for_a), _gamma(b, for_b)
    return (g_a / (g_a + g_b)).clamp(X_MIN, 1.0 - X_MIN)


def _gamma(concentration: Tensor, noise: Tensor) -> Tensor:
    """Gamma(concentration ≥ 1) by Marsaglia and Tsang 2000: d·v of the first candidate that passes, v = (1 + c·z)³."""
    d = concentration - 1.0 / 3.0
    c = torch.rsqrt(9.0 * d)
    places = noise.chunk(2 * CANDIDATES, dim=-1)
    drawn = torch.ones_like(d)
    # From the last candidate to the first: an earlier one that passes replaces it.
    for z, judge in zip(places[CANDIDATES - 1 :: -1], places[: CANDIDATES - 1 : -1], strict=True):
        v = (1.0 + c * z) ** 3
        log_v = torch.log(v.clamp(min=1e-30))
        passes = (v > 0) & (torch.log(uniform(judge)) < 0.5 * z.square() + d * (1.0 - v + log_v))
        drawn = torch.where(passes, v, drawn)
    return d * drawn
