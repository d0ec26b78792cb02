"""The integers that actor and supervisor share (:class:`robotsac.shared.SharedBlock`)."""

from __future__ import annotations

import enum

ACTOR_FIELDS = (
    "phase",
    "steps",
    "episodes",
    "recent_successes",
    "recent_episodes",
    "overruns",
    "lost_rounds",
    "faults",
    "policy_version",
    "policy_rejected",
    "policy_since_ns",
    "rate_millihz",
    "latency_us",
    "energized",
    "torque_off",
    "moving_since_ns",
    "beat_ns",
    "reward_milli",
    "stop",
)
"""Written by the actor, except ``stop`` (:class:`Stop`), which the supervisor writes. ``recent_*`` are over the last
episodes of a window; ``energized`` is 1 from when torque is switched on, and stays; ``torque_off`` is 1 once every joint
was read back with torque off; ``beat_ns`` is the monotonic time of its last sign of life, written at every control tick."""


class Phase(enum.IntEnum):
    """What the actor is doing."""

    STARTING = 0
    CONNECTING = 1
    WAITING_FOR_LEARNER = 2  # and before that for the spool, which is all that an offline run waits for
    ENERGIZING = 3
    HOMING = 4  # on its way to where the next episode starts
    MOVING = 5  # an episode runs
    HOLDING = 6  # in place, between episodes: ``CollectStatus.waits_for`` says why
    PARKING = 7
    STOPPING = 8
    ENDED = 9


class Stop(enum.IntEnum):
    """How the supervisor wants the actor to end."""

    NO = 0
    PARK = 1  # finish the step, park the arm, torque off
    NOW = 2  # damp where it is, torque off
