"""What several seeds amount to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Scores:
    """Mean, sample standard deviation (``None`` for one seed) and interquartile mean over seeds; each seed's own."""

    mean: float
    sd: float | None
    iqm: float
    each: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Scores:
        """Of at least one value. Raises ValueError for none."""
        found = np.asarray(values, dtype=np.float64)
        sd = float(found.std(ddof=1)) if len(found) > 1 else None
        return cls(float(found.mean()) if len(found) else math.nan, sd, interquartile_mean(values), tuple(values))


def interquartile_mean(values: Sequence[float]) -> float:
    """Mean of the middle half (Agarwal et al. 2021, section 4.3): one seed that got stuck, or got lucky, moves it little.

    A quarter of the *weight* goes at either end, so a value may count in part: of three, the outer two count a quarter each.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("no values to take a mean of")
    found = np.sort(np.asarray(values, dtype=np.float64))
    edges = np.arange(len(found) + 1) / len(found)
    weight = np.clip(edges[1:], 0.25, 0.75) - np.clip(edges[:-1], 0.25, 0.75)
    return float((found * weight).sum() / weight.sum())
