"""Steps that are too few to learn anything from, refused before anything is made or moves."""

from __future__ import annotations

import math

from robotsac.config import LearnConfig
from robotsac.errors import ConfigError

# What is suggested instead of too few: reach takes about so many, and other tasks some multiple of their start.
STEPS_MIN, USEFUL_FACTOR = 10_000, 10


def require_enough(steps: int, learn: LearnConfig) -> None:
    """Refuse a run of ``steps`` control steps that would end before its first update.

    The first ``start_steps`` transitions are only collected; then so many make one update as ``updates_per_step`` says,
    and the last ``n_step`` - 1 steps may still wait for their successors.

    Raises:
        ConfigError: with a number of steps that will do.
    """
    first = learn.start_steps + math.ceil(1.0 / learn.updates_per_step) + learn.n_step - 1
    if steps < first:
        raise ConfigError(
            f"--steps {steps} is too few to learn anything from",
            reason=f"training begins after learn.start_steps {learn.start_steps} steps, its first update is due at step {first}",
            command=f"--steps {max(STEPS_MIN, USEFUL_FACTOR * learn.start_steps, 2 * first)}",
        )
