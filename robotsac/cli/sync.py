"""``robotsac train --sync``: one process, any environment, no robot; the learner is the same.

It can be cut at any time, also by SIGKILL or a power cut, and ``--resume`` goes on with it
(``robotsac.learner.sync_checkpoint`` says from where, and what a run that goes on is not).
"""

from __future__ import annotations

import shlex
from contextlib import ExitStack, closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from robotsac.actor.folder import writable
from robotsac.cli.console import StatusLine
from robotsac.cli.learn import require_learner
from robotsac.cli.sync_options import SyncOptions
from robotsac.cli.sync_settings import CONFIG_FILE, METRICS_FILE, Settings, kept_settings, new_settings, require_free
from robotsac.early_interrupt import EARLY
from robotsac.errors import ConfigError
from robotsac.lock import FileLock

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robotsac.learner.sync import SyncLearning
    from robotsac.learner.sync_checkpoint import SyncCheckpoints, SyncManifest
    from robotsac.learner.world import World

LOCK_FILE, CHECKPOINTS = "sync.lock", "checkpoints"
LOCK_WAIT_S = 0.5
"""Whoever only looks whether a run is at work holds the lock for a moment."""
DISCOUNT_LOW = 0.95


@dataclass(frozen=True, slots=True)
class Opened:
    """What is learned in and what is evaluated in; the rate, Hz, where it is known."""

    world: World
    exam: World
    control_rate_hz: float | None


def run_sync(options: SyncOptions, files: list[Path], overrides: list[str], as_json: bool) -> int:
    """See ``robotsac train --help``. Returns the exit code.

    Raises:
        ConfigError, DriverUnavailable: before anything was made.
        CheckpointError: a run that cannot go on.
        TaskError: from an environment's own code.
        RobotsacError: training has diverged; what there is stays in the run folder.
    """
    if options.seed is not None:
        overrides = [*overrides, f"learn.seed={options.seed}"]
    settings = (kept_settings if options.resume else new_settings)(options, files, overrides)
    require_learner(settings.learn)
    from robotsac.learner.device import prepare_torch, resolve_device

    prepare_torch(settings.learn.threads)
    device = resolve_device(settings.learn.device)
    EARLY.raise_if_seen()
    with ExitStack() as stack:
        status = stack.enter_context(StatusLine(plain=as_json))
        return (_go_on if options.resume else _begin)(settings, device, stack, status, as_json)


def _begin(settings: Settings, device: torch.device, stack: ExitStack, status: StatusLine, as_json: bool) -> int:
    from robotsac.cli.sync_run import SyncRun

    opened, learning = _learning(settings, 0, device, stack)  # what cannot work leaves no folder behind
    _lock(settings.folder, stack)
    require_free(settings.folder)
    checkpoints = _write_settings(settings)
    status.event(f"run folder {settings.folder}")
    status.event(f"updates {learning.backend.why}")
    if note := _note_on_discount(settings, opened.control_rate_hz):
        status.event(note)
    return SyncRun(settings, learning, checkpoints, status, as_json).run()


def _go_on(settings: Settings, device: torch.device, stack: ExitStack, status: StatusLine, as_json: bool) -> int:
    from robotsac.cli.sync_run import SyncRun

    folder = settings.folder
    _lock(folder, stack)
    checkpoints = _checkpoints(folder)
    saved: tuple[SyncManifest, dict[str, Tensor]] | None = checkpoints.load()
    _, learning = _learning(settings, saved[0].env_steps if saved else 0, device, stack)
    run = SyncRun(settings, learning, checkpoints, status, as_json)
    if saved is None:
        checkpoints.discard()
        status.event(f"run folder {folder}; it was cut before its first checkpoint, and begins anew")
    else:
        checkpoints.restore(learning, *saved)
        status.event(f"run folder {folder}; it goes on after {learning.env_steps:,} steps")
    status.event(f"updates {learning.backend.why}")
    run.take_up(saved[0] if saved else None)
    return run.run()


def _learning(
    settings: Settings, env_steps: int, device: torch.device, stack: ExitStack
) -> tuple[Opened, SyncLearning]:
    from robotsac.learner.sync import SyncLearning

    opened = _open(settings, env_steps)
    for world in (opened.world, opened.exam):
        stack.enter_context(closing(world))
    rate_hz = opened.control_rate_hz
    return opened, SyncLearning(settings.learn, settings.plan, opened.world, opened.exam, rate_hz, device)


def _open(settings: Settings, env_steps: int) -> Opened:
    """Worlds that are seeded for a run that has done ``env_steps``."""
    from robotsac.learner.streams import Streams

    streams = Streams.of(settings.learn.seed, env_steps)
    if settings.config is not None:
        from robotsac.cli.arm_world import ArmWorld

        faults = settings.folder / "faults"
        arm = ArmWorld(settings.config, streams.world, faults)
        exam = ArmWorld(settings.config, streams.exam, faults)
        return Opened(arm, exam, float(arm.contract.control_rate_hz))
    from robotsac.cli.checked_env import control_rate_of, make_env
    from robotsac.cli.gym_world import GymWorld

    made = make_env(settings.env)
    world = GymWorld(made, streams.world, settings.collect.noise_hold_s)
    return Opened(world, GymWorld(make_env(settings.env), streams.exam), control_rate_of(made))


def _lock(folder: Path, stack: ExitStack) -> None:
    """Only one process at a run. Raises ConfigError: another one is."""
    lock = FileLock(folder / LOCK_FILE)
    stack.callback(lock.release)
    with writable(folder):
        free = lock.acquire(LOCK_WAIT_S)
    if not free:
        raise ConfigError(
            f"run folder {folder} exists already, and a process is at work in it",
            reason=f"process {lock.holder()} holds {lock.path}",
            command=f"cat {shlex.quote(str(folder / METRICS_FILE))}",
        )


def _write_settings(settings: Settings) -> SyncCheckpoints:
    from robotsac.learner.durable import write_file

    with writable(settings.folder):
        write_file(settings.folder / CONFIG_FILE, settings.to_json().encode())
    return _checkpoints(settings.folder)


def _checkpoints(folder: Path) -> SyncCheckpoints:
    from robotsac.learner.sync_checkpoint import SyncCheckpoints

    digest = sha256((folder / CONFIG_FILE).read_bytes()).hexdigest()
    return SyncCheckpoints(folder / CHECKPOINTS, digest)


def _note_on_discount(settings: Settings, control_rate_hz: float | None) -> str:
    """That the default horizon, an arm's, is short for this environment; else ``""``."""
    from robotsac.learner.algorithm import discount_of

    learn = settings.learn
    if settings.config is not None or control_rate_hz is None or {"discount", "horizon_s"} & learn.model_fields_set:
        return ""
    discount = discount_of(learn, control_rate_hz)
    if discount >= DISCOUNT_LOW:
        return ""
    return (
        f"discount {discount:.3f} per step, from the arm's horizon of {learn.horizon_s:g} s at {control_rate_hz:g} steps/s; "
        "--config gym has 0.99 and all else as published"
    )
