"""Exploration noise that is held for a while, for the sake of gears and of exploring further (Raffin et al. 2022, gSDE,
has the same aim: noise that changes less often than the action)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class HeldNoise:
    """Standard normal numbers that stay as they are for ``hold_s``; what the policy makes of them follows the state.

    Args:
        hold_s: how long, s, rounded to whole control steps; 0 = one step.
        dt_s: control period, s.
        rng: its own.
    """

    def __init__(self, hold_s: float, dt_s: float, rng: np.random.Generator) -> None:
        self._steps = max(1, round(hold_s / dt_s))
        self._rng = rng
        self._held = np.zeros(0, dtype=np.float32)
        self._left = 0

    def renew(self) -> None:
        """Draw anew at the next step, as at the start of an episode."""
        self._left = 0

    def draw(self, size: int) -> NDArray[np.float32]:
        """The noise of this step, (size,); anew when it has been held long enough, or a policy takes another size."""
        if self._left == 0 or len(self._held) != size:
            self._held = self._rng.standard_normal(size, dtype=np.float32)
            self._left = self._steps
        self._left -= 1
        return self._held
