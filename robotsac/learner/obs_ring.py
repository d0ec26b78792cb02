"""The observations of a replay, each stored once although several transitions hold it.

Neighbours share them bit for bit: what one transition leads to is where a later one begins. They are told by their bits
alone, so that it does not matter how many robots take turns, how many steps a transition has, or where an episode ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robotsac.learner.device_rows import empty_rows

BLOCK_MAX = 4096
"""Transitions that share observations among themselves. Looking them up takes some 300 bytes of the host for each."""
BLOCKS_MIN = 16
"""Of a small replay: one block more than the transitions need is held, and that must stay a small part."""
SPARE = 1 / 16
"""Rows beyond one for each transition. An episode of T steps has T + 1 observations, and where a block ends, each robot's
last few are stored again: it is enough for episodes of 20 steps in the mean."""
GROWTH = 1 / 8
"""Of the rows, each time they do not suffice."""


class ObsRing:
    """Rows of observations in the order in which they came, the oldest of which make room.

    Transitions come in blocks, and share observations within their own. So a block's rows can go when its transitions
    have gone, and no row goes that one of them still refers to.

    There are rows for :data:`SPARE` more observations than transitions. Where transitions share less, the ring grows: to a
    row for every reference at most, where nothing is shared. While it grows, it is there twice.

    Args:
        capacity: transitions kept.
        obs_dim: length of an observation.
        per_transition: observations of one.
        device: where the rows lie.

    Attributes:
        block: transitions of a block; the last one of ``capacity`` may be shorter.
    """

    def __init__(self, capacity: int, obs_dim: int, per_transition: int, device: torch.device) -> None:
        self.block = min(BLOCK_MAX, -(-capacity // BLOCKS_MIN))
        self._blocks = -(-capacity // self.block)
        span = capacity + self.block
        self._rows_max = per_transition * span
        self._room = self._free = min(self._rows_max, span + int(span * SPARE))
        self._rows = empty_rows(self._room, obs_dim, torch.float32, device)
        self._key = np.dtype((np.void, 4 * obs_dim))
        self._next = 0
        # Of the block that is being filled: its observations' bits, numbered in their order.
        self._known: dict[bytes, int] = {}
        # Rows of the blocks before it, oldest first.
        self._closed: deque[int] = deque()

    @property
    def tensor(self) -> Tensor:
        """All rows, in use or not."""
        return self._rows.tensor

    def begin_block(self) -> None:
        """The transitions that follow are the next block's: those of the block ``capacity`` before it have all gone."""
        self._closed.append(len(self._known))
        self._known.clear()
        if len(self._closed) > self._blocks:
            self._free += self._closed.popleft()

    def clear(self) -> None:
        """All transitions have gone."""
        self._known.clear()
        self._closed.clear()
        self._free = self._room

    def add(self, columns: Sequence[NDArray[np.float32]], shift: Callable[[int, int], None]) -> NDArray[np.int64]:
        """Store what is new in observations of the block that is being filled.

        Args:
            columns: of n transitions; (n, obs_dim) each, as many as the transition has observations.
            shift: told, if the ring grows, from which reference on all that were handed out grow, and by how much.

        Returns:
            References (n, columns).
        """
        known, before = self._known, len(self._known)
        rows = np.concatenate(columns, dtype=np.float32)
        keys = cast("list[bytes]", rows.view(self._key).ravel().tolist())
        numbers = np.array([known.setdefault(key, len(known)) for key in keys])
        if fresh := len(known) - before:
            if fresh > self._free:
                shift(self._next, self._grow(fresh))
            # The newest of a dict are its last ones.
            newest = bytearray().join(reversed(tuple(islice(reversed(known), fresh))))
            self._write(np.frombuffer(newest, dtype=np.float32).reshape(fresh, -1))
        begin = self._next - len(known)
        return ((begin + numbers) % self._room).reshape(len(columns), -1).T

    def take(self, references: Tensor) -> tuple[Tensor, ...]:
        """Observations of transitions with ``references`` (b, k): k tensors (b, obs_dim), of one gather."""
        return self._rows.take(references.t()).unbind()

    def _write(self, fresh: NDArray[np.float32]) -> None:
        before_wrap = min(len(fresh), self._room - self._next)
        self._rows.put(self._next, fresh[:before_wrap])
        if before_wrap < len(fresh):
            self._rows.put(0, fresh[before_wrap:])
        self._next = (self._next + len(fresh)) % self._room
        self._free -= len(fresh)

    def _grow(self, needed: int) -> int:
        """Insert free rows where the next one goes: the oldest, which lie behind it, move on by as many as returned."""
        more = min(max(needed, int(self._room * GROWTH)), self._rows_max - self._room)
        old, at = self._rows.tensor, self._next
        self._rows = empty_rows(self._room + more, old.shape[1], old.dtype, old.device)
        self._rows.tensor[:at] = old[:at]
        self._rows.tensor[at + more :] = old[at:]
        self._room += more
        self._free += more
        return more
