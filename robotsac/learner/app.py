"""The ``learn`` supervisor: makes the run folder, starts ingest and trainer, watches them, reports.

Both are processes of their own, so that a slow update delays no acknowledgement. ``ingest`` is restarted when it
crashes, since all it knows is on disk; a trainer that ends is an error, since it would end again. torch is never
imported here.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from robotsac.config.schema import LearnerSettings
from robotsac.disk import require_free
from robotsac.errors import RobotsacError, StorageError
from robotsac.learner.board import LEARNER_FIELDS, TrainerState
from robotsac.learner.children import Children
from robotsac.learner.curve import plot_learning_curve
from robotsac.learner.limiter import Limiter
from robotsac.learner.replay_log import FILE_NAME, ReplayLog
from robotsac.learner.run_folder import (
    INGEST_LOCK_FILE,
    INGEST_STATUS_FILE,
    LOCK_FILE,
    POLICIES,
    TRAINER_LOCK_FILE,
    TRAINER_STATUS_FILE,
    RunInfo,
    last_counters,
    locked,
    open_run,
    read_json,
    require_new,
    require_run,
    run_name,
)
from robotsac.link.sockets import require_free_address
from robotsac.policy.store import BundleStore
from robotsac.shared import SharedBlock
from robotsac.signals import stop_signals_call

TICK_S = 0.1
STATUS_EVERY_S = 0.5
FREE_MIN_MB = 64.0
"""What a robot's ``spool.free_min_mb`` is: about an hour of one robot's records, checkpoints and policies besides."""

LOCK_WAIT_S = 20.0
"""Processes whose supervisor was killed write what they have first, on a loaded machine in seconds: the trainer its last policy
and checkpoint, ingest what it received."""

OnStatus = Callable[[dict[str, Any]], None]


class Told(NamedTuple):
    """Who is told: of how things stand, again and again, and of what happened, in words."""

    status: OnStatus
    event: Callable[[str], None]


def run_learn(
    settings: LearnerSettings,
    run_dir: Path,
    *,
    resume: bool,
    as_json: bool = False,
    on_status: OnStatus = lambda _: None,
    on_event: Callable[[str], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> int:
    """Learn until told to stop.

    Args:
        settings: resolved.
        run_dir: the run's folder.
        resume: go on with the run that is there; without it there must be none.
        as_json: a script is reading: an error becomes a last status ``{"error": {...}}`` and the exit code.
        on_status: called about twice a second, and once at the end (see :func:`status`).
        on_event: called with what happened, in words: a trainer that is silent, an earlier learner that is waited for.
        stop: ends learning when set, as SIGINT and SIGTERM do.

    Returns:
        Exit code; 0 after an orderly stop.

    Raises:
        RobotsacError: what went wrong, here or in a child; not with ``as_json``.
    """
    try:
        _learn(settings, run_dir, resume, Told(on_status, on_event), stop or threading.Event())
    except RobotsacError as error:
        if not as_json:
            raise
        on_status({"error": error.to_dict()})
        return error.exit_code
    return 0


def _learn(settings: LearnerSettings, run_dir: Path, resume: bool, told: Told, stop: threading.Event) -> None:
    if resume:
        require_run(run_dir)
    else:
        require_new(run_dir)
        require_free_address(settings.link)
    require_free(run_dir, FREE_MIN_MB, "learning does not begin on a disk that it would soon find full")
    with locked(run_dir / LOCK_FILE, "learner", LOCK_WAIT_S if resume else 0.0, told.event):
        if resume:
            for lock, what in ((TRAINER_LOCK_FILE, "trainer"), (INGEST_LOCK_FILE, "ingest")):
                with locked(run_dir / lock, what, LOCK_WAIT_S, told.event):
                    pass  # the last one has let go
            require_free_address(settings.link)
        info = open_run(settings, run_dir, resume=resume)
        board = SharedBlock.create(LEARNER_FIELDS)
        try:
            _set_up(board, settings, run_dir, resume)
            children = Children(settings, run_dir, info.run_id, board)
            with stop_signals_call(lambda _: stop.set()):
                _watch(children, run_dir, info, board, told, stop)
        finally:
            board.close()
            board.unlink()
        with contextlib.suppress(StorageError, ImportError, OSError):
            plot_learning_curve(run_dir)


def _set_up(board: SharedBlock, settings: LearnerSettings, run_dir: Path, resume: bool) -> None:
    """What robots and operator are told until the trainer has loaded."""
    with ReplayLog(run_dir / FILE_NAME) as log:  # made here, so that the children find it whichever is first
        durable = log.counts()["records"]
    # Robots may start while the trainer still imports torch. On resume they wait until it has read the log.
    board["credit_total"] = max(durable, Limiter.of(settings).credit_total(0, 0, 0))
    if resume:
        last, policy = last_counters(run_dir), BundleStore(run_dir / POLICIES).latest()
        board["updates"], board["transitions"], board["records"] = last.updates, last.transitions, durable
        board["policy_version"] = policy.version if policy is not None else 0
        board["trainer_state"] = TrainerState.RESUMING


def _watch(
    children: Children, run_dir: Path, info: RunInfo, board: SharedBlock, told: Told, stop: threading.Event
) -> None:
    started_s = time.monotonic()
    due_s = started_s
    silence_told = False
    try:
        children.start()
        while not stop.wait(TICK_S):
            children.check()
            if bool(children.trainer_silent_s) != silence_told:
                silence_told = not silence_told
                seconds = f"{children.trainer_silent_s:.0f}"
                told.event(f"trainer silent for {seconds} s" if silence_told else "the trainer goes on")
            if (now_s := time.monotonic()) >= due_s:
                due_s = now_s + STATUS_EVERY_S
                told.status(status(run_dir, info, board, children, now_s - started_s))
    finally:
        children.stop()
        told.status(status(run_dir, info, board, children, time.monotonic() - started_s))
    children.require_clean_end()


def status(run_dir: Path, info: RunInfo, board: SharedBlock, children: Children, elapsed_s: float) -> dict[str, Any]:
    """What is going on, in plain values.

    While the state is ``resuming``, ``updates`` and ``transitions`` are the checkpoint's, ``records`` those in the log.
    ``run``, ``run_id``, ``elapsed_s``, ``state`` (of the trainer, in words), ``updates``, ``updates_per_s``, ``env_steps``,
    ``env_steps_per_s``, ``robot_time_s``, ``records``, ``transitions``, ``replay_size``, ``policy_version``, ``episodes``,
    ``success_rate`` (0…1) and ``return`` of the last episodes, ``robots`` (a list, each with ``robot`` and ``state``), ``ingest_restarts``,
    ``trainer_silent_s`` (0 as long as that is nothing to tell), and the two processes' own reports under ``trainer`` and ``ingest``.
    """
    trainer, ingest = read_json(run_dir / TRAINER_STATUS_FILE), read_json(run_dir / INGEST_STATUS_FILE)
    return {
        "run": run_name(run_dir),
        "run_id": info.run_id,
        "elapsed_s": round(elapsed_s, 1),
        "state": TrainerState(board["trainer_state"]).name.lower().replace("_", " "),
        "updates": board["updates"],
        "updates_per_s": trainer.get("updates_per_s", 0.0),
        "env_steps": trainer.get("env_steps", 0),
        "env_steps_per_s": trainer.get("env_steps_per_s", 0.0),
        "robot_time_s": trainer.get("robot_time_s", 0.0),
        "records": board["records"],
        "transitions": board["transitions"],
        "replay_size": trainer.get("replay_size", 0),
        "credit_total": board["credit_total"],
        "policy_version": board["policy_version"],
        "episodes": board["episodes"],
        "success_rate": board["successes_permille"] / 1000,
        "return": trainer.get("return", 0.0),
        "robots": [{"robot": name, **robot} for name, robot in ingest.get("robots", {}).items()],
        "ingest_restarts": children.ingest_restarts,
        "trainer_silent_s": round(children.trainer_silent_s, 1),
        "trainer": trainer,
        "ingest": ingest,
    }
