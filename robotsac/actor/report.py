"""What a run of ``collect`` amounted to."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass

from robotsac.actor.status import CollectStatus
from robotsac.errors import RobotsacError


class Ended(enum.Enum):
    """Why a run ended."""

    STEPS = "steps"  # as many as were asked for
    SUCCESS = "success"  # the rate that was asked for
    SIGNAL = "signal"  # somebody said so
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What a run of ``collect`` amounted to.

    ``seconds`` is the whole run, ``moving_seconds`` from the first movement until the last before parking, both on the
    host's clock; ``ended`` says why it ended, ``interrupted`` that a signal came, be it after that; ``energized`` that torque
    was ever switched on, ``torque_off`` that it was read back as off in the end; ``unsent`` how many records wait in the
    spool for a learner, ``refused`` how many of them this one does not take, since they are of another model or task.
    """

    status: CollectStatus
    seconds: float
    moving_seconds: float
    ended: Ended
    interrupted: bool
    energized: bool
    torque_off: bool
    unsent: int
    refused: int
    error: RobotsacError | None


def report_json(report: CollectReport) -> str:
    """The report as one JSON line; ``error`` as in every command: message, reason, command, exit_code, or null."""
    body = {
        **report.status.to_dict(),
        "seconds": round(report.seconds, 3),
        "moving_seconds": round(report.moving_seconds, 3),
        "ended": report.ended.value,
        "interrupted": report.interrupted,
        "energized": report.energized,
        "torque_off": report.torque_off,
        "unsent": report.unsent,
        "unsent_refused": report.refused,
        "error": report.error.to_dict() if report.error is not None else None,
    }
    return json.dumps(body)
