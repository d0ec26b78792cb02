"""torch.compile on the whole update: losses, gradients, optimizers and targets as one graph."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from robotsac.learner.algorithm import Algorithm, Noise, actor_due
from robotsac.learner.backends.backend import Backend, BackendUnavailable
from robotsac.learner.replay import Batch
from robotsac.learner.traced_adam import with_moments


class Compiled(Backend):
    """Inductor's kernels, one call an update. The first update takes a minute; later processes find the kernels in a cache.

    Args:
        algorithm: whose updates.
        device: where it lies.
        reduced: products in bfloat16, whatever is summed or kept in float32.

    Raises:
        BackendUnavailable: this torch takes no gradients inside of a graph, or on a CPU there is no compiler.
        RuntimeError, torch._dynamo.exc.Unsupported: at the first update, where a graph cannot be made.
    """

    def __init__(self, algorithm: Algorithm, device: torch.device, *, reduced: bool = False) -> None:
        # Gradients are taken inside of the graph, not by a call between two.
        if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
            raise BackendUnavailable("compiled updates need a newer torch", reason=f"torch {torch.__version__}")
        if device.type == "cpu":
            _require_compiler()
        torch._dynamo.config.trace_autograd_ops = True
        for optimizer in algorithm.optimizers().values():
            with_moments(optimizer)
        self.name = "compiled_bfloat16" if reduced else "compiled"
        self._algorithm, self._device, self._reduced = algorithm, device, reduced
        self._compute = torch.compile(type(algorithm).compute, fullgraph=True, dynamic=False)

    def update(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """See :class:`~robotsac.learner.backends.backend.Backend`."""
        metrics = self.compute(batch, noise, actor_due(self._algorithm))
        self._algorithm.updates += 1
        return metrics

    def compute(self, batch: Batch, noise: Noise, with_actor: bool) -> dict[str, Tensor]:
        """As :meth:`~robotsac.learner.algorithm.Algorithm.compute`."""
        products = torch.autocast(self._device.type, torch.bfloat16) if self._reduced else contextlib.nullcontext()
        with products:
            metrics: dict[str, Tensor] = self._compute(self._algorithm, batch, noise, with_actor)
        return metrics


def _require_compiler() -> None:
    """Ask now what Inductor asks half a minute later. Raises BackendUnavailable."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise BackendUnavailable(
            "compiled updates need a C++ compiler", reason="torch finds none that works"
        ) from error
