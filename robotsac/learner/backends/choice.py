"""Which backend computes the updates: the one that the configuration names, or this device's fast one where it is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from robotsac.config.learn import LearnConfig
from robotsac.errors import ConfigError, RobotsacError
from robotsac.learner.algorithm import Algorithm
from robotsac.learner.backends.backend import Backend, BackendUnavailable, Eager
from robotsac.learner.backends.check import Trial, difference, kept
from robotsac.learner.backends.compiled import Compiled
from robotsac.learner.backends.graphed import Graphed
from robotsac.learner.backends.native import Native, why_not
from robotsac.learner.device import usable_threads
from robotsac.learner.variants import create_algorithm

SLOWER = 0.8
"""A backend that does less than this share of the reference's updates is not taken. Far from where two are alike, so that a
resumed run, on the same machine, is computed as it was before."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A backend, and one line about how it came to be the one."""

    backend: Backend
    why: str


def choose_backend(algorithm: Algorithm, learn: LearnConfig, device: torch.device) -> Chosen:
    """The backend for ``learn.backend``, checked against the reference on made-up batches.

    ``auto`` is ``native`` on a CPU and ``graphed`` on a GPU, where these can be had, are right and not clearly slower; else eager.

    Raises:
        ConfigError: the one that the configuration names cannot be had here, or does not compute what it should.
    """
    chosen, threads = _chosen(algorithm, learn, device), usable_threads(learn.threads)
    if device.type != "cpu" or threads == learn.threads:
        return chosen
    return Chosen(chosen.backend, f"{chosen.why}; threads: {threads}, a core each, not learn.threads = {learn.threads}")


def _chosen(algorithm: Algorithm, learn: LearnConfig, device: torch.device) -> Chosen:
    name = learn.backend
    if name == "eager":
        return Chosen(Eager(algorithm), "eager")
    if name != "auto":
        return _named(name, algorithm, learn, device)
    candidate = "graphed" if device.type == "cuda" else "native"
    if candidate == "native" and (reason := why_not(algorithm, learn, device)):
        return Chosen(Eager(algorithm), f"eager; native knows no {reason}")
    try:
        return _checked(candidate, algorithm, learn, device, SLOWER)
    except RobotsacError as error:
        return Chosen(Eager(algorithm), f"eager; {error}")


def _named(name: str, algorithm: Algorithm, learn: LearnConfig, device: torch.device) -> Chosen:
    try:
        return _checked(name, algorithm, learn, device, 0.0)
    except BackendUnavailable as error:
        raise _unusable(name, error) from error


def _unusable(name: str, error: BackendUnavailable) -> ConfigError:
    return ConfigError(
        f"learn.backend {name!r} cannot be used: {error.message}",
        reason=error.reason,
        command="--set learn.backend=auto",
    )


def _checked(name: str, algorithm: Algorithm, learn: LearnConfig, device: torch.device, share_min: float) -> Chosen:
    """Raises BackendUnavailable: not to be had, wrong, or not ``share_min`` of the reference's speed."""
    trial, reference = Trial(algorithm, learn), Eager(algorithm)
    try:
        backend = _made(name, algorithm, learn, device)
        off = difference(trial.outcome(backend), trial.outcome(reference))
    except RobotsacError:
        raise
    except Exception as error:
        raise BackendUnavailable(f"{name} updates cannot be made here", reason=_first_line(error)) from error
    if off.too_large(reduced="bfloat16" in name):
        raise BackendUnavailable(
            f"{name} updates are not those of the reference",
            reason=f"losses are off by {off.losses:.1e} of their size, weights by {off.weights:.1e} of how far they moved",
        )
    reference_s, backend_s = trial.seconds(reference, backend)
    faster = reference_s / backend_s
    if faster < share_min:
        raise BackendUnavailable(f"{name} updates are slower here", reason=f"{faster:.2f} times as fast as eager ones")
    return Chosen(
        backend, f"{name}: {faster:.1f} times as fast as eager, weights off by {off.weights:.0e} of how far they moved"
    )


def require_backend(learn: LearnConfig, device: torch.device) -> None:
    """Refuse a backend that the configuration names and that cannot be had here. What it computes is not looked at.

    Raises:
        ConfigError: why.
    """
    name = learn.backend
    if name in ("auto", "eager"):
        return
    try:
        _made(name, create_algorithm(learn, obs_dim=1, act_dim=1, control_rate_hz=1e3, device=device), learn, device)
    except BackendUnavailable as error:
        raise _unusable(name, error) from error


def _made(name: str, algorithm: Algorithm, learn: LearnConfig, device: torch.device) -> Backend:
    """Raises BackendUnavailable."""
    makers: dict[str, Callable[[], Backend]] = {
        "native": lambda: Native(algorithm, learn, usable_threads(learn.threads)),
        "native_bfloat16": lambda: Native(algorithm, learn, usable_threads(learn.threads), reduced=True),
        "compiled": lambda: Compiled(algorithm, device),
        "compiled_bfloat16": lambda: Compiled(algorithm, device, reduced=True),
        "graphed": lambda: _graphed(algorithm, device),
    }
    return makers[name]()


def _graphed(algorithm: Algorithm, device: torch.device) -> Backend:
    if device.type != "cuda":
        raise BackendUnavailable("a CUDA graph needs a GPU", reason=f"device {device.type}")
    return Graphed(algorithm, device, lambda: kept(algorithm))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
