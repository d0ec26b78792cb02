"""Whether a backend computes what the reference does, and how fast: on the algorithm itself, which is put back as it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robotsac.config.learn import LearnConfig
from robotsac.learner.algorithm import Algorithm, Noise
from robotsac.learner.backends.backend import Backend
from robotsac.learner.replay import Batch
from robotsac.learner.traced_adam import with_moments

UPDATES = 4
"""Enough for the second to read what the first has written; the second moves the actor too, however long its delay."""
LOSSES_OFF_MAX, WEIGHTS_OFF_MAX = 1e-3, 1e-3
"""How far losses may be off, relative to their size, and weights, relative to how far they have moved: float32 sums in another
order are off by some 1e-6 (Adam's first steps are of one size, whatever the gradient: where it is all but zero, its sign is
rounding's). A term that is wrong or missing is off by tens of percent."""
REDUCED_OFF_MAX = 0.2
"""The same of weights with products in bfloat16, 8 bits of mantissa."""
TURNS, TURN_S = 5, 0.03
"""How often each backend is timed, and for how long."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """After a few updates: every loss of each, and the weights of every network before and after."""

    losses: Mapping[str, Sequence[float]]
    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Difference:
    """Of a backend from the reference: the largest of losses, relative to their size, and of a network's weights on average,
    relative to what they have moved."""

    losses: float
    weights: float

    def too_large(self, reduced: bool) -> bool:
        """Whether it is more than rounding; a number that is none is."""
        limits = (REDUCED_OFF_MAX, REDUCED_OFF_MAX) if reduced else (LOSSES_OFF_MAX, WEIGHTS_OFF_MAX)
        return not (self.losses <= limits[0] and self.weights <= limits[1])


class Trial:
    """Made-up batches, always the same ones, for an algorithm that is put back after each use.

    Args:
        algorithm: to try backends on.
        learn: its settings.
    """

    def __init__(self, algorithm: Algorithm, learn: LearnConfig) -> None:
        for optimizer in algorithm.optimizers().values():
            with_moments(optimizer)
        self._algorithm = algorithm
        device = algorithm.normaliser.mean.device
        generator = torch.Generator(device).manual_seed(learn.seed)
        self._inputs = [_made_up(algorithm, learn, generator) for _ in range(UPDATES)]

    def outcome(self, backend: Backend) -> Outcome:
        """Of ``UPDATES`` updates."""
        put_back = kept(self._algorithm)
        try:
            self._algorithm.updates = self._algorithm.constants.actor_delay - 2
            before = _weights(self._algorithm)
            made = [backend.update(batch, noise) for batch, noise in self._inputs]
            names = sorted({name for metrics in made for name in metrics})
            losses = {name: [float(metrics[name]) for metrics in made if name in metrics] for name in names}
            return Outcome(losses, before, _weights(self._algorithm))
        finally:
            put_back()

    def seconds(self, *backends: Backend) -> list[float]:
        """Of one update of each that moves the actor too, the fastest; the first one, which may build something, aside.

        They take turns, so that what else the machine does for a while falls on all of them.
        """
        put_back = kept(self._algorithm)
        try:
            batch, noise = self._inputs[0]
            for backend in backends:
                self._timed(backend, batch, noise)
            turns = [[self._turn(backend, batch, noise) for backend in backends] for _ in range(TURNS)]
            return [min(of_one) for of_one in zip(*turns, strict=True)]
        finally:
            put_back()

    def _turn(self, backend: Backend, batch: Batch, noise: Noise) -> float:
        """The fastest update of ``TURN_S``."""
        spent: list[float] = []
        while sum(spent) < TURN_S:
            spent.append(self._timed(backend, batch, noise))
        return min(spent)

    def _timed(self, backend: Backend, batch: Batch, noise: Noise) -> float:
        # Of an actor that is delayed every update is due, or backends that take turns could be told apart by that.
        self._algorithm.updates = self._algorithm.constants.actor_delay - 1
        begin_s = time.perf_counter()
        float(backend.update(batch, noise)["q"])  # waits for the device
        return time.perf_counter() - begin_s


def difference(one: Outcome, reference: Outcome) -> Difference:
    """How far ``one`` is off."""
    if one.losses.keys() != reference.losses.keys():
        return Difference(float("inf"), float("inf"))
    off = [_off(np.array(one.losses[name]), np.array(wanted)) for name, wanted in reference.losses.items()]
    weights = [
        _share(one.after[name] - wanted, wanted - reference.before[name]) for name, wanted in reference.after.items()
    ]
    # numpy's, which hands on a number that is none; Python's max drops it.
    return Difference(float(np.max(off)), float(np.max(weights)))


def _share(off: Tensor, way: Tensor) -> float:
    distance, moved = float(off.abs().mean()), float(way.abs().mean())
    return distance / moved if moved else float("inf") if distance else 0.0


def _off(got: np.ndarray, wanted: np.ndarray) -> float:
    if got.shape != wanted.shape:
        return float("inf")
    # Relative to the largest of its kind: a mean that happens to be near zero has no size of its own. At least to 0.1.
    return float(np.max(np.abs(got - wanted)) / max(float(np.max(np.abs(wanted))), 0.1))


def kept(algorithm: Algorithm) -> Callable[[], None]:
    """Remember all of ``algorithm``; what is returned puts it back, where it lies."""
    live = [tensor for module in algorithm.modules().values() for tensor in module.state_dict().values()]
    live += algorithm.scalars().values()
    for optimizer in algorithm.optimizers().values():
        live += [value for state in optimizer.state.values() for value in state.values()]
    saved, updates = [tensor.detach().clone() for tensor in live], algorithm.updates

    def put_back() -> None:
        with torch.no_grad():
            for tensor, value in zip(live, saved, strict=True):
                tensor.copy_(value)
        algorithm.updates = updates

    return put_back


def _weights(algorithm: Algorithm) -> dict[str, Tensor]:
    networks = {
        name: torch.cat([tensor.detach().double().flatten().cpu() for tensor in module.state_dict().values()])
        for name, module in algorithm.modules().items()
    }
    return networks | {name: value.detach().double().cpu() for name, value in algorithm.scalars().items()}


def _made_up(algorithm: Algorithm, learn: LearnConfig, generator: torch.Generator) -> tuple[Batch, Noise]:
    rows, device = learn.batch_size, generator.device
    obs_dim, act_dim = len(algorithm.normaliser.mean), algorithm.actor.last.out_features // algorithm.actor.head.outputs

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    several = learn.n_step > 1
    batch = Batch(
        obs=normal(rows, obs_dim),
        action=normal(rows, act_dim).tanh(),
        reward=normal(rows),
        next_obs=normal(rows, obs_dim),
        terminal=(normal(rows) > 1.5).float(),
        steps=1.0 + (normal(rows) > 0.0).float() if several else None,
        after=normal(rows, obs_dim) if several and learn.smooth_time > 0 else None,
    )
    return batch, algorithm.noise_shape.draw(rows, generator)
