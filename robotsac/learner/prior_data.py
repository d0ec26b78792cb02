"""Prior data: transitions of earlier runs, of which every minibatch takes its share (Ball et al. 2023, RLPD, section 4.1).

An earlier run is its replay log, and is only read. Robot, task and rate must be this run's own, to the last parameter: a
transition means what the contract says. The logs are read once, when learning starts; what is written to them later is
not taken, and a resumed run reads each up to where it was read the first time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from robotsac.config.learn import LearnConfig
from robotsac.contract import Contract
from robotsac.errors import ANOTHER_RUN, CheckpointError, ConfigError
from robotsac.learner.assembler import Assembler
from robotsac.learner.replay_log import FILE_NAME, LoggedBatch, ReplayLog
from robotsac.records import Transitions

READ_ROWS = 256
WITHOUT = "--set learn.prior_data=[]"
"""The option that does without."""


def require_no_prior_data(learn: LearnConfig) -> None:
    """Refuse prior data where learning reads none. Raises ConfigError."""
    if learn.prior_data:
        raise ConfigError(
            "learn.prior_data is not possible with --sync", reason="it learns from what it does itself", command=WITHOUT
        )


def find_log(path: Path) -> Path:
    """The replay log that a path of ``learn.prior_data`` means: the file itself, or the one in a run folder.

    Raises:
        ConfigError: there is none.
    """
    for file in (path, path / FILE_NAME, path / "learner" / FILE_NAME):
        if file.is_file():
            return file
    raise ConfigError(
        f"learn.prior_data: there is no replay log at {path}",
        reason=f"neither a log nor a run folder with a {FILE_NAME} in it",
        command="find . -name replay.db",
    )


class PriorLogs:
    """The logs that ``learn.prior_data`` names.

    Args:
        paths: run folders or replay logs, in the order in which they are read.
        contract: of this run; ``None`` = not known yet, any will do.

    Raises:
        ConfigError: a log is missing, empty, or of another contract.
        StorageError: a file cannot be read, or is no replay log.
    """

    def __init__(self, paths: Sequence[str], contract: Contract | None = None) -> None:
        self.files = [find_log(Path(path)) for path in paths]
        self.records = sum(_require_fitting(file, contract) for file in self.files)

    def transitions(
        self, assembler: Callable[[], Assembler], rows: Sequence[int] | None = None
    ) -> Iterator[tuple[int, int, Transitions]]:
        """Which log, its row, and the transitions that the rows up to it complete; log by log, oldest first.

        Args:
            assembler: makes a fresh one for each log: two runs may call their boots the same.
            rows: the last row to be read of each; ``None`` = all there are.

        Raises:
            CheckpointError: a log ends before the row that is asked for.
            StorageError: a log cannot be read.
        """
        for number, file in enumerate(self.files):
            until = None if rows is None else rows[number]
            with ReplayLog(file, read_only=True) as log:
                pairs, row = assembler(), 0
                while batches := [b for b in log.read_after(row, READ_ROWS) if until is None or b.row <= until]:
                    for batch in _merged(batches):
                        yield number, batch.row, pairs.add(batch)[0]
                    row = batches[-1].row
            if until is not None and row != until:
                raise CheckpointError(
                    f"prior data {file} ends at row {row}, the checkpoint was made with {until}",
                    reason="it is not the log that this run was trained with",
                    command=ANOTHER_RUN,
                )


def _merged(batches: Sequence[LoggedBatch]) -> Iterator[LoggedBatch]:
    """The same records in the same order, neighbours of one boot as one batch: pairing costs per call, not per record."""
    for (robot, boot), run in itertools.groupby(batches, key=lambda batch: (batch.robot, batch.boot)):
        same = list(run)
        yield LoggedBatch(same[-1].row, robot, boot, np.concatenate([batch.records for batch in same]))


def _require_fitting(file: Path, contract: Contract | None) -> int:
    """How many records a log holds. Raises what :class:`PriorLogs` does."""
    with ReplayLog(file, read_only=True) as log:
        theirs, records = log.contract(), log.counts()["records"]
    if theirs is None or not records:
        raise ConfigError(
            f"learn.prior_data: {file} holds no records", reason="no robot has joined it", command=WITHOUT
        )
    if contract is not None and (difference := contract.difference(theirs)):
        raise ConfigError(
            f"learn.prior_data: {file} is of another robot or task",
            reason=f"this run against prior data: {difference}",
            command=WITHOUT,
        )
    return records
