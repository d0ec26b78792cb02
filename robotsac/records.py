"""Step records: what one control step saw, asked for, got, and how late it was.

Record ``k`` of an episode holds the observation, the action taken in it and the reward that followed. ``end`` says how
the episode stood *when this observation was made*: ``RUNNING`` for all but the last record of an episode, which carries
the true final observation, no action, and the reason the episode ended. So an episode of T steps is T + 1 records, and a
transition is two consecutive records:

    record k                          record k+1
    obs  action_applied  reward  ──►  obs  end
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Records = NDArray[np.void]
"""A structured array of dtype :func:`record_dtype`."""


class EpisodeEnd(enum.IntEnum):
    """How an episode stands at an observation."""

    RUNNING = 0
    SUCCESS = 1
    FAILURE = 2
    TIME_LIMIT = 3
    OPERATOR = 4
    FAULT = 5  # the last: what is beyond is unknown, and no transition is made of either

    @property
    def terminated(self) -> bool:
        """gymnasium's flag: the task itself ended; the learner does not bootstrap."""
        return self in (EpisodeEnd.SUCCESS, EpisodeEnd.FAILURE)

    @property
    def truncated(self) -> bool:
        """gymnasium's flag: cut short from outside."""
        return self in (EpisodeEnd.TIME_LIMIT, EpisodeEnd.OPERATOR, EpisodeEnd.FAULT)


class Flag(enum.IntFlag):
    """What happened during a step. The limit flags say which limits changed the torque in at least one bus tick."""

    NONE = 0
    LIMIT_TORQUE = 1 << 0
    LIMIT_RATE = 1 << 1
    LIMIT_VELOCITY = 1 << 2
    LIMIT_POSITION = 1 << 3
    LIMIT_TEMPERATURE = 1 << 4
    LATE = 1 << 8  # at least one bus tick was skipped
    STALE = 1 << 9  # at least one bus round failed or a joint was not fresh
    # Fixed in the format for a guard in a process of its own and for human commands; nothing sets them yet.
    HELD = 1 << 10
    INTERVENTION = 1 << 11
    RANDOM = 1 << 16  # no policy yet: smooth random action
    DETERMINISTIC = 1 << 17  # evaluation: zero noise
    FINAL = 1 << 18  # last record of an episode: no action follows


# As plain numbers: what arrays are compared with again and again, and an enum's member costs more than a short array.
_FINAL, _SUCCESS, _FAILURE = int(Flag.FINAL), int(EpisodeEnd.SUCCESS), int(EpisodeEnd.FAILURE)
_RUNNING, _FAULT = int(EpisodeEnd.RUNNING), int(EpisodeEnd.FAULT)


def ends_episode(records: Records) -> NDArray[np.bool_]:
    """Whether the episode is known to have ended at each record."""
    ends: NDArray[np.bool_] = (records["end"] != _RUNNING) | ((records["flags"] & _FINAL) != 0)
    return ends


def record_dtype(obs_dim: int, act_dim: int) -> np.dtype[np.void]:
    """Layout of one record: little-endian, packed, fixed by the two dimensions.

    Fields: ``seq`` contiguous per boot · ``episode`` per boot · ``t_ns`` arm clock · ``obs`` · ``action_asked`` by the
    policy and ``action_applied`` after limits and quantisation, both in [-1, 1] units · ``reward`` · ``end``
    (:class:`EpisodeEnd`) · ``flags`` (:class:`Flag`) · ``policy_version`` (0 = none) · ``latency_us`` state to action.
    """
    return np.dtype(
        [
            ("seq", "<u8"),
            ("t_ns", "<i8"),
            ("episode", "<u4"),
            ("flags", "<u4"),
            ("policy_version", "<u4"),
            ("latency_us", "<u4"),
            ("end", "<u4"),
            ("reward", "<f4"),
            ("obs", "<f4", (obs_dim,)),
            ("action_asked", "<f4", (act_dim,)),
            ("action_applied", "<f4", (act_dim,)),
        ]
    )


@dataclass(frozen=True, slots=True)
class Transitions:
    """A batch of transitions as the learner uses them.

    Attributes:
        obs, next_obs: (b, obs_dim) float32.
        action: (b, act_dim) float32, the *applied* action.
        reward: (b,) float32.
        terminal: (b,) float32, 1 where the next state must not be bootstrapped from.
        steps: (b,) float32, how many control steps lie between obs and next_obs; ``None`` = one. The reward is theirs.
        after: (b, obs_dim) float32, what was observed one control step after obs; ``None`` = that is next_obs.
    """

    obs: NDArray[np.float32]
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    next_obs: NDArray[np.float32]
    terminal: NDArray[np.float32]
    steps: NDArray[np.float32] | None = None
    after: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.reward)


def transitions(records: Records) -> Transitions:
    """Pair consecutive records of one boot, in order of ``seq``; which of them pair: :func:`paired`."""
    pairs = paired(records)
    head, tail = records[:-1][pairs], records[1:][pairs]
    return Transitions(
        obs=np.ascontiguousarray(head["obs"]),
        action=np.ascontiguousarray(head["action_applied"]),
        reward=np.ascontiguousarray(head["reward"]),
        next_obs=np.ascontiguousarray(tail["obs"]),
        terminal=terminal(tail),
    )


def paired(records: Records) -> NDArray[np.bool_]:
    """Of records of one boot in order of ``seq``, whether each makes a transition with the next one; one shorter.

    No pair crosses an episode or a gap in ``seq``; the last pair of an episode that ended in a FAULT is dropped, since
    its next state is no evidence of what the action does, and so is one that ended in a way this software does not know;
    a pair with a non-finite number in it is dropped.
    """
    seq, episode = records["seq"], records["episode"]
    seen = np.isfinite(records["obs"]).all(axis=1)
    acted = (
        seen
        & ((records["flags"] & _FINAL) == 0)
        & np.isfinite(records["reward"])
        & np.isfinite(records["action_applied"]).all(axis=1)
    )
    led_to = seen & (records["end"] < _FAULT)
    pairs: NDArray[np.bool_] = acted[:-1] & led_to[1:] & (seq[1:] == seq[:-1] + 1) & (episode[1:] == episode[:-1])
    return pairs


def terminal(records: Records) -> NDArray[np.float32]:
    """1 where the task itself ended the episode at a record, else 0."""
    end = records["end"]
    over: NDArray[np.bool_] = (end == _SUCCESS) | (end == _FAILURE)
    return over.astype(np.float32)
