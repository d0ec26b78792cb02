"""What a backend is, and the one that every other is measured by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from robotsac.errors import RobotsacError
from robotsac.learner.algorithm import Algorithm, Noise, update
from robotsac.learner.replay import Batch


class BackendUnavailable(RobotsacError):
    """A backend cannot be had here, or not for these settings."""


class Backend(Protocol):
    """Computes one update of one algorithm, in place, and counts it.

    All of them draw no numbers of their own and leave parameters, moments and targets in the algorithm's own tensors, so that
    any of them can go on where another stopped.
    """

    name: str
    """As ``learn.backend`` names it."""

    def update(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """As :func:`robotsac.learner.algorithm.update`, but for the order in which numbers are summed."""
        ...

    def updates(self, batches: Batch, noise: Noise) -> dict[str, Tensor]:
        """As so many calls of :meth:`update` in turn as ``noise`` is of, at least one, on minibatches one after another; of each
        loss the last value."""
        losses: dict[str, Tensor] = {}
        for batch, its_noise in one_by_one(batches, noise):
            losses |= self.update(batch, its_noise)
        return losses


def one_by_one(batches: Batch, noise: Noise) -> Iterator[tuple[Batch, Noise]]:
    """What each of several updates takes."""
    drawn = noise.each()
    return zip(batches.parts(len(batches) // len(drawn)), drawn, strict=True)


class Eager(Backend):
    """Operation by operation, as the algorithm is written."""

    name = "eager"

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm

    def update(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """See :class:`Backend`."""
        return update(self._algorithm, batch, noise)
