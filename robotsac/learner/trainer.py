"""The trainer process.

It ends in order, with a last checkpoint and bundle, on SIGTERM and when the supervisor is gone; until it has loaded, when
there is nothing to save, the latter ends it on the spot. SIGINT it ignores, since a terminal sends that to the whole group
and the supervisor decides. torch is imported after the signal handlers stand.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from robotsac.child_error import write_child_error
from robotsac.config.schema import LearnerSettings
from robotsac.contract import Contract
from robotsac.errors import RobotsacError
from robotsac.learner.board import LEARNER_FIELDS, TrainerState
from robotsac.learner.replay_log import FILE_NAME, ReplayLog
from robotsac.learner.run_folder import CHILD_LOCK_WAIT_S, TRAINER_ERROR_FILE, TRAINER_LOCK_FILE, locked
from robotsac.process import end_with_parent, starter
from robotsac.shared import SharedBlock
from robotsac.signals import obey_supervisor

POLL_S = 0.01
"""How long the trainer sleeps when there is nothing to do: a fresh record waits at most this long."""


@dataclass(frozen=True)
class TrainerArgs:
    """What the supervisor hands over."""

    settings: LearnerSettings
    run_dir: Path
    run_id: str
    board_name: str


def trainer_main(args: TrainerArgs) -> None:
    """Entry point of the process. Leaves ``trainer-error.json`` behind when it cannot go on.

    Raises:
        SystemExit: with the error's exit code, after an error that was raised on purpose.
    """
    parent, told = starter(), obey_supervisor()
    end_with_parent(signal.SIGKILL)

    def stop() -> bool:
        return told.count > 0 or os.getppid() != parent

    os.nice(args.settings.learn.nice)
    try:
        with locked(args.run_dir / TRAINER_LOCK_FILE, "trainer", CHILD_LOCK_WAIT_S):
            _train(args, stop)
    except RobotsacError as error:
        write_child_error(args.run_dir / TRAINER_ERROR_FILE, error)
        raise SystemExit(error.exit_code) from error


def _train(args: TrainerArgs, stop: Callable[[], bool]) -> None:
    # With torch, which takes seconds: they pass while the first robot is still being started.
    from robotsac.learner.device import prepare_torch

    prepare_torch(args.settings.learn.threads)
    board = SharedBlock.attach(args.board_name, LEARNER_FIELDS)
    try:
        board["beat_ns"] = time.monotonic_ns()
        with ReplayLog(args.run_dir / FILE_NAME, read_only=True) as log:
            contract = _wait_for_contract(log, board, stop)
            if contract is not None:
                _train_on(args, contract, log, board, stop)
    finally:
        board.close()


def _wait_for_contract(log: ReplayLog, board: SharedBlock, stop: Callable[[], bool]) -> Contract | None:
    """The contract of the first robot that came; ``None`` when stopped before."""
    while not stop():
        board["beat_ns"] = time.monotonic_ns()
        if (contract := log.contract()) is not None:
            if board["trainer_state"] == TrainerState.WAITING_FOR_ROBOT:
                board["trainer_state"] = TrainerState.STARTING
            return contract
        board["trainer_state"] = TrainerState.WAITING_FOR_ROBOT
        time.sleep(POLL_S)
    return None


def _train_on(
    args: TrainerArgs, contract: Contract, log: ReplayLog, board: SharedBlock, stop: Callable[[], bool]
) -> None:
    from robotsac.learner.training import Training

    training = Training(args.settings, args.run_dir, args.run_id, contract, log, board)
    try:
        if training.open(stop):
            end_with_parent(signal.SIGTERM)
            while not stop():
                if training.step():
                    time.sleep(POLL_S)
            training.finish()
    finally:
        training.close()
