"""The learner's part of a run folder: who the run is, with which settings, and that nobody else is at it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import secrets
import shlex
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

import robotsac
from robotsac.config.schema import LearnerSettings
from robotsac.errors import ANOTHER_RUN, ConfigError, StorageError, path_command
from robotsac.learner.replay_log import FILE_NAME as REPLAY_FILE
from robotsac.learner.resume_rules import differences
from robotsac.lock import FileLock
from robotsac.process import is_stopped

RUN_FILE = "run.json"
SETTINGS_FILE = "learner-settings.json"
LOCK_FILE = "learner.lock"
TRAINER_LOCK_FILE = "trainer.lock"
INGEST_LOCK_FILE = "ingest.lock"
CHILD_LOCK_WAIT_S = 10.0
"""A trainer or ingest whose supervisor was killed first writes its last checkpoint, or commits what it received; its successor
waits, and hears of a stop afterwards."""
TRAINER_STATUS_FILE = "trainer-status.json"
TRAINER_ERROR_FILE = "trainer-error.json"
INGEST_STATUS_FILE = "ingest-status.json"
INGEST_ERROR_FILE = "ingest-error.json"
POLICIES = "policies"
CHECKPOINTS = "checkpoints"
SCHEMA = 1
_VERSIONED = ("torch", "onnx", "onnxruntime", "numpy", "pyzmq", "safetensors")


class RunInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``run.json``: written once, when the run is made.

    Args:
        schema: version of this layout.
        run_id: folder name and random digits; in every bundle and checkpoint.
        settings_digest: sha256 of the settings it was made with.
        learn: the ``[learn]`` table it was made with.
        versions: of the software that made it.
    """

    schema: int
    run_id: str
    settings_digest: str
    learn: dict[str, Any]
    versions: dict[str, str]


class Counters(msgspec.Struct, frozen=True):
    """Of a checkpoint's manifest, what an operator asks for first; readable without torch."""

    updates: int = 0
    transitions: int = 0


def open_run(settings: LearnerSettings, run_dir: Path, *, resume: bool) -> RunInfo:
    """Make the run folder, or check that it can be resumed. Call with the lock held.

    Raises:
        ConfigError: there is a run already and ``resume`` is off; there is none and it is on; or the settings would
            change what is learned.
        StorageError: the folder cannot be written.
    """
    name = run_name(run_dir)
    if not resume:
        require_new(run_dir)
        info = RunInfo(SCHEMA, f"{name}-{secrets.token_hex(4)}", digest(settings), _learn(settings), versions())
        write_json(run_dir / RUN_FILE, info)
        _make_durable(run_dir / RUN_FILE)
    else:
        info = _read_run(run_dir)
        if found := differences(info.learn, settings.learn):
            raise ConfigError(
                f"run {name!r} cannot be resumed with other settings",
                reason="; ".join(found),
                command=ANOTHER_RUN,
            )
    write_json(run_dir / SETTINGS_FILE, settings.model_dump(mode="json"))
    return info


def require_run(run_dir: Path) -> None:
    """Refuse a folder that holds no run. Raises ConfigError."""
    _read_run(run_dir)


def require_new(run_dir: Path) -> None:
    """Refuse a folder that holds a run. Raises ConfigError."""
    if (run_dir / RUN_FILE).exists() or (run_dir / REPLAY_FILE).exists():
        raise ConfigError(
            f"run {run_name(run_dir)!r} exists already",
            reason=f"{run_dir} holds its records and checkpoints",
            command=f"robotsac learn --run {run_argument(run_dir)} --resume",
        )


def last_counters(run_dir: Path) -> Counters:
    """Of the newest checkpoint; zeros where there is none, or where it cannot be read, which its reader will say."""
    newest = max((run_dir / CHECKPOINTS).glob("checkpoint-*/manifest.json"), default=None)
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return Counters() if newest is None else msgspec.json.decode(newest.read_bytes(), type=Counters)
    return Counters()


def run_name(run_dir: Path) -> str:
    """What ``--run`` calls it: the folder's name, or its parent's where both sides of a run share a folder."""
    return run_dir.parent.name if run_dir.name == "learner" else run_dir.name


def run_option(run_dir: Path, suffix: str = "") -> str:
    """The value of ``--run``: the name of a folder below ``runs/``, else the path; ``suffix`` makes it another one."""
    return (run_dir.name if run_dir.parent == Path("runs") else str(run_dir)) + suffix


def run_argument(run_dir: Path, suffix: str = "") -> str:
    """:func:`run_option` as a shell takes it."""
    return shlex.quote(run_option(run_dir, suffix))


def digest(settings: LearnerSettings) -> str:
    """sha256 of the resolved settings."""
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()


@contextlib.contextmanager
def locked(
    path: Path, what: str, wait_s: float = 0.0, on_wait: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Only one ``what`` at a time: hold the lock file ``path`` of a run folder in a ``with`` block.

    Args:
        path: made where it is missing.
        what: holds it.
        wait_s: for another process that holds it, s.
        on_wait: told once, in words, that it is waited for.

    Raises:
        ConfigError: another process holds it and does not let go within ``wait_s``.
        StorageError: the file cannot be made.
    """
    lock = FileLock(path)
    try:
        free = lock.acquire()
        if not free and wait_s:
            on_wait(f"{_at_work(what, lock)} (process {lock.holder()}); waiting up to {wait_s:g} s for it to end")
            free = lock.acquire(wait_s)
    except OSError as error:
        raise StorageError(
            f"run folder {path.parent} cannot be written", reason=str(error), command=path_command(error, path.parent)
        ) from error
    if not free:
        raise _held(what, lock)
    try:
        yield
    finally:
        lock.release()


def write_json(path: Path, value: object) -> None:
    """Replace a small JSON file as a whole; readers never see half of it. Not synced: it is status, not data.

    Raises:
        StorageError: the disk refused.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(msgspec.json.encode(value))
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(
            f"{path} cannot be written", reason=str(error), command=path_command(error, path.parent)
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A status file of another process; empty when it is not there (yet)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return {}


def versions() -> dict[str, str]:
    """Versions of what shapes a run; packages are looked up, not imported."""
    found = {"robotsac": robotsac.__version__, "python": platform.python_version()}
    for package in _VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _at_work(what: str, lock: FileLock) -> str:
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what} is still at work on run {run_name(lock.path.parent)!r}"


def _held(what: str, lock: FileLock) -> ConfigError:
    """Who holds it, and how to end that one in order. The run is the operator's: another one is no way out."""
    holder = lock.holder()
    if not holder.isdigit():
        reason, command = f"another process holds {lock.path}", f"fuser -v {shlex.quote(str(lock.path))}"
    elif is_stopped(int(holder)):
        reason = f"process {holder} holds {lock.path} and has been stopped by a signal (Ctrl-Z?); woken up, it can end"
        command = f"kill -CONT {holder}"
    else:
        reason, command = f"process {holder} holds {lock.path}; told to end, it saves first", f"kill {holder}"
    return ConfigError(_at_work(what, lock), reason=reason, command=command)


def _read_run(run_dir: Path) -> RunInfo:
    try:
        info = msgspec.json.decode((run_dir / RUN_FILE).read_bytes(), type=RunInfo)
    except (OSError, msgspec.DecodeError) as error:
        half = run_dir / "learner"
        if (half / RUN_FILE).exists():
            raise ConfigError(
                f"there is no learner's run in {run_dir} itself",
                reason=f"it is one of robotsac train, whose learner's half is {half}",
                command=f"robotsac learn --run {run_argument(half)} --resume",
            ) from error
        raise ConfigError(
            f"there is no run to resume in {run_dir}",
            reason=f"{RUN_FILE} is missing or not valid: {error}",
            command=f"robotsac learn --run {run_argument(run_dir)}",
        ) from error
    if info.schema != SCHEMA:
        raise ConfigError(
            f"run {run_name(run_dir)!r} has schema {info.schema}, this software reads {SCHEMA}",
            reason="it was made by another version of robotsac",
            command=ANOTHER_RUN,
        )
    return info


def _make_durable(path: Path) -> None:
    """Without this file, records that survive a power cut could not be resumed with: it has to survive it too."""
    try:
        for place in (path, path.parent, path.parent.parent):
            fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written", reason=str(error), command=path_command(error, path.parent)
        ) from error


def _learn(settings: LearnerSettings) -> dict[str, Any]:
    return settings.learn.model_dump(mode="json")
