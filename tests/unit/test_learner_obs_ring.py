"""Observations that are stored once: the replay is, to the bit, the one that stores each transition whole."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from learner_world import ACT_DIM, OBS_DIM, episode

from robotsac.config.learn import LearnConfig
from robotsac.learner import obs_ring, replay
from robotsac.learner.assembler import Assembler
from robotsac.learner.device_rows import DeviceRows, HostRows
from robotsac.learner.obs_ring import BLOCK_MAX, SPARE, ObsRing
from robotsac.learner.replay import Batch, Replay
from robotsac.learner.replay_log import LoggedBatch
from robotsac.records import EpisodeEnd, Transitions

CPU = torch.device("cpu")
ARM_OBS_DIM, ARM_ACT_DIM = 34, 6
"""Of the task reach on arm0."""


class WholeRows:
    """The replay with each transition whole in a row of its own: what the other one must be told from by its size alone."""

    def __init__(self, capacity: int, with_steps: bool, with_after: bool, seed: int) -> None:
        self._capacity, self._generator, self.total = capacity, torch.Generator().manual_seed(seed), 0
        self.widths = [OBS_DIM, ACT_DIM, 1, OBS_DIM, 1] + [1] * with_steps + [OBS_DIM] * with_after
        self._with_steps, self._with_after = with_steps, with_after
        self._rows = torch.zeros(capacity, sum(self.widths))

    def append(self, made: Transitions) -> None:
        columns = [made.obs, made.action, made.reward[:, None], made.next_obs, made.terminal[:, None]]
        if self._with_steps:
            columns.append(made.steps[:, None])
        if self._with_after:
            columns.append(made.after)
        for row in np.concatenate(columns, axis=1):
            self._rows[self.total % self._capacity] = torch.from_numpy(row)
            self.total += 1

    def sample(self, count: int) -> Batch:
        size = min(self.total, self._capacity)
        rows = self._rows[torch.randint(size, (count,), generator=self._generator)]
        obs, action, reward, next_obs, terminal, *more = torch.split(rows, self.widths, dim=1)
        steps = more[0][:, 0] if self._with_steps else None
        after = more[-1] if self._with_after else None
        return Batch(obs, action, reward[:, 0], next_obs, terminal[:, 0], steps, after)

    def rows(self) -> torch.Tensor:
        return self._rows[torch.arange(max(0, self.total - self._capacity), self.total) % self._capacity]


def same(ours: Batch, theirs: Batch) -> bool:
    """Field by field, bit by bit: −0 is not 0 here."""
    for field in fields(Batch):
        one, other = getattr(ours, field.name), getattr(theirs, field.name)
        if one is None or other is None:
            if one is not other:
                return False
        elif not torch.equal(one.contiguous().view(torch.int32), other.contiguous().view(torch.int32)):
            return False
    return True


def nbytes(ring: Replay) -> int:
    """On the device, written to or not."""
    return sum(tensor.nbytes for tensor in ring.tensors)


def part(made: Transitions, first: int, end: int) -> Transitions:
    columns = (getattr(made, field.name) for field in fields(Transitions))
    return Transitions(*(None if column is None else column[first:end] for column in columns))


def robots_in_turn(seed: int, count: int, n_step: int) -> list[Transitions]:
    """What the assembler makes of robots that take turns: episodes of any length and end, lost records, and numbers that
    come again and again, −0 and 0 among them.
    """
    rng = np.random.default_rng(seed)
    few = rng.choice([-0.0, 0.0, 1.0, np.pi], (4, OBS_DIM)).astype(np.float32)
    runs = []
    for _ in range(int(rng.integers(1, 4))):
        parts, seq = [], 0
        for number in range(1, 9):
            one = episode(int(rng.integers(0, 1 + count // 8)), EpisodeEnd(int(rng.integers(1, 6))), number, seq)
            one["obs"] = rng.normal(size=one["obs"].shape)
            again = rng.random(len(one)) < rng.choice([0.0, 0.1, 1.0])
            one["obs"][again] = few[rng.integers(len(few), size=int(again.sum()))]
            one["action_applied"] = rng.uniform(-1, 1, one["action_applied"].shape)
            parts.append(one)
            seq += len(one)
        run = np.concatenate(parts)
        runs.append(run[rng.random(len(run)) > 0.02])
    assembler, at, made = Assembler(n_step, 0.9), [0] * len(runs), []
    while any(here < len(run) for here, run in zip(at, runs, strict=True)):
        robot = int(rng.integers(len(runs)))
        end = at[robot] + int(rng.integers(1, 30))
        made.append(assembler.add(LoggedBatch(1, str(robot), "b", runs[robot][at[robot] : end]))[0])
        at[robot] = end
    return made


def noise(seed: int, count: int) -> Transitions:
    """Nothing is shared."""
    rng = np.random.default_rng(seed)
    normal = [rng.standard_normal((count, OBS_DIM), dtype=np.float32) for _ in range(3)]
    action, one = rng.standard_normal((count, ACT_DIM), dtype=np.float32), np.ones(count, np.float32)
    return Transitions(normal[0], action, one, normal[1], 0 * one, 3 * one, normal[2])


@given(st.integers(0, 10_000), st.integers(1, 90), st.integers(1, 4), st.booleans(), st.booleans())
@hypothesis_settings(max_examples=100, deadline=None)
def test_samples_and_rows_are_those_of_whole_transitions(
    seed: int, capacity: int, n_step: int, with_after: bool, noisy: bool
) -> None:
    several, rng = n_step > 1, np.random.default_rng(seed)
    stream = robots_in_turn(seed, 60, n_step)
    if noisy and several:
        stream.insert(len(stream) // 2, noise(seed, int(rng.integers(1, 3 * capacity + 2))))
    kept = {"with_steps": several, "with_after": several and with_after}
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = Replay(capacity, OBS_DIM, ACT_DIM, CPU, generator, **kept), WholeRows(capacity, *kept.values(), seed)
    for made in stream:
        theirs.append(made)
        cuts = sorted(rng.integers(0, len(made) + 1, 2))
        for first, end in zip([0, *cuts], [*cuts, len(made)], strict=True):
            ours.append(part(made, first, end))
        assert (ours.total, len(ours)) == (theirs.total, min(theirs.total, capacity))
        if theirs.total:
            assert same(ours.sample(40), theirs.sample(40))
    rows = ours.rows(ours.oldest, ours.total)
    assert torch.equal(rows.view(torch.int32), theirs.rows().view(torch.int32))


@given(st.integers(0, 10_000), st.integers(1, 90), st.integers(0, 400))
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_ring_that_was_refilled_goes_on_as_the_one_that_was_not(seed: int, capacity: int, cut: int) -> None:
    made, kept = robots_in_turn(seed, 60, 3), {"with_steps": True, "with_after": True}
    whole = Replay(capacity, OBS_DIM, ACT_DIM, CPU, torch.Generator().manual_seed(seed), **kept)
    for piece in made[: cut % len(made)]:
        whole.append(piece)
    again = Replay(capacity, OBS_DIM, ACT_DIM, CPU, torch.Generator().manual_seed(seed), **kept)
    again.append(noise(0, 5))
    middle = (whole.oldest + whole.total) // 2
    again.refill(
        whole.total, [(at, whole.rows(at, end)) for at, end in ((whole.oldest, middle), (middle, whole.total))]
    )
    for piece in made[cut % len(made) :]:
        whole.append(piece)
        again.append(piece)
        assert again.total == whole.total
        if whole.total:
            assert same(again.sample(20), whole.sample(20))


@pytest.mark.parametrize("kind", [DeviceRows, HostRows])
def test_rows_are_written_and_taken_the_same_way_on_any_device(
    monkeypatch: pytest.MonkeyPatch, kind: type[DeviceRows]
) -> None:
    def rows_of_kind(count: int, width: int, dtype: torch.dtype, device: torch.device) -> DeviceRows:
        return kind(torch.zeros(count, width, dtype=dtype, device=device))

    for module in (replay, obs_ring):
        monkeypatch.setattr(module, "empty_rows", rows_of_kind)
    ours = Replay(50, OBS_DIM, ACT_DIM, CPU, torch.Generator().manual_seed(3), with_steps=True, with_after=True)
    theirs = WholeRows(50, True, True, 3)
    for made in [*robots_in_turn(0, 200, 3), noise(0, 70), *robots_in_turn(1, 200, 3)]:
        ours.append(made)
        theirs.append(made)
    assert type(ours._rows) is kind and type(ours._obs._rows) is kind
    batch = ours.sample(64)
    assert same(batch, theirs.sample(64))
    kept = batch.obs.clone()
    ours.append(noise(1, 300))
    assert torch.equal(batch.obs, kept), "a minibatch is a copy"


def test_a_million_default_transitions_of_arm0_take_less_than_two_hundred_megabytes() -> None:
    generator = torch.Generator().manual_seed(0)
    ring = Replay.of(LearnConfig(), LearnConfig().replay_capacity, ARM_OBS_DIM, ARM_ACT_DIM, generator)
    assert ring.capacity == 1_000_000 and nbytes(ring) < 200e6


@pytest.mark.parametrize(("robots", "records"), [(1, 500), (1, 1), (4, 7)])
def test_episodes_of_forty_steps_fit_whoever_takes_turns(robots: int, records: int) -> None:
    capacity, steps = 8000, 40
    ring = Replay(capacity, OBS_DIM, ACT_DIM, CPU, torch.Generator(), with_steps=True, with_after=True)
    before, rng, assembler = nbytes(ring), np.random.default_rng(0), Assembler(3, 0.9)
    runs = []
    for _ in range(robots):
        run = np.concatenate(
            [episode(steps, EpisodeEnd.TIME_LIMIT, i, (steps + 1) * i) for i in range(2 * capacity // steps)]
        )
        run["obs"] = rng.normal(size=run["obs"].shape)
        runs.append(run)
    for first in range(0, len(runs[0]) // robots, records):
        for robot, run in enumerate(runs):
            made, _ = assembler.add(LoggedBatch(1, str(robot), "b", run[first : first + records]))
            ring.append(made)
    assert ring.total > 1.8 * capacity and nbytes(ring) == before


@pytest.mark.parametrize("size", [1, 37, 5000])
def test_where_nothing_is_shared_it_grows_to_a_row_for_each_reference_and_no_further(size: int) -> None:
    capacity = 1000
    ring = Replay(capacity, OBS_DIM, ACT_DIM, CPU, torch.Generator(), with_steps=True, with_after=True)
    made = noise(0, 10_000)
    for first in range(0, len(made), size):
        ring.append(part(made, first, first + size))
    numbers = 4 * (ACT_DIM + 3 + 3) * capacity
    block = ring._obs.block
    assert 3 * capacity * 4 * OBS_DIM <= nbytes(ring) - numbers <= 3 * (capacity + block) * 4 * OBS_DIM
    kept = ring.rows(ring.oldest, ring.total)
    assert np.array_equal(kept[:, :OBS_DIM], made.obs[-capacity:])
    assert np.array_equal(kept[:, -OBS_DIM:], made.after[-capacity:])


def test_one_observation_for_ever_takes_one_row_a_block() -> None:
    rows = ObsRing(1600, OBS_DIM, 2, CPU)
    same_again = [np.ones((1, OBS_DIM), np.float32)] * 2
    for _ in range(40):
        rows.begin_block()
        for _ in range(rows.block):
            rows.add(same_again, lambda first, by: pytest.fail("it grew"))
    assert rows._room - rows._free == 1600 // rows.block + 1


def test_a_small_ring_has_small_blocks_and_a_large_one_no_larger_than_they_may_be() -> None:
    assert [ObsRing(capacity, 1, 2, CPU).block for capacity in (1, 16, 17, 1600)] == [1, 1, 2, 100]
    large = ObsRing(1_000_000, 1, 3, CPU)
    assert large.block == BLOCK_MAX
    assert large.tensor.nbytes == 4 * int((1_000_000 + BLOCK_MAX) * (1 + SPARE))
