"""The integers that trainer, ingest and supervisor share (:class:`robotsac.shared.SharedBlock`)."""

from __future__ import annotations

import enum

LEARNER_FIELDS = (
    "updates",
    "transitions",
    "credit_total",
    "policy_version",
    "beat_ns",
    "ingest_beat_ns",
    "records",
    "episodes",
    "successes_permille",
    "trainer_state",
)
"""Written by the trainer, but for one, once it has loaded; until then they hold what the supervisor found in the run
folder. ``credit_total``: records the learner is
willing to have durable (see ``limiter``); ``beat_ns``: monotonic time of the trainer's last sign of life; ``records``:
those it has read from the log; ``successes_permille``: over the last episodes; ``trainer_state``: :class:`TrainerState`.

Written by ingest: ``ingest_beat_ns``, monotonic time of its last round."""


class TrainerState(enum.IntEnum):
    """What the trainer is doing."""

    STARTING = 0
    WAITING_FOR_ROBOT = 1
    FILLING_REPLAY = 2
    TRAINING = 3
    WAITING_FOR_DATA = 4
    STOPPING = 5
    RESUMING = 6


LOADING = (TrainerState.STARTING, TrainerState.RESUMING)
"""Imports, the first template, a replay that is read again: long work, and counters that do not count yet."""
