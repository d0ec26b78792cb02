"""Rate limiter, both ways: the trainer waits for data, the robots wait for the trainer.

Counted over the whole run: R records read, T ≤ R transitions made from them (the last record of an episode starts none),
U updates done. Settings: u updates per transition, S transitions before the first update, K slack.

    trainer may update while      U < B(T) = ⌊u · max(0, T − S)⌋
    robots may have durable       R ≤ C    = (R − T) + S + ⌊U / u⌋ + K',   K' = ⌈1/u⌉ + batch + robots (+ K once U > 0)

The first line keeps the trainer from overfitting what it has; the second bounds the backlog: R ≤ C says
T − S − ⌊U/u⌋ ≤ K', at most K' transitions that the trainer has not done its updates for. C is in records because records
are what ``ingest`` counts; the overhead R − T of episode ends is added as it is seen. Before the first update the slack
is not given: a robot faster than the trainer's start would spend it on random actions.

Never do both wait. The trainer waits when U = B(T). Below S that is U = 0 and T ≤ S, so C ≥ R + K'. From S on,
U > u(T − S) − 1, so ⌊U/u⌋ > T − S − 1/u − 1, and C > R + K' − 1/u − 1 ≥ R + batch + robots − 1: a whole batch is still
welcome, and when ``ingest`` divides C − R among the robots, none is left with 0. C never falls, since none of R − T and U
does.

With n-step returns T counts finished windows: up to n − 1 steps of every episode under way wait in R − T, and R − T falls
again when they are finished. Nothing above depends on that but the last sentence: whoever publishes C publishes the
highest so far, and the backlog is bounded by K' and those waiting steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from robotsac.config.schema import LearnerSettings


@dataclass(frozen=True, slots=True)
class Limiter:
    """The two limits.

    Args:
        updates_per_step: u > 0.
        start_steps: S ≥ 0.
        slack_steps: K ≥ 0.
        room_records: batch + robots ≥ 1; always welcome when the trainer waits.
    """

    updates_per_step: float
    start_steps: int
    slack_steps: int
    room_records: int

    @classmethod
    def of(cls, settings: LearnerSettings) -> Limiter:
        """The limiter of these settings."""
        learn = settings.learn
        room = settings.link.batch_records + settings.link.robots_max
        return cls(learn.updates_per_step, learn.start_steps, learn.slack_steps, room)

    def updates_allowed(self, transitions: int, updates: int) -> int:
        """How many more updates may be done now; 0 = wait for data."""
        budget = math.floor(self.updates_per_step * max(0, transitions - self.start_steps))
        return max(0, budget - updates)

    def credit_total(self, records: int, transitions: int, updates: int) -> int:
        """C: how many records, counted from the start of the run, the robots may have made durable."""
        trained = math.floor(updates / self.updates_per_step)
        slack = math.ceil(1.0 / self.updates_per_step) + self.room_records + (self.slack_steps if updates else 0)
        return (records - transitions) + self.start_steps + trained + slack
