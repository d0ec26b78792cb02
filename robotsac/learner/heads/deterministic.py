"""DDPG's head: a point, and noise added to it on the robot (Lillicrap et al. 2016, eq. 7, with white noise)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robotsac.learner.heads.head import Draw


@dataclass(frozen=True, slots=True)
class Deterministic:
    """a = clip(tanh(raw) + σ ε, ±1) on the robot; tanh(raw) where it learns.

    Args:
        sigma: σ of the exploration noise, normalised action units.
    """

    sigma: float
    outputs: int = 1
    noises: int = 1

    def action(self, raw: Tensor, noise: Tensor) -> Tensor:
        """See :class:`~robotsac.learner.heads.head.Head`."""
        return (torch.tanh(raw) + self.sigma * noise).clamp(-1.0, 1.0)

    def sample(self, raw: Tensor, noise: Tensor, pathwise: bool = True) -> Draw:
        """The point itself, without noise: μ(s). It has no density; its log-probability is given as 0."""
        return Draw(torch.tanh(raw), raw.new_zeros(raw.shape[0]))
