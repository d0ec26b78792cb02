"""The C++ update on an algorithm's own tensors: structures, pointers, and which settings it knows."""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p
from typing import TypeGuard

import torch
from torch import Tensor
from torch.optim import Adam

from robotsac.config.learn import ALPHA_MAX, ALPHA_MIN, LearnConfig
from robotsac.learner.algorithm import Algorithm, Noise, actor_due
from robotsac.learner.backends.backend import Backend, BackendUnavailable
from robotsac.learner.backends.native.build import library
from robotsac.learner.cross_q import CrossQState
from robotsac.learner.heads import TanhGaussian
from robotsac.learner.replay import Batch
from robotsac.learner.sac import SacState
from robotsac.learner.traced_adam import with_moments

CRITICS_METRICS, ACTORS_METRICS = ("critic_loss", "q"), ("actor_loss", "entropy", "alpha")
"""``Losses`` in work.h."""


class Spec(Structure):
    """What stays as it is; ``Spec`` in work.h."""

    _fields_ = (
        *((name, c_int32) for name in ("batch", "obs", "act", "critics", "subset", "threads")),
        *((name, c_int32) for name in ("actor_depth", "critic_depth")),
        *((name, POINTER(c_int32)) for name in ("actor_widths", "critic_widths")),
        *((name, c_int32) for name in ("layer_norm", "batch_norm", "mean_value", "learned_temperature")),
        *(
            (name, c_float)
            for name in ("log_std_min", "log_std_max", "target_entropy", "log_alpha_min", "log_alpha_max")
        ),
        *((name, c_float) for name in ("discount", "polyak", "smooth_time", "smooth_space", "smooth_sigma")),
    )


class Adams(Structure):
    """An optimizer's settings; ``Adams`` in work.h."""

    _fields_ = tuple((name, c_float) for name in ("learning_rate", "beta1", "beta2", "epsilon"))


class Part(Structure):
    """Of a batch: its first number, and how many lie from one row to the next; ``Part`` in work.h."""

    _fields_ = (("at", c_void_p), ("stride", c_int64))


PARTS = ("obs", "action", "reward", "next_obs", "terminal", "steps", "after")


class Inputs(Structure):
    """What comes anew with each update; ``Inputs`` in work.h."""

    _fields_ = (
        *((name, Part) for name in PARTS),
        *((name, c_void_p) for name in ("mean", "std", "next_noise", "noise", "space", "subset")),
        *((name, c_void_p) for name in ("critic", "actor", "log_alpha", "running")),
        *((name, Adams) for name in ("critic_adam", "actor_adam", "alpha_adam")),
        *((name, c_int32) for name in ("update_actor", "repack")),
    )


class Parameter(Structure):
    """A tensor, its moments and count of steps, its target; ``Parameter`` in adam.h."""

    _fields_ = tuple((name, c_void_p) for name in ("value", "first", "second", "steps", "target"))


def why_not(algorithm: Algorithm, learn: LearnConfig, device: torch.device) -> str:
    """Which setting the C++ update does not know, in words; ``""`` where it knows all."""
    if device.type != "cpu":
        return f"device {device.type}"
    if not _is_known(algorithm):
        return f"variant {learn.variant!r}"
    unknown = {
        f"head {learn.head!r}": not isinstance(algorithm.actor.head, TanhGaussian),
        f"activation {learn.activation!r}": learn.activation != "relu",
        "critic_dropout": learn.critic_dropout > 0,
        f"correction {learn.correction!r}": learn.correction != "none",
        f"policy_gradient {learn.policy_gradient!r}": not algorithm.constants.pathwise,
        "network without hidden layers": not learn.hidden or learn.critic_hidden == (),
    }
    return ", ".join(name for name, holds in unknown.items() if holds)


def _is_known(algorithm: Algorithm) -> TypeGuard[SacState | CrossQState]:
    return isinstance(algorithm, SacState | CrossQState)


class Native(Backend):
    """See module docstring. Deterministic: threads share out work, not sums.

    It reads and writes torch's tensors where they lie, keeps packed copies of the weights, and packs them anew when somebody
    else has written a weight.

    Args:
        algorithm: whose updates; on the CPU.
        learn: its settings.
        threads: that share an update.
        reduced: operands of products of matrices are rounded to bfloat16; whatever is summed or kept is in float32.

    Raises:
        BackendUnavailable: settings that it does not know, no compiler, a processor without products in bfloat16, or a library
            that is not what it should be.
    """

    def __init__(self, algorithm: Algorithm, learn: LearnConfig, threads: int, *, reduced: bool = False) -> None:
        if reason := why_not(algorithm, learn, algorithm.normaliser.mean.device):
            raise BackendUnavailable("the native update does not know these settings", reason=reason)
        assert _is_known(algorithm)
        self.name = "native_bfloat16" if reduced else "native"
        self._algorithm, self._rows = algorithm, learn.batch_size
        self._learned_temperature = algorithm.constants.target_entropy is not None
        for optimizer in algorithm.optimizers().values():
            with_moments(optimizer)
        found = library(reduced=reduced)
        _require_same_layout(found)
        found.robotsac_create.restype = c_void_p
        self._updates = found.robotsac_updates
        self._updates.argtypes = [c_void_p, POINTER(Inputs), c_int32, c_void_p]
        found.robotsac_destroy.argtypes = [c_void_p]
        self._handle: int | None = found.robotsac_create(ctypes.byref(_spec(algorithm, learn, threads)))
        if not self._handle:
            raise BackendUnavailable("the native update cannot begin", reason=f"no memory, or not {threads} threads")
        weakref.finalize(self, found.robotsac_destroy, self._handle)
        self._targets = algorithm.target.tensors if isinstance(algorithm, SacState) else ()
        self._weights = [*algorithm.critic.parts, *self._targets, *algorithm.actor.parameters()]
        self._packed: list[int] = []
        shape, rows = algorithm.noise_shape, learn.batch_size
        row, obs = (rows,), (rows, len(algorithm.normaliser.mean))
        self._part_shapes = dict.fromkeys(PARTS, row) | dict.fromkeys(("obs", "next_obs", "after"), obs)
        self._part_shapes["action"] = (rows, shape.action)
        self._noise_shapes = (
            *((name, (rows, shape.action)) for name in ("next_action", "action")),
            ("space", (rows, shape.space)),
            ("subset", (shape.subset,)),
        )

    def update(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """See :class:`~robotsac.learner.backends.backend.Backend`."""
        return self.updates([(batch, noise)])

    def updates(self, inputs: Sequence[tuple[Batch, Noise]]) -> dict[str, Tensor]:
        """See :class:`~robotsac.learner.backends.backend.Backend`; one call, between whose updates no thread falls asleep."""
        if not inputs:
            return {}
        if wrong := [len(batch) for batch, _ in inputs if len(batch) != self._rows]:
            raise ValueError(f"a batch of {wrong[0]} rows where learn.batch_size is {self._rows}")
        algorithm = self._algorithm
        critic, running = _parameters(algorithm.critic_adam, self._targets), _running(algorithm)
        actor = _parameters(algorithm.actor_adam)
        if self._learned_temperature:
            log_alpha = _parameters(algorithm.alpha_adam)
        else:
            log_alpha = (Parameter * 1)(Parameter(algorithm.log_alpha.data_ptr()))
        # torch counts how often a tensor was written; what is written here, it does not see.
        versions = [tensor._version for tensor in self._weights]
        normaliser = (algorithm.normaliser.mean.data_ptr(), algorithm.normaliser.std.data_ptr())
        parameters = [ctypes.addressof(each) for each in (critic, actor, log_alpha, running)]
        adams = [_adams(each) for each in (algorithm.critic_adam, algorithm.actor_adam, algorithm.alpha_adam)]
        due = [actor_due(algorithm, ahead) for ahead in range(len(inputs))]
        given = (Inputs * len(inputs))(
            *(
                Inputs(
                    *(_part(name, getattr(batch, name), self._part_shapes[name]) for name in PARTS),
                    *normaliser,
                    *(_noise(getattr(noise, name), shape) for name, shape in self._noise_shapes),
                    *parameters,
                    *adams,
                    with_actor,
                    number == 0 and versions != self._packed,
                )
                for number, ((batch, noise), with_actor) in enumerate(zip(inputs, due, strict=True))
            )
        )
        values = torch.empty(len(inputs), len(CRITICS_METRICS) + len(ACTORS_METRICS))
        self._updates(self._handle, given, len(given), values.data_ptr())
        self._packed = versions
        algorithm.updates += len(inputs)
        losses = dict(zip(CRITICS_METRICS, values[-1].unbind(), strict=False))
        if acted := [row for row, with_actor in zip(values, due, strict=True) if with_actor]:
            losses |= dict(zip(ACTORS_METRICS, acted[-1][len(losses) :].unbind(), strict=True))
        return losses


def _spec(algorithm: SacState | CrossQState, learn: LearnConfig, threads: int) -> Spec:
    head, constants = algorithm.actor.head, algorithm.constants
    assert isinstance(head, TanhGaussian)
    critic_hidden = learn.critic_hidden or learn.hidden
    subset = algorithm.noise_shape.subset
    return Spec(
        learn.batch_size,
        len(algorithm.normaliser.mean),
        algorithm.noise_shape.action,
        learn.critics,
        subset,
        threads,
        len(learn.hidden),
        len(critic_hidden),
        (c_int32 * len(learn.hidden))(*learn.hidden),
        (c_int32 * len(critic_hidden))(*critic_hidden),
        learn.critic_layer_norm,
        isinstance(algorithm, CrossQState),
        subset > 0,  # of many critics the actor follows the mean
        constants.target_entropy is not None,
        head.log_std_min,
        head.log_std_max,
        constants.target_entropy or 0.0,
        math.log(ALPHA_MIN),
        math.log(ALPHA_MAX),
        constants.discount,
        constants.polyak,
        constants.smooth_time,
        constants.smooth_space,
        constants.smooth_sigma,
    )


def _require_same_layout(found: ctypes.CDLL) -> None:
    sizes = [found.robotsac_size(which) for which in range(4)]
    ours = [ctypes.sizeof(kind) for kind in (Spec, Adams, Inputs, Parameter)]
    if sizes != ours:
        raise BackendUnavailable("the native update was built for another version", reason=f"sizes {sizes}, not {ours}")


def _noise(tensor: Tensor | None, shape: tuple[int, ...]) -> int | None:
    """Raises ValueError: not what is read there."""
    if 0 in shape:
        return None
    kind = torch.float32 if len(shape) == 2 else torch.int64
    if tensor is None or tensor.shape != shape or tensor.dtype is not kind or not tensor.is_contiguous():
        raise ValueError(f"noise that is not {shape} of {kind}, in one piece")
    return tensor.data_ptr()


def _part(name: str, tensor: Tensor | None, shape: tuple[int, ...]) -> Part:
    """Raises ValueError: not what is read there."""
    if tensor is None and name in ("steps", "after"):
        return Part(None, 0)
    if (
        tensor is None
        or tensor.shape != shape
        or tensor.dtype is not torch.float32
        or tensor.stride()[1:] not in ((), (1,))
    ):
        found = "none" if tensor is None else f"{tuple(tensor.shape)} of {tensor.dtype} with strides {tensor.stride()}"
        raise ValueError(f"a batch whose {name} is {found}, where {shape} of float32 are read, row by row")
    return Part(tensor.data_ptr(), tensor.stride(0))


def _adams(optimizer: Adam) -> Adams:
    group = optimizer.param_groups[0]
    return Adams(group["lr"], *group["betas"], group["eps"])


def _parameters(optimizer: Adam, targets: Sequence[Tensor] = ()) -> ctypes.Array[Parameter]:
    """Where everything of ``optimizer`` lies now: a restored checkpoint puts other tensors in the moments' place."""
    pointers: list[int | None] = []
    for number, parameter in enumerate(optimizer.param_groups[0]["params"]):
        state = optimizer.state[parameter]
        pointers += [parameter.data_ptr(), state["exp_avg"].data_ptr(), state["exp_avg_sq"].data_ptr()]
        pointers += [state["step"].data_ptr(), targets[number].data_ptr() if targets else None]
    return (Parameter * (len(pointers) // 5)).from_buffer((c_void_p * len(pointers))(*pointers))


def _running(algorithm: SacState | CrossQState) -> ctypes.Array[c_void_p]:
    """The running statistics of each layer, mean and variance in turn: ``Running`` in work.h; nothing where there are none."""
    found = algorithm.critic.statistics if isinstance(algorithm, CrossQState) else ()
    return (c_void_p * len(found))(*(tensor.data_ptr() for tensor in found))
