"""``robotsac learn``."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from robotsac.child_error import read_printed_error
from robotsac.cli.console import StatusLine, say
from robotsac.cli.options import run_folder
from robotsac.config import LearnConfig, LinkConfig, load_learner_settings
from robotsac.early_interrupt import EARLY
from robotsac.errors import ConfigError, DriverUnavailable
from robotsac.link.sockets import endpoint

JSON_PERIOD_S = 2.0
# Looked for before anything starts: a missing one would show up minutes later, in a child process.
LEARN_PACKAGES = ("torch", "onnx", "onnxscript", "safetensors", "matplotlib")
# Importing torch and waking a GPU up take seconds, building the C++ update tens; a driver that hangs takes for ever.
TRY_PATIENCE_S = 300.0
# What takes a device and a backend that are named, or says why not, in words for the operator.
TRY = """
import json, sys
from robotsac.config.learn import LearnConfig
from robotsac.errors import ConfigError
from robotsac.learner.device import resolve_device
from robotsac.learner.backends.choice import require_backend
learn = LearnConfig.model_validate_json(sys.stdin.read())
try:
    require_backend(learn, resolve_device(learn.device))
except ConfigError as error:
    print(json.dumps({"error": error.to_dict()}))
"""


def run_learn_command(
    run: str | None, resume: bool, files: list[Path], overrides: list[str], as_json: bool, parent: int | None
) -> int:
    """See ``robotsac learn --help``. Returns the exit code.

    Raises:
        DriverUnavailable, ConfigError, LinkError: before anything was made.
        RobotsacError: what went wrong later.
    """
    settings = load_learner_settings(files, overrides)
    endpoint(settings.link.address)
    require_learner(settings.learn)
    from robotsac.learner.app import run_learn

    EARLY.raise_if_seen()
    folder = run_folder(run, "learn")
    stop = threading.Event()
    with StatusLine(plain=as_json) as status:
        show = _JsonPrinter().show if as_json else _Screen(status, folder, settings.link).show

        def on_status(body: dict[str, Any]) -> None:
            if parent is not None and os.getppid() != parent:
                stop.set()  # whoever started this is gone and will not stop it
            show(body)

        code = run_learn(settings, folder, resume=resume, on_status=on_status, on_event=status.event, stop=stop)
    if not as_json:
        say(f"stopped; go on with: robotsac learn --run {run or folder.name} --resume")
    return code


def require_learner(learn: LearnConfig) -> None:
    """Refuse at once what would fail minutes later, when the first robot has come.

    Raises:
        DriverUnavailable: the learn extra is not installed.
        ConfigError: this computer has no such device or backend, or prior data is not there.
        StorageError: prior data cannot be read.
    """
    missing = [name for name in LEARN_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise DriverUnavailable(
            "the learner is not installed",
            reason=f"missing: {', '.join(missing)}",
            command="pip install 'robotsac[learn]'",
        )
    if learn.device.startswith("cuda") or learn.backend not in ("auto", "eager"):
        _try(learn)
    if learn.prior_data:
        from robotsac.learner.prior_data import PriorLogs

        PriorLogs(learn.prior_data)


def _try(learn: LearnConfig) -> None:
    """Have torch take the device and the backend that are named, in a process of its own: this one loads no torch.

    Raises:
        ConfigError: one of them cannot be had here.
    """
    what = f"learn.device {learn.device!r}, learn.backend {learn.backend!r}"
    named = "device" if learn.backend in ("auto", "eager") else "backend"
    command = f"--set learn.{named}=auto"
    try:
        tried = subprocess.run(
            [sys.executable, "-c", TRY],
            input=learn.model_dump_json().encode(),
            capture_output=True,
            timeout=TRY_PATIENCE_S,
        )
    except subprocess.TimeoutExpired as late:
        raise ConfigError(
            f"{what} cannot be used here",
            reason=f"it gave no sign of life within {TRY_PATIENCE_S:g} s",
            command=command,
        ) from late
    if tried.returncode:
        reason = (tried.stderr.decode(errors="replace").splitlines() or ["torch gave no reason"])[-1]
        raise ConfigError(f"{what} cannot be used here", reason=reason, command=command)
    if (error := read_printed_error(tried.stdout)) is not None:
        raise ConfigError(error.message, reason=error.reason, command=error.command)


class _Screen:
    """What an operator sees: where it listens once it does, who joins and leaves, and the live line."""

    def __init__(self, status: StatusLine, folder: Path, link: LinkConfig) -> None:
        self._status = status
        self._folder = folder
        self._link = link
        self._listening = False
        self._backend = ""
        self._robots: dict[str, str] = {}

    def show(self, body: dict[str, Any]) -> None:
        """Show a status (``robotsac.learner.app.status``)."""
        if not self._listening and body.get("ingest", {}).get("state") == "running":
            self._listening = True
            self._status.event(f"run folder {self._folder}, listening on {self._link.address}")
            self._status.event(f"robots join; the virtual one with: {self._link.collect_command('arm0-twin')}")
        backend = body.get("trainer", {}).get("backend", "")
        if backend != self._backend:
            self._status.event(f"updates {backend}")
            self._backend = backend
        for robot in body.get("robots", []):
            name, state = robot["robot"], robot["state"]
            if self._robots.get(name) != state:
                self._status.event(f"robot {name}: {state}")
                self._robots[name] = state
        self._status.update(_line(body))


class _JsonPrinter:
    """One JSON object a line, at most every two seconds; the last one always."""

    def __init__(self) -> None:
        self._last_s = float("-inf")

    def show(self, body: dict[str, Any]) -> None:
        """Print a status (``robotsac.learner.app.status``), if it is time to."""
        now_s = time.monotonic()
        if now_s - self._last_s >= JSON_PERIOD_S or body.get("state") == "stopping":
            self._last_s = now_s
            # The two processes' own reports repeat what stands beside them; they are in the run folder for the curious.
            say(json.dumps({key: body[key] for key in body if key not in ("trainer", "ingest")}))


def _line(body: dict[str, Any]) -> str:
    if body["state"] == "resuming":
        return (
            f"{body['run']} resuming from {body['updates']:,} updates, {body['records']:,} records in the log, "
            f"policy v{body['policy_version']}"
        )
    names = ", ".join(f"{robot['robot']} {robot['state']}" for robot in body["robots"]) or "no robot yet"
    silent = f"trainer silent for {body['trainer_silent_s']:.0f} s  " if body["trainer_silent_s"] else ""
    success = f"{body['success_rate']:.0%}" if body["episodes"] else "–"
    return (
        f"{body['run']} {body['state']}  {silent}{body['updates']:,} updates {body['updates_per_s']:.0f}/s  "
        f"{body['env_steps']:,} steps {body['env_steps_per_s']:.0f}/s  success {success}  "
        f"return {body['return']:.2f}  policy v{body['policy_version']}  {names}"
    )
