"""Transitions over several control steps: rewards of up to n steps, then the bootstrap.

From step t on, with k = n, or less where the episode, or what is known of it, ends before:

    R = Σ_{j<k} γ^j r_{t+j},   y = R + γ^k (1 − d) V(s_{t+k})        Sutton and Barto 2018, eq. 7.1

Whatever ends a window early decides d: a task that ended gives d = 1 and no bootstrap; a time limit, an operator, a lost
record or the step before a fault gives d = 0 and a bootstrap from the last state that is known, with γ^k of what k is.

Two biases come with n > 1, both of them bought for speed. The rewards between are those of older policies' actions, without
importance weights. And a soft return would add −α log π(a_{t+j}|s_{t+j}) to each reward between; log π of an old action is
not stored, so only the bootstrap carries entropy, and Q is short of the entropy of up to n − 1 steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robotsac.records import Records, Transitions, ends_episode, paired, terminal


def n_step_transitions(records: Records, n: int, discount: float) -> tuple[Transitions, Records]:
    """The transitions that ``records`` complete, and the records that later ones need.

    One transition starts at each step that :func:`~robotsac.records.paired` takes, in order, none twice: the records
    handed back come first in the next call. So what comes out does not depend on how records were cut into calls.

    Args:
        records: of one boot in order of ``seq``, those of the last call's second result first.
        n: steps at most, ≥ 1.
        discount: γ per control step.

    Returns:
        Transitions with ``steps`` (b,) = k and ``after``; at most n records.
    """
    pairs = paired(records)
    ends = ends_episode(records)
    start = np.flatnonzero(pairs)
    reward, steps = _returns(records["reward"], start, _goes_on(pairs, ends), n, discount)
    # A window that is neither full nor known to have ended waits: its last state is the last record there is.
    whole = (steps == n) | (start + steps < len(records) - 1)
    if len(records) and ends[-1]:
        whole[:] = True
    start, last = start[whole], (start + steps)[whole]
    obs = records["obs"]
    made = Transitions(
        obs=obs[start],
        action=records["action_applied"][start],
        reward=reward[whole].astype(np.float32),
        next_obs=obs[last],
        terminal=terminal(records[last]),
        steps=steps[whole].astype(np.float32),
        after=obs[start + 1],
    )
    waiting = int((~whole).sum())
    return made, records[len(records) - 1 - waiting :].copy()


def _goes_on(pairs: NDArray[np.bool_], ends: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the step behind each pair belongs to the same window: the next pair exists and nothing ended between."""
    goes_on = pairs & ~ends[1:]
    goes_on[:-1] &= pairs[1:]
    goes_on[-1:] = False
    return goes_on


def _returns(
    reward: NDArray[np.float32], start: NDArray[np.int64], goes_on: NDArray[np.bool_], n: int, discount: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """R and k of the windows that begin at ``start``, (b,) each; summed in float64, oldest reward first."""
    rewards = reward.astype(np.float64)
    total = rewards[start]
    steps = np.ones(len(start), dtype=np.int64)
    last = start
    for power in range(1, n):
        more = goes_on[last] & (steps == power)
        last = last + more
        total += np.where(more, discount**power * rewards[last], 0.0)
        steps += more
    return total, steps
