"""The replay ring: transitions in preallocated tensors on the learner's device, their observations stored once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robotsac.config.learn import LearnConfig
from robotsac.learner.device_rows import empty_rows
from robotsac.learner.obs_ring import ObsRing
from robotsac.records import Transitions


@dataclass(frozen=True, slots=True)
class Batch:
    """A minibatch on the device: obs, next_obs (b, obs_dim); action (b, act_dim); reward, terminal (b,). float32. Or several
    of the same length, one after another.

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

    def parts(self, rows: int) -> list[Batch]:
        """Views of ``rows`` rows each, in order."""
        columns = (self.obs, self.action, self.reward, self.next_obs, self.terminal, self.steps, self.after)
        return [Batch(*cut) for cut in zip(*(_split(column, rows, len(self)) for column in columns), strict=True)]

    def joined(self, other: Batch, count: int = 1) -> Batch:
        """Of each of ``count`` minibatches in both the rows of both, these first; both of rings that keep the same."""

        def both(mine: Tensor, others: Tensor) -> Tensor:
            parts = (each.reshape(count, -1, *each.shape[1:]) for each in (mine, others))
            return torch.cat(tuple(parts), dim=1).flatten(0, 1)

        return Batch(
            both(self.obs, other.obs),
            both(self.action, other.action),
            both(self.reward, other.reward),
            both(self.next_obs, other.next_obs),
            both(self.terminal, other.terminal),
            None if self.steps is None or other.steps is None else both(self.steps, other.steps),
            None if self.after is None or other.after is None else both(self.after, other.after),
        )


class Replay:
    """The newest ``capacity`` transitions, sampled uniformly with replacement.

    One row holds a transition's numbers and references to its observations, which lie in a ring of their own, each once
    (:class:`~robotsac.learner.obs_ring.ObsRing`): a minibatch is two gathers. With the defaults on arm0, observations of
    34 numbers and actions of 6, a million transitions take 193 MB: 48 bytes each, and 1.07 observations of 136 bytes. That
    is enough for episodes of 20 steps or more in the mean. For shorter ones the observations' ring grows, up to 458 MB
    where nothing is shared, and twice its own share of that while it does.

    Content, cursor and samples depend only on the sequence of transitions appended, never on how it was cut into calls: a
    resumed run rebuilds them from the log. Where observations lie may differ, and nobody sees it.

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
        self._act_dim, self._references = act_dim, 3 if with_after else 2
        self._obs = ObsRing(capacity, obs_dim, self._references, device)
        # Bits of float32, then references. As integers: no copy takes one of them for a number that is none.
        self._rows = empty_rows(capacity, act_dim + 2 + with_steps + self._references, torch.int32, device)
        self._generator = generator

    @classmethod
    def of(cls, learn: LearnConfig, capacity: int, obs_dim: int, act_dim: int, generator: torch.Generator) -> Replay:
        """A ring of what ``learn`` needs to be kept, on the generator's device."""
        several = learn.n_step > 1
        with_after = several and learn.smooth_time > 0
        return cls(capacity, obs_dim, act_dim, generator.device, generator, with_steps=several, with_after=with_after)

    def __len__(self) -> int:
        return min(self.total, self.capacity)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that it keeps on the device; of these, on the CPU, only what has been written to takes memory."""
        return self._rows.tensor, self._obs.tensor

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
        self._append(columns)

    def _append(self, columns: Sequence[NDArray[np.float32]]) -> None:
        """Columns as of ``_widths``, of as many transitions as there are."""
        if (skipped := len(columns[0]) - self.capacity) > 0:
            self._obs.clear()
            self.total += skipped
            columns = [column[skipped:] for column in columns]
        obs, action, reward, next_obs, terminal, *more = columns
        observations = [obs, next_obs, *more[self._with_steps :]]
        numbers = [action, reward, terminal, *more[: self._with_steps]]
        rows = np.empty((len(reward), self._rows.tensor.shape[1]), dtype=np.int32)
        np.concatenate(numbers, axis=1, out=rows.view(np.float32)[:, : -self._references])
        at = 0
        while at < len(rows):
            slot = self.total % self.capacity
            if slot % self._obs.block == 0:
                self._obs.begin_block()
            end = at + min(self._obs.block - slot % self._obs.block, self.capacity - slot)
            self._put(slot, rows[at:end], [column[at:end] for column in observations])
            at = end

    def _put(self, slot: int, rows: NDArray[np.int32], observations: Sequence[NDArray[np.float32]]) -> None:
        """The transitions of one block from ``slot`` on; ``rows`` lack their references."""
        rows[:, -self._references :] = self._obs.add(observations, self._shift)
        self._rows.put(slot, rows)
        self.total += len(rows)

    def _shift(self, first: int, by: int) -> None:
        """References from ``first`` on grow by ``by``."""
        references = self._rows.tensor[: len(self), -self._references :]
        references.add_((references >= first).int(), alpha=by)

    def sample(self, batch_size: int) -> Batch:
        """A minibatch of ``batch_size`` transitions, as views into fresh tensors.

        Raises:
            ValueError: the ring is empty.
        """
        return self.samples(batch_size, 1)

    def samples(self, batch_size: int, count: int) -> Batch:
        """``count`` minibatches, one after another: those of as many calls of :meth:`sample`, gathered in one.

        Raises:
            ValueError: the ring is empty.
        """
        if self.total == 0:
            raise ValueError("cannot sample from an empty replay")
        return self._at(torch.cat([self._slots(batch_size) for _ in range(count)]))

    def _slots(self, batch_size: int) -> Tensor:
        """Where transitions lie, drawn uniformly (b,)."""
        return torch.randint(len(self), (batch_size,), generator=self._generator, device=self._generator.device)

    def _at(self, slots: Tensor) -> Batch:
        """The transitions in ``slots`` (b,)."""
        rows = self._rows.take(slots)
        obs, next_obs, *after = self._obs.take(rows[:, -self._references :])
        numbers = rows.view(torch.float32)
        reward, terminal, *steps = numbers[:, self._act_dim : -self._references].unbind(1)
        action = numbers[:, : self._act_dim]
        return Batch(obs, action, reward, next_obs, terminal, steps[0] if steps else None, after[0] if after else None)

    @property
    def oldest(self) -> int:
        """Number of the oldest transition still there; they are numbered from 0 on as they were appended."""
        return max(0, self.total - self.capacity)

    def rows(self, first: int, end: int) -> Tensor:
        """Transitions number ``first`` to ``end`` - 1, (end - first, width), on the CPU: for :meth:`refill`.

        A row holds a whole transition: obs, action, reward, next_obs, terminal, and where they are kept steps and after.

        Raises:
            ValueError: not all of them are there.
        """
        if not self.oldest <= first <= end <= self.total:
            raise ValueError(f"transitions {first} to {end} of {self.oldest} to {self.total}")
        where = torch.arange(first, end, device=self._generator.device) % self.capacity
        found = self._at(where)
        columns = [found.obs, found.action, found.reward[:, None], found.next_obs, found.terminal[:, None]]
        if found.steps is not None:
            columns.append(found.steps[:, None])
        if found.after is not None:
            columns.append(found.after)
        return torch.cat(columns, dim=1).cpu()

    def refill(self, total: int, parts: Iterable[tuple[int, Tensor]]) -> None:
        """Put back what :meth:`rows` gave, into a ring of the same capacity; what was in it goes.

        Args:
            total: transitions that had been appended.
            parts: each the number of its first transition, and rows (n, width); what is no longer kept is left out.

        Raises:
            ValueError: a transition is missing, comes twice, or has another width.
        """
        self._obs.clear()
        self.total = at = max(0, total - self.capacity)
        for first, rows in parts:
            rows = rows[max(0, at - first) :]
            if max(first, at) != at or rows.shape[1] != sum(self._widths) or at + len(rows) > total:
                raise ValueError(f"{len(rows)} rows of width {rows.shape[1]} from {first} on, where {at} is next")
            self._append([column.numpy() for column in torch.split(rows, self._widths, dim=1)])
            at += len(rows)
        if at != total:
            raise ValueError(f"transitions {at} to {total} are missing")


def _split(column: Tensor | None, rows: int, total: int) -> Sequence[Tensor | None]:
    return [None] * (total // rows) if column is None else torch.split(column, rows)
