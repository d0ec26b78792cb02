"""From logged batches to transitions and episodes, across the borders of batches.

Deterministic in the sequence of batches: a resumed trainer that feeds the same log arrives at the same state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robotsac.learner.n_step import n_step_transitions
from robotsac.learner.replay_log import LoggedBatch
from robotsac.records import EpisodeEnd, Flag, Records, Transitions, transitions

_FINAL, _DETERMINISTIC, _RANDOM = int(Flag.FINAL), int(Flag.DETERMINISTIC), int(Flag.RANDOM)
_ENDS = frozenset(EpisodeEnd)


@dataclass(frozen=True, slots=True)
class Episode:
    """One finished episode.

    Attributes:
        robot, boot, episode: which.
        end: how it ended.
        steps: control steps seen of it.
        return_: sum of rewards over them, undiscounted.
        deterministic: all its actions were evaluation actions (zero noise).
        random: at least one action came from no policy.
        policy_version: of its last action, 0 = none.
        complete: every record of it was seen.
        env_steps: control steps of the whole run up to its end, over all robots.
    """

    robot: str
    boot: str
    episode: int
    end: EpisodeEnd
    steps: int
    return_: float
    deterministic: bool
    random: bool
    policy_version: int
    complete: bool
    env_steps: int

    @property
    def success(self) -> bool:
        """The task was done."""
        return self.end is EpisodeEnd.SUCCESS

    @property
    def counts(self) -> bool:
        """Whether it says anything about the policy: seen whole, and not cut short by an operator."""
        return self.complete and self.end is not EpisodeEnd.OPERATOR


@dataclass(slots=True)
class _Running:
    """An episode under way on one boot."""

    episode: int
    complete: bool = True
    steps: int = 0
    return_: float = 0.0
    deterministic: bool = True
    random: bool = False
    policy_version: int = 0


class Assembler:
    """Keeps what the next records go on from: the last ones and the running episode of every (robot, boot).

    Args:
        n_step: control steps that a transition spans at most.
        discount: γ per control step; matters when ``n_step`` is above 1.
    """

    def __init__(self, n_step: int = 1, discount: float = 1.0) -> None:
        self.records = 0
        self.env_steps = 0
        self._n_step = n_step
        self._discount = discount
        self._last: dict[tuple[str, str], Records] = {}
        self._running: dict[tuple[str, str], _Running] = {}
        self._next_seq: dict[tuple[str, str], int] = {}

    def add(self, batch: LoggedBatch) -> tuple[Transitions, list[Episode]]:
        """The transitions and finished episodes that ``batch`` completes, in order."""
        key = (batch.robot, batch.boot)
        last = self._last.get(key)
        records = batch.records if last is None else _joined(last, batch.records)
        self.records += len(batch.records)
        made, self._last[key] = self._transitions(records)
        return made, self._episodes(key, batch.records)

    def _transitions(self, records: Records) -> tuple[Transitions, Records]:
        if self._n_step > 1:
            return n_step_transitions(records, self._n_step, self._discount)
        return transitions(records), records[-1:].copy()

    def _episodes(self, key: tuple[str, str], records: Records) -> list[Episode]:
        # Cut where the episode changes and behind each last record: a segment belongs to one episode.
        final, episode = (records["flags"] & _FINAL) != 0, records["episode"]
        cuts = (np.flatnonzero((episode[1:] != episode[:-1]) | final[:-1]) + 1).tolist()
        bounds = zip([0, *cuts], [*cuts, len(records)], strict=True)
        advanced = [self._advance(key, records[begin:end]) for begin, end in bounds if end > begin]
        return [episode for episode in advanced if episode is not None]

    def _advance(self, key: tuple[str, str], segment: Records) -> Episode | None:
        """Account for a run of records of one episode; the episode when it ends there."""
        running = self._continued(key, segment)
        ended = bool(segment["flags"][-1] & _FINAL)
        self._count_steps(running, segment[:-1] if ended else segment)
        if not ended:
            return None
        del self._running[key]
        return Episode(
            robot=key[0],
            boot=key[1],
            episode=running.episode,
            end=_end(int(segment["end"][-1])),
            steps=running.steps,
            return_=running.return_,
            deterministic=running.deterministic and running.steps > 0,
            random=running.random,
            policy_version=running.policy_version,
            complete=running.complete,
            env_steps=self.env_steps,
        )

    def _continued(self, key: tuple[str, str], segment: Records) -> _Running:
        """The running episode of ``key`` if ``segment`` goes on with it, else a new one."""
        number, first_seq, last_seq = int(segment["episode"][0]), int(segment["seq"][0]), int(segment["seq"][-1])
        running = self._running.get(key)
        if running is None or running.episode != number:
            running = _Running(episode=number)
            self._running[key] = running
        # Every boot counts from 0. A jump ahead of a segment may hide the start of its episode, a jump inside its steps.
        jumped = first_seq != self._next_seq.get(key, 0) or last_seq - first_seq != len(segment) - 1
        running.complete &= not jumped
        self._next_seq[key] = last_seq + 1
        return running

    def _count_steps(self, running: _Running, acting: Records) -> None:
        if len(acting) == 0:
            return
        flags = acting["flags"]
        running.steps += len(acting)
        running.return_ += float(acting["reward"].sum(dtype=np.float64))
        running.deterministic = running.deterministic and bool(((flags & _DETERMINISTIC) != 0).all())
        running.random = running.random or bool(((flags & _RANDOM) != 0).any())
        running.policy_version = int(acting["policy_version"][-1])
        self.env_steps += len(acting)


def _end(number: int) -> EpisodeEnd:
    """What a robot of another version may know and this one does not is a fault: the log must stay readable for ever."""
    return EpisodeEnd(number) if number in _ENDS else EpisodeEnd.FAULT


def _joined(last: Records, records: Records) -> Records:
    """Both, one after the other. By their bytes: numpy spends longer on the fields' names than on the records."""
    return np.frombuffer(last.tobytes() + records.tobytes(), records.dtype)
