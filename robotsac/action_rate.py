"""How rough a policy's actions are: what gears feel, and what no return shows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class ActionRate:
    """Root mean square of a_t − a_{t−1} over steps and dimensions, within episodes; normalised units per control step."""

    def __init__(self) -> None:
        self._last: NDArray[np.float64] | None = None
        self._squares = 0.0
        self._count = 0

    def begin(self) -> None:
        """A new episode: its first action has nothing before it."""
        self._last = None

    def add(self, applied: NDArray[np.floating]) -> None:
        """The next action (act_dim,) of the episode, as it was applied."""
        action = np.array(applied, dtype=np.float64)
        if self._last is not None:
            self._squares += float(np.square(action - self._last).sum())
            self._count += action.size
        self._last = action

    @property
    def rms(self) -> float | None:
        """``None`` while no episode has had two steps."""
        return math.sqrt(self._squares / self._count) if self._count else None
