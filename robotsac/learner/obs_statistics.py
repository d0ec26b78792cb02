"""Mean and spread of the observations, for networks that want them near 0 and of size 1.

Every fresh step counts once, when it comes in, so updates and evaluations move nothing, and the replay holds observations as
they were made: all of them are normalised by the newest statistics when they are drawn. The codec scales an arm's
observations already; ``learn.normalise_obs`` is for worlds that do not.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robotsac.learner.networks import Normaliser

STD_MIN = 1e-2
"""A channel that has hardly changed yet must not be blown up when it does."""


class ObsStatistics:
    """Of all observations so far (Welford's recurrence, for rows at a time: Chan, Golub and LeVeque 1983, eq. 2.1).

    Args:
        obs_dim: length of an observation.
        wanted: keep any; without, :meth:`add` does nothing and there is nothing to save.
    """

    def __init__(self, obs_dim: int, wanted: bool) -> None:
        self._count, self._mean, self._squares = np.zeros(()), np.zeros(obs_dim), np.zeros(obs_dim)
        self._wanted = wanted

    @property
    def count(self) -> int:
        """Observations so far."""
        return int(self._count)

    def add(self, obs: NDArray[np.float32], normaliser: Normaliser) -> None:
        """Count the rows of ``obs`` (k, obs_dim), and let ``normaliser`` go by them from now on."""
        if not self._wanted or not len(obs):
            return
        rows = obs.astype(np.float64)
        mean, total = rows.mean(axis=0), float(self._count) + len(rows)
        off = mean - self._mean
        self._squares += np.square(rows - mean).sum(axis=0) + np.square(off) * (float(self._count) * len(rows) / total)
        self._mean += off * (len(rows) / total)
        self._count[...] = total
        normaliser.mean.copy_(torch.from_numpy(self._mean))
        normaliser.std.copy_(torch.from_numpy(np.sqrt(self._squares / total).clip(min=STD_MIN)))

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a checkpoint without a log to count again; they are the statistics themselves, and can be written to."""
        if not self._wanted:
            return {}
        named = {"count": self._count, "mean": self._mean, "squares": self._squares}
        return {f"observed.{name}": torch.from_numpy(numbers) for name, numbers in named.items()}
