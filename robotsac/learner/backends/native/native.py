"""The C++ update on an algorithm's own tensors: structures, pointers, and which settings it knows."""

from __future__ import annotations

import ctypes
import math
import operator
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
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""torch's names of ``first``, ``second`` and ``steps`` of a :class:`Parameter`."""


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
    """A tensor: its first number, and how many lie from one row, or update, to the next; ``Part`` in work.h."""

    _fields_ = (("at", c_void_p), ("stride", c_int64))


PARTS = ("obs", "action", "reward", "next_obs", "terminal", "steps", "after")


class Inputs(Structure):
    """What comes anew with each call; ``Inputs`` in work.h."""

    _fields_ = (
        *((name, Part) for name in PARTS),
        *((name, Part) for name in ("next_noise", "noise", "space")),
        *((name, c_void_p) for name in ("subset", "update_actor", "mean", "std")),
        *((name, c_void_p) for name in ("critic", "actor", "log_alpha", "running")),
        *((name, Adams) for name in ("critic_adam", "actor_adam", "alpha_adam")),
        ("repack", c_int32),
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
    else has written a weight. Moments may be replaced by others; a weight's numbers must stay in their place.

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
        targets = algorithm.target.tensors if isinstance(algorithm, SacState) else ()
        self._weights = [*algorithm.critic.parts, *targets, *algorithm.actor.parameters()]
        self._critic, self._actor = _Places(algorithm.critic_adam, targets), _Places(algorithm.actor_adam)
        self._log_alpha = _Places(algorithm.alpha_adam) if algorithm.constants.target_entropy is not None else None
        self._packed: list[int] = []
        obs, self._shape = (len(algorithm.normaliser.mean),), algorithm.noise_shape
        self._widths = dict.fromkeys(PARTS, ()) | dict.fromkeys(("obs", "next_obs", "after"), obs)
        self._widths["action"] = (self._shape.action,)

    def update(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """See :class:`~robotsac.learner.backends.backend.Backend`."""
        return self.updates(batch, noise.as_several())

    def updates(self, batches: Batch, noise: Noise) -> dict[str, Tensor]:
        """See :class:`~robotsac.learner.backends.backend.Backend`; one call, between whose updates no thread falls asleep.

        Raises:
            ValueError: not what is read there; nothing has changed then.
        """
        algorithm, shape, rows, count = self._algorithm, self._shape, self._rows, len(noise.next_action)
        if not count or len(batches) != count * rows:
            raise ValueError(
                f"{len(batches)} rows for {count} update{'s' * (count != 1)}, where learn.batch_size is {rows}"
            )
        critic, actor, running = self._critic.now(), self._actor.now(), _running(algorithm)
        if self._log_alpha is None:
            log_alpha = (Parameter * 1)(Parameter(algorithm.log_alpha.data_ptr()))
        else:
            log_alpha = self._log_alpha.now()
        # torch counts how often a tensor was written; what is written here, it does not see.
        versions = [tensor._version for tensor in self._weights]
        due = [actor_due(algorithm, ahead) for ahead in range(count)]
        with_actor = (c_int32 * count)(*due)
        given = Inputs(
            *(_part(name, getattr(batches, name), (len(batches), *width)) for name, width in self._widths.items()),
            *(_drawn(each, (count, rows, shape.action)) for each in (noise.next_action, noise.action)),
            _drawn(noise.space, (count, rows, shape.space)),
            _drawn(noise.subset, (count, shape.subset), torch.int64).at,
            ctypes.addressof(with_actor),
            *(each.data_ptr() for each in (algorithm.normaliser.mean, algorithm.normaliser.std)),
            *(ctypes.addressof(each) for each in (critic, actor, log_alpha, running)),
            *(_adams(each) for each in (algorithm.critic_adam, algorithm.actor_adam, algorithm.alpha_adam)),
            versions != self._packed,
        )
        values = torch.empty(count, len(CRITICS_METRICS) + len(ACTORS_METRICS))
        self._updates(self._handle, given, count, values.data_ptr())
        self._packed = versions
        algorithm.updates += count
        losses = dict(zip(CRITICS_METRICS, values[-1].unbind(), strict=False))
        if True in due:
            last = count - 1 - due[::-1].index(True)
            losses |= dict(zip(ACTORS_METRICS, values[last, len(losses) :].unbind(), strict=True))
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


def _drawn(tensor: Tensor | None, shape: tuple[int, ...], kind: torch.dtype = torch.float32) -> Part:
    """Noise of several updates, that of each in one piece; indices also of all. Raises ValueError: not what is read there."""
    if 0 in shape[1:]:
        return Part(None, 0)
    whole = tensor is not None and (tensor if kind is torch.int64 else tensor[:1]).is_contiguous()
    if tensor is None or tensor.shape != shape or tensor.dtype is not kind or not whole:
        raise ValueError(f"noise that is not {shape} of {kind}, in one piece for each update")
    return Part(tensor.data_ptr(), tensor.stride(0))


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


class _Places:
    """Where everything of an optimizer lies, looked up once: there are a hundred tensors to ask.

    Args:
        optimizer: with moments.
        targets: that follow its parameters, in their order; none = no targets.
    """

    def __init__(self, optimizer: Adam, targets: Sequence[Tensor] = ()) -> None:
        self._optimizer, self._targets = optimizer, targets
        self._tensors: list[Tensor] = []
        self._places = (Parameter * 0)()

    def now(self) -> ctypes.Array[Parameter]:
        """Looked up anew where other tensors have come in the moments' place, as of a restored checkpoint."""
        parameters, states = self._optimizer.param_groups[0]["params"], self._optimizer.state
        tensors = [tensor for each in parameters for tensor in (each, *map(states[each].__getitem__, MOMENTS))]
        if len(tensors) != len(self._tensors) or not all(map(operator.is_, tensors, self._tensors)):
            self._tensors = tensors
            targets: list[int | None] = [each.data_ptr() for each in self._targets] or [None] * len(parameters)
            lie = [tensor.data_ptr() for tensor in tensors]
            each_part = zip(*(lie[number::4] for number in range(4)), targets, strict=True)
            self._places = (Parameter * len(parameters))(*(Parameter(*places) for places in each_part))
        return self._places


def _running(algorithm: SacState | CrossQState) -> ctypes.Array[c_void_p]:
    """The running statistics of each layer, mean and variance in turn: ``Running`` in work.h; nothing where there are none."""
    found = algorithm.critic.statistics if isinstance(algorithm, CrossQState) else ()
    return (c_void_p * len(found))(*(tensor.data_ptr() for tensor in found))
