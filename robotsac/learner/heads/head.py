"""What an actor's raw output means: a distribution over actions in [-1, 1]^d, dimension by dimension.

Every head draws from standard normal numbers alone; what else it needs (uniform numbers, a choice) it makes of them by
arithmetic that ONNX knows. So the robot feeds every policy the same kind of noise, and noise of all zeros always means the
deterministic action. Log-probabilities are per unit of the action in [-1, 1], not of torque.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

_SQRT_HALF = 0.5**0.5
# In float32, 1 − 1e-7 is still below 1; a uniform number of exactly 0 or 1 has no finite quantile.
UNIFORM_MIN = 1e-7


class Draw(NamedTuple):
    """Actions (b, act_dim) in [-1, 1] and their log-probabilities (b,), nats."""

    action: Tensor
    log_prob: Tensor


class Head(Protocol):
    """One kind of policy distribution."""

    @property
    def outputs(self) -> int:
        """Numbers that the network gives per action dimension."""
        ...

    @property
    def noises(self) -> int:
        """Standard normal numbers that a draw takes per action dimension."""
        ...

    def action(self, raw: Tensor, noise: Tensor) -> Tensor:
        """What runs on the robot: (b, outputs·act_dim), (b, noises·act_dim) → action (b, act_dim).

        Noise of all zeros gives the deterministic action.
        """
        ...

    def sample(self, raw: Tensor, noise: Tensor, pathwise: bool = True) -> Draw:
        """A draw, and its log-probability.

        Args:
            raw: (b, outputs·act_dim) with its graph.
            noise: (b, noises·act_dim).
            pathwise: the gradient flows through the sample (reparameterised); else the sample is a constant and the
                gradient of ``log_prob`` is the score ∇ log π of it.
        """
        ...


def split(raw: Tensor, parts: int) -> tuple[Tensor, ...]:
    """(b, parts·act_dim) → ``parts`` tensors (b, act_dim)."""
    return raw.chunk(parts, dim=-1)


def uniform(normal: Tensor) -> Tensor:
    """Φ(z): a uniform number in (0, 1) of each standard normal one; 0 becomes ½."""
    return (0.5 * (1.0 + torch.erf(_SQRT_HALF * normal))).clamp(UNIFORM_MIN, 1.0 - UNIFORM_MIN)


def first(passes: Tensor, values: Tensor, dim: int) -> Tensor:
    """Of ``values`` along ``dim``, that of the first ``passes`` (bool, same shape) that is true; 0 where none is.

    Counting, not comparing neighbours: exactly one is taken, however the numbers behind ``passes`` were rounded.
    """
    passed = passes.to(values.dtype)
    alone = (passed.cumsum(dim) < 1.5).to(values.dtype)
    return (passed * alone * values).sum(dim)


def unless_silent(noise: Tensor, drawn: Tensor, deterministic: Tensor) -> Tensor:
    """``drawn`` (b, d), and ``deterministic`` in every row whose ``noise`` (b, n) is all zeros."""
    noisy = noise.square().mean(dim=-1, keepdim=True).to(torch.bool)
    return torch.where(noisy, drawn, deterministic)
