"""The compiled update, recorded once as a CUDA graph and replayed: one launch instead of a hundred."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from robotsac.learner.algorithm import Algorithm, Noise, actor_due
from robotsac.learner.backends.backend import Backend, one_by_one
from robotsac.learner.backends.compiled import Compiled
from robotsac.learner.replay import Batch

Inputs = TypeVar("Inputs", Batch, Noise)
WARM_UP = 3
"""Updates on the side before recording: what is only allocated or looked up once must not be recorded."""


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A graph, what it reads, and what it writes: the names and one row of numbers. Two are the same if they are one."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    names: Sequence[str]
    values: Tensor

    def losses(self) -> dict[str, Tensor]:
        """Of the last replay: a copy, since the next one writes over them."""
        return dict(zip(self.names, self.values.clone().unbind(), strict=True))


class Graphed(Backend):
    """Replays. Batch and noise are drawn outside, each time anew, and copied in: a graph that drew its own numbers would have to
    be trusted not to draw the same ones again.

    Parameters, moments and counts of steps are changed where they lie; whoever puts other tensors in their place must make a
    new one of these.

    Args:
        algorithm: whose updates; on a GPU.
        device: where it lies.
        keep: called around the updates that are done before recording: what they changed must be put back.
    """

    name = "graphed"

    def __init__(
        self,
        algorithm: Algorithm,
        device: torch.device,
        keep: Callable[[], Callable[[], None]],
        *,
        reduced: bool = False,
    ) -> None:
        self._algorithm, self._device, self._keep = algorithm, device, keep
        self._compiled = Compiled(algorithm, device, reduced=reduced)
        self._recorded: dict[bool, Recorded] = {}

    def update(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """See :class:`~robotsac.learner.backends.backend.Backend`. Nothing in it waits for the device."""
        return self._replay(batch, noise).losses()

    def updates(self, batches: Batch, noise: Noise) -> dict[str, Tensor]:
        """See :class:`~robotsac.learner.backends.backend.Backend`; losses are copied once, not with each update."""
        replayed = [self._replay(*given) for given in one_by_one(batches, noise)]
        newest_first = dict.fromkeys(reversed(replayed))
        return {name: loss for recorded in reversed(newest_first) for name, loss in recorded.losses().items()}

    def _replay(self, batch: Batch, noise: Noise) -> Recorded:
        with_actor = actor_due(self._algorithm)
        recorded = self._recorded.get(with_actor)
        if recorded is None:
            recorded = self._recorded[with_actor] = self._record(batch, noise, with_actor)
        torch._foreach_copy_(recorded.inputs, _tensors(batch, noise), non_blocking=True)
        recorded.graph.replay()
        self._algorithm.updates += 1
        return recorded

    def _record(self, batch: Batch, noise: Noise, with_actor: bool) -> Recorded:
        batch, noise = _clone(batch), _clone(noise)
        put_back = self._keep()
        aside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self._compiled.compute(batch, noise, with_actor)
        torch.cuda.current_stream(self._device).wait_stream(aside)
        put_back()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            metrics = self._compiled.compute(batch, noise, with_actor)
            values = torch.stack([value.float() for value in metrics.values()])
        return Recorded(graph, _tensors(batch, noise), tuple(metrics), values)


def _clone(given: Inputs) -> Inputs:
    parts: dict[str, Any] = {field.name: getattr(given, field.name) for field in fields(given)}
    return replace(given, **{name: part.clone() for name, part in parts.items() if part is not None})


def _tensors(batch: Batch, noise: Noise) -> list[Tensor]:
    """Those that there are, always in the same order."""
    parts = [getattr(given, field.name) for given in (batch, noise) for field in fields(given)]
    return [part for part in parts if part is not None]
