"""The replay ring: transitions in one preallocated tensor on the learner's device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robotsac.config.learn import LearnConfig
from robotsac.records import Transitions


@dataclass(frozen=True, slots=True)
class Batch:
    """A minibatch on the device: obs, next_obs (b, obs_dim); action (b, act_dim); reward, terminal (b,). float32.

    ``steps`` (b,): how many control steps lie between obs and next_obs; ``None`` = one. The reward is theirs, discounted.
    ``after`` (b, obs_dim): the observation one step after obs; ``None`` where nobody asked for it, or it is next_obs.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminal: Tensor
    steps: Tensor | None = None
    after: Tensor | None = None

    def __len__(self) -> int:
        return self.reward.shape[0]

    def joined(self, other: Batch) -> Batch:
        """The rows of both, these first; both of rings that keep the same."""
        return Batch(
            torch.cat((self.obs, other.obs)),
            torch.cat((self.action, other.action)),
            torch.cat((self.reward, other.reward)),
            torch.cat((self.next_obs, other.next_obs)),
            torch.cat((self.terminal, other.terminal)),
            None if self.steps is None or other.steps is None else torch.cat((self.steps, other.steps)),
            None if self.after is None or other.after is None else torch.cat((self.after, other.after)),
        )


class Replay:
    """The newest ``capacity`` transitions, sampled uniformly with replacement.

    One row holds a whole transition, so that a minibatch is one gather. The ring's content and cursor depend only on
    the sequence of transitions appended, never on how it was cut into calls: a resumed run rebuilds it from the log.

    Args:
        capacity: transitions kept.
        obs_dim, act_dim: lengths of observation and action.
        device: where the rows lie.
        generator: draws the samples; on ``device``, this ring's own.
        with_steps: keep the transitions' ``steps`` too; without, all are of one step.
        with_after: keep their ``after`` too.
    """

    def __init__(
        self,
        capacity: int,
        obs_dim: int,
        act_dim: int,
        device: torch.device,
        generator: torch.Generator,
        *,
        with_steps: bool = False,
        with_after: bool = False,
    ) -> None:
        self.capacity = capacity
        self.total = 0
        self._with_steps, self._with_after = with_steps, with_after
        self._widths = [obs_dim, act_dim, 1, obs_dim, 1] + [1] * with_steps + [obs_dim] * with_after
        # Not zeroed: rows beyond the fill are never read, and untouched pages cost no memory.
        self._rows = torch.empty(capacity, sum(self._widths), device=device)
        self._generator = generator

    @classmethod
    def of(cls, learn: LearnConfig, capacity: int, obs_dim: int, act_dim: int, generator: torch.Generator) -> Replay:
        """A ring of what ``learn`` needs to be kept, on the generator's device."""
        several = learn.n_step > 1
        with_after = several and learn.smooth_time > 0
        return cls(capacity, obs_dim, act_dim, generator.device, generator, with_steps=several, with_after=with_after)

    def __len__(self) -> int:
        return min(self.total, self.capacity)

    def append(self, transitions: Transitions) -> None:
        """Add transitions in order; the oldest make room. Values are copied.

        Raises:
            ValueError: widths do not fit this ring.
        """
        columns = [
            transitions.obs,
            transitions.action,
            transitions.reward[:, None],
            transitions.next_obs,
            transitions.terminal[:, None],
        ]
        if transitions.steps is not None:
            columns.append(transitions.steps[:, None])
        if self._with_after and transitions.after is not None:
            columns.append(transitions.after)
        if [column.shape[1] for column in columns] != self._widths:
            raise ValueError(f"transitions of widths {[c.shape[1] for c in columns]} in a ring of {self._widths}")
        rows = np.concatenate(columns, axis=1, dtype=np.float32)[-self.capacity :]
        start = (self.total + len(transitions) - len(rows)) % self.capacity
        before_wrap = min(len(rows), self.capacity - start)
        fresh = torch.from_numpy(rows)
        self._rows[start : start + before_wrap].copy_(fresh[:before_wrap])
        self._rows[: len(rows) - before_wrap].copy_(fresh[before_wrap:])
        self.total += len(transitions)

    def sample(self, batch_size: int) -> Batch:
        """A minibatch of ``batch_size`` transitions, as views into one fresh tensor.

        Raises:
            ValueError: the ring is empty.
        """
        if self.total == 0:
            raise ValueError("cannot sample from an empty replay")
        device = self._rows.device
        where = torch.randint(len(self), (batch_size,), generator=self._generator, device=device)
        obs, action, reward, next_obs, terminal, *more = torch.split(
            self._rows.index_select(0, where), self._widths, dim=1
        )
        steps = more[0].squeeze(1) if self._with_steps else None
        after = more[-1] if self._with_after else None
        return Batch(obs, action, reward.squeeze(1), next_obs, terminal.squeeze(1), steps, after)

    @property
    def oldest(self) -> int:
        """Number of the oldest transition still there; they are numbered from 0 on as they were appended."""
        return max(0, self.total - self.capacity)

    def rows(self, first: int, end: int) -> Tensor:
        """Transitions number ``first`` to ``end`` - 1, (end - first, width), on the CPU: for :meth:`refill`.

        Raises:
            ValueError: not all of them are there.
        """
        if not self.oldest <= first <= end <= self.total:
            raise ValueError(f"transitions {first} to {end} of {self.oldest} to {self.total}")
        start, before_wrap = first % self.capacity, self.capacity - first % self.capacity
        count = end - first
        parts = self._rows[start : start + min(count, before_wrap)], self._rows[: max(0, count - before_wrap)]
        return torch.cat(parts).cpu()

    def refill(self, total: int, parts: Iterable[tuple[int, Tensor]]) -> None:
        """Put back what :meth:`rows` gave, into a ring of the same capacity.

        Args:
            total: transitions that had been appended.
            parts: each the number of its first transition, and rows (n, width); what is no longer kept is left out.

        Raises:
            ValueError: a transition is missing, comes twice, or has another width.
        """
        self.total = total
        at = self.oldest
        for first, rows in parts:
            rows = rows[max(0, at - first) :]
            if max(first, at) != at or rows.shape[1] != self._rows.shape[1] or at + len(rows) > total:
                raise ValueError(f"{len(rows)} rows of width {rows.shape[1]} from {first} on, where {at} is next")
            where = torch.arange(at, at + len(rows)) % self.capacity
            self._rows[where.to(self._rows.device)] = rows.to(self._rows.device)
            at += len(rows)
        if at != total:
            raise ValueError(f"transitions {at} to {total} are missing")
