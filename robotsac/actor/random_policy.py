"""What moves the arm before there is a policy: random torques that a gearbox can bear."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class SmoothRandom:
    """First-order filtered noise: each action correlates with the last over ``hold_s``; within [-1, 1].

    White noise at the control rate shakes an arm without moving it; noise held for a while explores.

    Args:
        act_dim: length of the action.
        hold_s: correlation time, s.
        dt_s: control period, s.
        rng: its own.
    """

    # Standard deviation before squashing: covers the range without living at its ends.
    SIGMA = 0.7

    def __init__(self, act_dim: int, hold_s: float, dt_s: float, rng: np.random.Generator) -> None:
        self._keep = float(np.exp(-dt_s / hold_s))
        self._add = self.SIGMA * float(np.sqrt(1.0 - self._keep**2))
        self._rng = rng
        self._state = rng.standard_normal(act_dim) * self.SIGMA

    def action(self) -> NDArray[np.float32]:
        """The next action (act_dim,)."""
        self._state = self._keep * self._state + self._add * self._rng.standard_normal(len(self._state))
        squashed: NDArray[np.float32] = np.tanh(self._state).astype(np.float32)
        return squashed
