"""``robotsac learn`` as a child of ``train``: started, watched, started again, and asked to end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from robotsac.child_error import read_logged_error
from robotsac.config.folders import find_config, find_robot
from robotsac.errors import RobotsacError
from robotsac.learner.run_folder import TRAINER_STATUS_FILE, read_json
from robotsac.policy.store import BundleStore

LEARNER_STARTS_MAX = 4
LEARNER_PATIENCE_S = 40.0


class LearnerProcess:
    """``robotsac learn`` as a process of its own, started again from its last checkpoint when it dies.

    Args:
        folder: its run folder.
        arguments: of the command, but for ``--resume``.
    """

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self._folder = folder
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._starts = 0
        self._awaits_backend = False
        self.failed = False

    def start(self) -> None:
        """Start it; its output goes to ``learner.log`` beside its folder."""
        resume = ["--resume"] if (self._folder / "run.json").exists() else []
        command = [sys.executable, "-m", "robotsac", "learn", "--run", str(self._folder.resolve()), *resume]
        command += ["--parent", str(os.getpid())]
        (self._folder / TRAINER_STATUS_FILE).unlink(missing_ok=True)  # of the last start; its words are not this one's
        self._awaits_backend = True
        self._log = (self._folder.parent / "learner.log").open("ab")
        # A process group of its own: the terminal's Ctrl-C must not end learning before the arm has stopped.
        self._process = subprocess.Popen(
            [*command, *self._arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._starts += 1

    def watch(self) -> str:
        """What happened to it, in words, once; ``""`` while it is well. Starts it again, a bounded number of times."""
        if self._process is None or self.failed:
            return ""
        if (code := self._process.poll()) is None:
            return self._backend_news()
        if code > 0 or self._starts >= LEARNER_STARTS_MAX:
            self.failed = True
            return f"the learner ended with exit code {code}"
        self._close_log()
        self.start()
        return f"the learner was ended by signal {-code}; started it again from its last checkpoint"

    def _backend_news(self) -> str:
        """What computes the updates, once this start's trainer has chosen it."""
        if not self._awaits_backend or not (backend := read_json(self._folder / TRAINER_STATUS_FILE).get("backend")):
            return ""
        self._awaits_backend = False
        return f"updates {backend}"

    def stop(self) -> None:
        """Ask it to write its last checkpoint and policy, and to end. Idempotent; bounded."""
        process = self._process
        if process is None:
            return
        for number, patience_s in ((signal.SIGTERM, LEARNER_PATIENCE_S), (signal.SIGKILL, 5.0)):
            if process.poll() is None:
                process.send_signal(number)
                try:
                    process.wait(patience_s)
                except subprocess.TimeoutExpired:
                    continue
        self._close_log()

    def has_policy(self) -> bool:
        """Whether it published one."""
        return BundleStore(self._folder / "policies").latest() is not None

    def error(self) -> RobotsacError:
        """Why it failed: what it said last, else where to look."""
        log = self._folder.parent / "learner.log"
        if (error := read_logged_error(log)) is not None:
            error.message = f"learner: {error.message}"
            return error
        return RobotsacError(
            "the learner could not go on",
            reason="it left no error of its own",
            command=f"cat {shlex.quote(str(log))}",
        )

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None


def learner_arguments(robot: str, files: list[Path], overrides: list[str], address: str) -> list[str]:
    """Of ``robotsac learn``, for the robot and the settings that ``train`` was given, at ``address``."""
    arguments = ["--json"]
    for file in (find_robot(robot), *map(find_config, files)):
        arguments += ["--config", str(file)]
    for override in (*overrides, f"link.address={address!r}"):
        arguments += ["--set", override]
    return arguments
