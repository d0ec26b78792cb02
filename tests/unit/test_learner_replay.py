"""Ring and assembler: what is sampled is what the robot did, and nothing that it did not do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from learner_world import ACT_DIM, OBS_DIM, batches, episode, noisy_run, records

from robotsac.learner.assembler import Assembler, Episode
from robotsac.learner.replay import Replay
from robotsac.learner.replay_log import LoggedBatch
from robotsac.records import EpisodeEnd, Flag, Records, Transitions, transitions

CPU = torch.device("cpu")


def ring(capacity: int, seed: int = 0) -> Replay:
    return Replay(capacity, OBS_DIM, ACT_DIM, CPU, torch.Generator().manual_seed(seed))


def described(first: int, count: int) -> Transitions:
    """Transitions that say themselves which they are: every number of transition i is made of i."""
    i = np.arange(first, first + count, dtype=np.float32)
    return Transitions(
        obs=np.stack([i] * OBS_DIM, axis=1),
        action=np.stack([i + 0.5] * ACT_DIM, axis=1),
        reward=10 * i,
        next_obs=np.stack([i + 1] * OBS_DIM, axis=1),
        terminal=(i % 2).astype(np.float32),
    )


def content(replay: Replay) -> set[int]:
    return {int(x) for x in replay.sample(2000).obs[:, 0]}


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.integers(1, 7))
@hypothesis_settings(max_examples=60, deadline=None)
def test_the_ring_holds_the_newest_and_every_row_is_whole(pushes: list[int], capacity: int) -> None:
    replay = ring(capacity)
    total = 0
    for count in pushes:
        replay.append(described(total, count))
        total += count
    assert (replay.total, len(replay)) == (total, min(total, capacity))
    if total:
        batch = replay.sample(300)
        i = batch.obs[:, 0]
        assert {int(x) for x in i} <= set(range(max(0, total - capacity), total))
        assert torch.equal(batch.action[:, 1], i + 0.5)
        assert torch.equal(batch.reward, 10 * i)
        assert torch.equal(batch.next_obs[:, 2], i + 1)
        assert torch.equal(batch.terminal, i % 2)


def test_every_row_is_reached_after_wrapping() -> None:
    replay = ring(7)
    for k in range(50):
        replay.append(described(k, 1))
    assert content(replay) == set(range(43, 50))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
@hypothesis_settings(max_examples=30, deadline=None)
def test_content_does_not_depend_on_how_appends_were_cut(cuts: list[int]) -> None:
    whole, cut = ring(10), ring(10)
    whole.append(described(0, sum(cuts)))
    at = 0
    for count in cuts:
        cut.append(described(at, count))
        at += count
    assert torch.equal(whole.sample(50).obs, cut.sample(50).obs)


def test_appended_arrays_are_copied() -> None:
    replay, made = ring(4), described(0, 2)
    replay.append(made)
    made.obs[:] = 99.0
    assert content(replay) == {0, 1}


def test_shapes_of_a_minibatch() -> None:
    replay = ring(5)
    replay.append(described(0, 3))
    batch = replay.sample(4)
    assert len(batch) == 4
    assert [tuple(t.shape) for t in (batch.obs, batch.action, batch.reward, batch.next_obs, batch.terminal)] == [
        (4, OBS_DIM), (4, ACT_DIM), (4,), (4, OBS_DIM), (4,)
    ]  # fmt: skip


def test_samples_differ_between_calls_and_repeat_with_the_seed() -> None:
    one, same = ring(100), ring(100)
    for replay in (one, same):
        replay.append(described(0, 100))
    for together, alone in zip(one.samples(32, 3).parts(32), [same.sample(32) for _ in range(3)], strict=True):
        assert torch.equal(together.obs, alone.obs) and torch.equal(together.terminal, alone.terminal)
    first = one.sample(32).obs
    assert not torch.equal(first, one.sample(32).obs)
    assert torch.equal(first, same.sample(32).obs)


def test_an_empty_ring_and_wrong_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        ring(3).sample(1)
    with pytest.raises(ValueError, match="widths"):
        Replay(3, OBS_DIM + 1, ACT_DIM, CPU, torch.Generator()).append(described(0, 1))


# --- assembler ---------------------------------------------------------------------------------------------------


def assembled(run: Records, size: int = 1000) -> tuple[list[Transitions], list[Episode]]:
    assembler, made, finished = Assembler(), [], []
    for batch in batches(run, size):
        part, episodes = assembler.add(batch)
        made.append(part)
        finished += episodes
    return made, finished


@pytest.mark.parametrize("end", [6, 0xFFFFFFFF])
def test_an_end_that_is_not_known_is_a_fault_and_no_transition(end: int) -> None:
    run = noisy_run(60, seed=1)
    finals = np.flatnonzero((run["flags"] & Flag.FINAL) != 0)
    run["end"][finals[0]] = end
    parts, episodes = assembled(run)
    assert episodes[0].end is EpisodeEnd.FAULT and not episodes[0].success
    faulty = run.copy()
    faulty["end"][finals[0]] = EpisodeEnd.FAULT
    assert joined(parts, "obs") == transitions(faulty).obs.ravel().tolist()


def joined(parts: list[Transitions], field: str) -> list[float]:
    return np.concatenate([getattr(part, field) for part in parts]).ravel().tolist()


@given(st.integers(1, 70))
@hypothesis_settings(max_examples=30, deadline=None)
def test_batch_borders_change_neither_transitions_nor_episodes(size: int) -> None:
    run = noisy_run(60, seed=1)
    whole = transitions(run)
    parts, episodes = assembled(run, size)
    for field in ("obs", "action", "reward", "next_obs", "terminal"):
        assert joined(parts, field) == getattr(whole, field).ravel().tolist()
    expected = assembled(run)[1]
    assert [e.return_ for e in episodes] == pytest.approx([e.return_ for e in expected])
    assert [(e.steps, e.end, e.env_steps, e.complete) for e in episodes] == [
        (e.steps, e.end, e.env_steps, e.complete) for e in expected
    ]


@pytest.mark.parametrize(
    ("end", "count", "terminal"),
    [
        (EpisodeEnd.SUCCESS, 4, 1.0),
        (EpisodeEnd.FAILURE, 4, 1.0),
        (EpisodeEnd.TIME_LIMIT, 4, 0.0),
        (EpisodeEnd.OPERATOR, 4, 0.0),
        (EpisodeEnd.FAULT, 3, 0.0),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_ends_bootstrap_or_not_and_a_fault_drops_its_last_transition(
    end: EpisodeEnd, count: int, terminal: float, size: int
) -> None:
    parts, (finished,) = assembled(episode(4, end), size)
    assert joined(parts, "terminal") == [0.0] * (count - 1) + [terminal]
    assert finished.end is end
    assert finished.success is (end is EpisodeEnd.SUCCESS)


def test_no_transition_crosses_episodes() -> None:
    run = np.concatenate([episode(3, EpisodeEnd.TIME_LIMIT, 1, 0), episode(3, EpisodeEnd.TIME_LIMIT, 2, 4)])
    parts, _ = assembled(run, 3)
    obs, next_obs = np.concatenate([p.obs for p in parts]), np.concatenate([p.next_obs for p in parts])
    assert obs[:, 0].tolist() == [0, 1, 2, 4, 5, 6]
    assert (next_obs[:, 0] - obs[:, 0] == 1).all()


@pytest.mark.parametrize("size", [1, 3, 100])
def test_no_transition_crosses_a_gap_and_its_episode_does_not_count(size: int) -> None:
    run = np.concatenate([episode(6, EpisodeEnd.SUCCESS, 1, 0), episode(2, EpisodeEnd.SUCCESS, 2, 7)])
    torn = np.delete(run, 3)
    parts, (first, second) = assembled(torn, size)
    assert np.concatenate([p.obs for p in parts])[:, 0].tolist() == [0, 1, 4, 5, 7, 8]
    assert (first.complete, first.counts) == (False, False)
    assert (second.complete, second.counts) == (True, True)


def test_an_episode_of_which_the_start_was_lost_does_not_count() -> None:
    run = np.concatenate([episode(3, EpisodeEnd.SUCCESS, 1, 0), episode(3, EpisodeEnd.SUCCESS, 2, 4)])
    _, (_, second) = assembled(np.delete(run, 4))
    assert not second.complete
    _, (late,) = assembled(episode(3, EpisodeEnd.SUCCESS, 5, first_seq=50))
    assert not late.complete


def test_boots_and_robots_are_kept_apart() -> None:
    assembler = Assembler()
    one, other = episode(2, EpisodeEnd.SUCCESS), episode(2, EpisodeEnd.SUCCESS)
    counts = []
    for part in (slice(0, 1), slice(1, 2), slice(2, 3)):
        for robot, boot, run in (("r", "a", one), ("r", "b", other), ("s", "a", other)):
            made, _ = assembler.add(LoggedBatch(1, robot, boot, run[part]))
            counts.append(len(made))
    assert counts == [0, 0, 0, 1, 1, 1, 1, 1, 1]


def test_episode_summary_says_what_happened() -> None:
    run = episode(5, EpisodeEnd.SUCCESS, number=7, flags=Flag.DETERMINISTIC | Flag.LATE, reward=2.0)
    run["policy_version"] = 3
    _, (finished,) = assembled(run, 2)
    assert (finished.robot, finished.boot, finished.episode) == ("r", "b", 7)
    assert (finished.steps, finished.return_, finished.success) == (5, 10.0, True)
    assert (finished.deterministic, finished.random, finished.policy_version) == (True, False, 3)
    assert finished.env_steps == 5


def test_an_operator_stop_says_nothing_about_the_policy() -> None:
    _, (finished,) = assembled(episode(5, EpisodeEnd.OPERATOR))
    assert finished.complete and not finished.counts


def test_an_episode_without_a_step_is_no_trouble() -> None:
    _, (finished,) = assembled(episode(0, EpisodeEnd.OPERATOR))
    assert (finished.steps, finished.return_, finished.deterministic) == (0, 0.0, False)


def test_a_transition_carries_the_applied_action() -> None:
    parts, _ = assembled(records(3))
    assert set(joined(parts, "action")) == {0.5}
