"""The Beta head: bounded by nature, no squashing (Chou, Maturana and Scherer 2017).

x ~ Beta(a, b) is G_a / (G_a + G_b) of two Gamma numbers (``gamma``); a = 2x − 1 is the action. Its derivative along a
sample of constant F(x; a, b) is torch's own (implicit reparameterisation: Figurnov, Mohamed and Mnih 2018, section 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from robotsac.learner.heads.gamma import CANDIDATES, gamma
from robotsac.learner.heads.head import Draw, unless_silent

_LOG_2 = math.log(2.0)
EXCESS_MAX = 2000.0
"""Concentrations stay below 1 + this: σ is 0.016 at the least, in the middle. Far above, log Γ of large numbers takes float32's
digits: at 5e4 it is 2.6 nat of log π."""
X_MIN = 1e-6
"""x is kept this far from 0 and 1, where the density of some Beta is infinite; 1 − 1e-6 is below 1 in float32, and so is the
action 1 − 2e-6. An epsilon below 6e-8 would do nothing at the upper end."""


@dataclass(frozen=True, slots=True)
class Beta:
    """a = 2x − 1, x ~ Beta(1 + s(·), 1 + s(·)), s(·) = softplus(·) / (1 + softplus(·) / EXCESS_MAX): one maximum, at the
    border only where the other concentration is 1."""

    outputs: int = 2
    noises: int = 4 * CANDIDATES

    def action(self, raw: Tensor, noise: Tensor) -> Tensor:
        """See :class:`~robotsac.learner.heads.head.Head`; deterministic is the mean, x = a / (a + b)."""
        both = self._concentrations(raw)
        return 2.0 * unless_silent(noise, _draw(both, noise), both[:, 0] / both.sum(dim=1)) - 1.0

    def sample(self, raw: Tensor, noise: Tensor, pathwise: bool = True) -> Draw:
        """See :class:`~robotsac.learner.heads.head.Head`."""
        both = self._concentrations(raw)
        a, b = both.unbind(dim=1)
        with torch.no_grad():
            x = _draw(both, noise)
        if pathwise:
            x = with_pathwise_gradient(x, a, b)
        # da = 2 dx: the density per unit of the action is half of that per unit of x.
        return Draw(2.0 * x - 1.0, (log_density(x, a, b) - _LOG_2).sum(dim=-1))

    def parameters(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 2·act_dim) → both concentrations, (b, act_dim) each, from 1 to 1 + EXCESS_MAX."""
        a, b = self._concentrations(raw).unbind(dim=1)
        return a, b

    def _concentrations(self, raw: Tensor) -> Tensor:
        """(b, 2·act_dim) → (b, 2, act_dim)."""
        excess = softplus(raw).reshape(raw.shape[0], 2, raw.shape[1] // 2)
        return 1.0 + excess / (1.0 + excess / EXCESS_MAX)


def log_density(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """log Beta(x; a, b) per element."""
    normaliser = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
    return (a - 1.0) * torch.log(x) + (b - 1.0) * torch.log1p(-x) - normaliser


def with_pathwise_gradient(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``x``, a constant, as it is, with dx/da = −(∂F/∂a)/q(x) and dx/db attached; shapes all the same.

    The derivatives are ``torch._dirichlet_grad``'s, which torch's own ``Beta.rsample`` uses: series, good to about 0.1 %.
    They have no derivative themselves.
    """
    attached: Tensor = _Pathwise.apply(x, a, b)  # type: ignore[no-untyped-call]
    return attached


class _Pathwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, a, b)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor]:
        """Of :func:`with_pathwise_gradient`: by x none, by a and b (b, d) each."""
        x, a, b = ctx.saved_tensors
        total = a + b
        both = torch.stack((x, 1.0 - x), dim=-1)
        to_a, to_b = torch._dirichlet_grad(
            both, torch.stack((a, b), dim=-1), torch.stack((total, total), dim=-1)
        ).unbind(dim=-1)
        # Of the pair (x, 1 − x) only x goes on: its gradient is g, its mean over the simplex x·g.
        return None, grads[0] * to_a * (1.0 - x), grads[0] * -to_b * x


def _draw(both: Tensor, noise: Tensor) -> Tensor:
    """x ~ Beta of the concentrations ``both`` (b, 2, d), of (b, 4·CANDIDATES·d) normal numbers: (b, d)."""
    batch, _, act_dim = both.shape
    place, judge = (half.reshape(batch, 2, CANDIDATES, act_dim) for half in noise.chunk(2, dim=-1))
    z = gamma(both, place, judge)
    return (z[:, 0] / z.sum(dim=1)).clamp(X_MIN, 1.0 - X_MIN)
