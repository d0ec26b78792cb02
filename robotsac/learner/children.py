"""The supervisor's two processes: start, watch, restart, stop."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shlex
import signal
import time
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from robotsac.child_error import read_child_error
from robotsac.config.schema import LearnerSettings
from robotsac.disk import MB, free_bytes
from robotsac.errors import RobotsacError, StorageError
from robotsac.learner.board import LOADING
from robotsac.learner.run_folder import (
    INGEST_ERROR_FILE,
    INGEST_STATUS_FILE,
    TRAINER_ERROR_FILE,
    TRAINER_STATUS_FILE,
    run_argument,
)
from robotsac.learner.trainer import TrainerArgs, trainer_main
from robotsac.process import is_stopped
from robotsac.shared import SharedBlock
from robotsac.signals import signals_held
from robotsac.silence import Bound, Silence

INGEST_RESTARTS_MAX = 3
STOP_TIMEOUT_S = 30.0
"""A trainer needs a fraction of this for its last checkpoint, and up to ten seconds while it still imports torch on a busy
machine; after it, the process is killed."""
KILL_TIMEOUT_S = 5.0
"""A process that is killed is gone at once, unless it hangs in the kernel, in a driver or on a dead network disk."""
TRAINER_LOADING = Bound(60.0, 300.0)
"""Importing torch, waking a GPU up, exporting the first template and reading prior data take seconds each, on a loaded
machine minutes together."""
TRAINER_AT_WORK = Bound(15.0, 120.0)
"""It beats after every slice of updates and every checkpoint. A disk or a swapping machine may hold one of them up for tens of
seconds; ending a night's run for that would be worse than waiting."""
INGEST_SILENCE_MAX_S = 30.0
"""A round of ingest takes tens of milliseconds; silent for longer, it is killed and started anew."""
CRASHED = 1
"""What Python exits with after an exception; signals are below, the errors of a process of this package above."""


class Children:
    """Ingest and trainer of one run.

    Args:
        settings: of the learner.
        run_dir, run_id: of the run.
        board: of ``LEARNER_FIELDS``; both attach to it by name.
        now_s: monotonic time, s.

    Attributes:
        ingest_restarts: how often ingest was started anew.
        trainer_silent_s: how long the trainer has given no sign of life; 0 as long as that is nothing to tell.
    """

    def __init__(
        self,
        settings: LearnerSettings,
        run_dir: Path,
        run_id: str,
        board: SharedBlock,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._run_dir, self._run_id, self._board = settings, run_dir, run_id, board
        self._context = multiprocessing.get_context("spawn")
        self._ingest: SpawnProcess | None = None
        self._trainer: SpawnProcess | None = None
        self._now_s = now_s
        self._trainer_silence, self._ingest_silence = Silence(now_s()), Silence(now_s())
        self.ingest_restarts = 0
        self.trainer_silent_s = 0.0

    def start(self) -> None:
        """Start both."""
        for stale in (INGEST_ERROR_FILE, INGEST_STATUS_FILE, TRAINER_ERROR_FILE, TRAINER_STATUS_FILE):
            (self._run_dir / stale).unlink(missing_ok=True)
        self._start_ingest()
        trainer = TrainerArgs(self._settings, self._run_dir, self._run_id, self._board.name)
        self._trainer_silence = Silence(self._now_s())
        self._trainer = self._spawn("robotsac-trainer", trainer_main, trainer)

    def check(self) -> None:
        """See that both live; restart ingest after a crash or a hang, but not after an error that it ended with.

        Call it all the time: their signs of life are looked at here.

        Raises:
            RobotsacError: the trainer ended or hangs, or ingest ended for good.
        """
        self._check_trainer()
        self._check_ingest()

    def stop(self) -> None:
        """Ask both to end, wake up what was stopped, wait a bounded time, kill what is left. Idempotent."""
        alive = [child for child in (self._ingest, self._trainer) if child is not None and child.is_alive()]
        for child in alive:
            child.terminate()
            _wake(child)
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        for child in alive:
            child.join(max(0.0, deadline_s - time.monotonic()))
            if child.is_alive():
                _kill(child)

    def require_clean_end(self) -> None:
        """After :meth:`stop`: see that the trainer wrote its last checkpoint.

        Raises:
            RobotsacError: it could not, or had to be killed.
        """
        if self._trainer is None:
            return
        exit_code = self._trainer.exitcode
        if exit_code is None:
            raise self._hangs("trainer", "does not end, not even when killed")
        # Ended by SIGTERM itself: it had not come as far as its handler, so there was nothing to save.
        if exit_code not in (0, -signal.SIGTERM):
            raise self._failure("trainer", exit_code, TRAINER_ERROR_FILE)

    def _check_trainer(self) -> None:
        if self._trainer is not None and self._trainer.exitcode is not None:
            raise self._failure("trainer", self._trainer.exitcode, TRAINER_ERROR_FILE)
        silent_s = self._trainer_silence.look(self._board["beat_ns"], self._now_s())
        bound = TRAINER_LOADING if self._board["trainer_state"] in LOADING else TRAINER_AT_WORK
        self.trainer_silent_s = silent_s if silent_s > bound.told_s else 0.0
        if silent_s > bound.max_s:
            raise self._hangs("trainer", f"has given no sign of life for {silent_s:.0f} s")

    def _check_ingest(self) -> None:
        if self._ingest is None:
            return
        silent_s = self._ingest_silence.look(self._board["ingest_beat_ns"], self._now_s())
        hangs = self._ingest.exitcode is None and silent_s > INGEST_SILENCE_MAX_S
        if hangs and (not _kill(self._ingest) or self.ingest_restarts >= INGEST_RESTARTS_MAX):
            raise self._hangs("ingest", f"has given no sign of life for {silent_s:.0f} s")
        if self._ingest.exitcode is not None:
            # A full disk may not even have taken its words; the exit code says that it ended on purpose.
            if self._ingest.exitcode > CRASHED or self.ingest_restarts >= INGEST_RESTARTS_MAX:
                raise self._failure("ingest", self._ingest.exitcode, INGEST_ERROR_FILE)
            self.ingest_restarts += 1
            self._start_ingest()

    def _start_ingest(self) -> None:
        # Imported late: the link's libraries are the child's business.
        from robotsac.learner.ingest import IngestArgs, ingest_main

        args = IngestArgs(
            settings=self._settings, run_dir=self._run_dir, run_id=self._run_id, board_name=self._board.name
        )
        self._ingest_silence = Silence(self._now_s())
        self._ingest = self._spawn("robotsac-ingest", ingest_main, args)

    def _spawn(self, name: str, target: Callable[[Any], None], args: object) -> SpawnProcess:
        process = self._context.Process(target=target, args=(args,), name=name, daemon=True)
        with signals_held():
            process.start()
        return process

    def _failure(self, who: str, exit_code: int, error_file: str) -> RobotsacError:
        if (left := read_child_error(self._run_dir / error_file)) is not None:
            return left
        if exit_code == StorageError.exit_code:
            return StorageError(
                f"{who} could not write to {self._run_dir}",
                reason=f"{free_bytes(self._run_dir) / MB:.0f} MB are free there; with more, --resume goes on",
                command=shlex.join(("df", "-h", str(self._run_dir))),
            )
        how = f"was ended by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
        return RobotsacError(
            f"{who} {how}{self._restarts(who)}",
            reason="out of memory or killed by hand?"
            if exit_code == -signal.SIGKILL
            else "it left no error of its own",
            command=self._resume_command(),
        )

    def _hangs(self, who: str, how: str) -> RobotsacError:
        child = self._trainer if who == "trainer" else self._ingest
        reason = f"the device or the disk of {self._run_dir} hangs"
        if child is not None and child.pid is not None and is_stopped(child.pid):
            reason = f"process {child.pid} has been stopped by a signal"
        return RobotsacError(f"{who} {how}{self._restarts(who)}", reason=reason, command=self._resume_command())

    def _restarts(self, who: str) -> str:
        return f" after {self.ingest_restarts} restarts" if who == "ingest" and self.ingest_restarts else ""

    def _resume_command(self) -> str:
        return f"robotsac learn --run {run_argument(self._run_dir)} --resume"


def _wake(child: SpawnProcess) -> None:
    """One that was stopped (Ctrl-Z, SIGSTOP) hears of nothing else before."""
    if child.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGCONT)


def _kill(child: SpawnProcess) -> bool:
    """Kill and wait a bounded time; whether it is gone."""
    child.kill()
    child.join(KILL_TIMEOUT_S)
    return not child.is_alive()
