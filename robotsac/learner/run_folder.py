"""The learner's part of a run folder: who the run is, with which settings, and that nobody else is at it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import secrets
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

import robotsac
from robotsac.config.schema import LearnerSettings
from robotsac.errors import ConfigError, StorageError
from robotsac.learner.replay_log import FILE_NAME as REPLAY_FILE
from robotsac.learner.resume_rules import differences

RUN_FILE = "run.json"
SETTINGS_FILE = "learner-settings.json"
LOCK_FILE = "learner.lock"
TRAINER_LOCK_FILE = "trainer.lock"
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


def open_run(settings: LearnerSettings, run_dir: Path, *, resume: bool) -> RunInfo:
    """Make the run folder, or check that it can be resumed. Call with the lock held.

    Raises:
        ConfigError: there is a run already and ``resume`` is off; there is none and it is on; or the settings would
            change what is learned.
        StorageError: the folder cannot be written.
    """
    name = run_name(run_dir)
    if not resume:
        if (run_dir / RUN_FILE).exists() or (run_dir / REPLAY_FILE).exists():
            raise ConfigError(
                f"run {name!r} exists already",
                reason=f"{run_dir} holds its records and checkpoints",
                command=f"robotsac learn --run {run_argument(run_dir)} --resume",
            )
        info = RunInfo(SCHEMA, f"{name}-{secrets.token_hex(4)}", digest(settings), _learn(settings), versions())
        write_json(run_dir / RUN_FILE, info)
    else:
        info = _read_run(run_dir)
        if found := differences(info.learn, settings.learn):
            raise ConfigError(
                f"run {name!r} cannot be resumed with other settings",
                reason="; ".join(found),
                command="robotsac learn --run ANOTHER_NAME",
            )
    write_json(run_dir / SETTINGS_FILE, settings.model_dump(mode="json"))
    return info


def require_run(run_dir: Path) -> None:
    """Refuse a folder that holds no run. Raises ConfigError."""
    _read_run(run_dir)


def run_name(run_dir: Path) -> str:
    """What ``--run`` calls it: the folder's name, or its parent's where both sides of a run share a folder."""
    return run_dir.parent.name if run_dir.name == "learner" else run_dir.name


def run_argument(run_dir: Path) -> str:
    """What to type after ``--run``: the name of a folder below ``runs/``, else the path."""
    return run_dir.name if run_dir.parent == Path("runs") else str(run_dir)


def digest(settings: LearnerSettings) -> str:
    """sha256 of the resolved settings."""
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()


@contextlib.contextmanager
def locked(path: Path, what: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; the kernel lets go of it however the process ends.

    Raises:
        ConfigError: another process holds it and does not let go within ``wait_s``.
        StorageError: the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(f"run folder {path.parent} cannot be written", reason=str(error)) from error
    try:
        deadline = time.monotonic() + wait_s
        while not _try_lock(fd):
            if time.monotonic() >= deadline:
                raise ConfigError(
                    f"a {what} is at work on run {run_name(path.parent)!r} already",
                    reason=f"another process holds {path}",
                    command="robotsac learn --run ANOTHER_NAME",
                )
            time.sleep(0.05)
        yield
    finally:
        os.close(fd)


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
        raise StorageError(f"{path} cannot be written", reason=str(error), command=f"df -h {path.parent}") from error


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


def _read_run(run_dir: Path) -> RunInfo:
    try:
        info = msgspec.json.decode((run_dir / RUN_FILE).read_bytes(), type=RunInfo)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(
            f"there is no run to resume in {run_dir}",
            reason=f"{RUN_FILE} is missing or not valid: {error}",
            command=f"robotsac learn --run {run_argument(run_dir)}",
        ) from error
    if info.schema != SCHEMA:
        raise ConfigError(f"run {run_name(run_dir)!r} has schema {info.schema}, this software reads {SCHEMA}")
    return info


def _learn(settings: LearnerSettings) -> dict[str, Any]:
    return settings.learn.model_dump(mode="json")


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
