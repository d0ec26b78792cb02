"""n-step returns: what is in the ring is what summing over the episode by hand gives, wherever the log was cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from learner_world import ACT_DIM, OBS_DIM, RATE_HZ, batches, contract, episode, noisy_run, records, settings

from robotsac.learner.assembler import Assembler
from robotsac.learner.critic import bellman_target, discount_over
from robotsac.learner.learning import Learning
from robotsac.learner.limiter import Limiter
from robotsac.learner.n_step import n_step_transitions
from robotsac.learner.replay import Replay
from robotsac.learner.replay_log import LoggedBatch
from robotsac.records import EpisodeEnd, Flag, Records, Transitions, transitions

CPU = torch.device("cpu")
GAMMA = 0.9


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# --- by hand -----------------------------------------------------------------------------------------------------


def made_of(run: Records, n: int, size: int = 1000) -> Transitions:
    """All that the assembler makes of ``run``, cut into batches of ``size``."""
    assembler = Assembler(n, GAMMA)
    return joined([assembler.add(batch)[0] for batch in batches(run, size)])


def joined(parts: list[Transitions]) -> Transitions:
    fields = ("obs", "action", "reward", "next_obs", "terminal", "steps", "after")
    return Transitions(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


def table(made: Transitions) -> list[tuple[float, float, float, float, float]]:
    """Start, reward, next, terminal, steps; ``obs[0]`` is ``seq``."""
    columns = (made.obs[:, 0], made.reward, made.next_obs[:, 0], made.terminal, made.steps)
    return [tuple(float(x) for x in row) for row in zip(*columns, strict=True)]  # type: ignore[misc]


@pytest.mark.parametrize(("end", "terminal"), [(EpisodeEnd.SUCCESS, 1.0), (EpisodeEnd.FAILURE, 1.0)])
def test_an_episode_that_ended_worked_out_by_hand(end: EpisodeEnd, terminal: float) -> None:
    # Rewards 1, 2, 4 and the end: windows of 2 are 1 + 0.9·2 and 2 + 0.9·4, then 4 alone.
    run = episode(3, end)
    run["reward"][:3] = [1.0, 2.0, 4.0]
    assert table(made_of(run, 2)) == [
        (0.0, pytest.approx(2.8), 2.0, 0.0, 2.0),
        (1.0, pytest.approx(5.6), 3.0, terminal, 2.0),
        (2.0, pytest.approx(4.0), 3.0, terminal, 1.0),
    ]


@pytest.mark.parametrize("end", [EpisodeEnd.TIME_LIMIT, EpisodeEnd.OPERATOR])
def test_an_episode_that_was_cut_bootstraps_from_its_last_state_with_what_k_is(end: EpisodeEnd) -> None:
    run = episode(3, end)
    run["reward"][:3] = [1.0, 2.0, 4.0]
    made = made_of(run, 5)
    assert table(made) == [
        (0.0, pytest.approx(1 + 1.8 + 3.24), 3.0, 0.0, 3.0),
        (1.0, pytest.approx(2 + 3.6), 3.0, 0.0, 2.0),
        (2.0, pytest.approx(4.0), 3.0, 0.0, 1.0),
    ]
    replay = ring(3, n_step=5)
    replay.append(made)
    batch = replay.sample(50)
    zero = torch.zeros(50)
    y = bellman_target(
        batch.reward, batch.terminal, torch.full((1, 50), 10.0), zero, zero[0], discount_over(batch, GAMMA)
    )
    by_start = {0.0: 1 + 1.8 + 3.24 + 7.29, 1.0: 2 + 3.6 + 8.1, 2.0: 4 + 9.0}
    assert y.tolist() == pytest.approx([by_start[float(s)] for s in batch.obs[:, 0]], rel=1e-6)


def test_the_step_into_a_fault_is_dropped_and_windows_stop_before_it() -> None:
    run = episode(4, EpisodeEnd.FAULT)
    run["reward"][:4] = [1.0, 2.0, 4.0, 100.0]
    assert table(made_of(run, 3)) == [
        (0.0, pytest.approx(1 + 1.8 + 3.24), 3.0, 0.0, 3.0),
        (1.0, pytest.approx(2 + 3.6), 3.0, 0.0, 2.0),
        (2.0, pytest.approx(4.0), 3.0, 0.0, 1.0),
    ]


def test_a_lost_record_ends_windows_on_both_sides_of_it() -> None:
    run = episode(6, EpisodeEnd.TIME_LIMIT, reward=1.0)
    torn = np.delete(run, 3)
    got = [(start, after, steps) for start, _, after, _, steps in table(made_of(torn, 3))]
    assert got == [(0.0, 2.0, 2.0), (1.0, 2.0, 1.0), (4.0, 6.0, 2.0), (5.0, 6.0, 1.0)]


def test_a_number_that_is_not_finite_ends_windows_before_it() -> None:
    run = episode(4, EpisodeEnd.TIME_LIMIT, reward=1.0)
    run["obs"][2] = np.nan
    assert [(s, a, k) for s, _, a, _, k in table(made_of(run, 3))] == [(0.0, 1.0, 1.0), (3.0, 4.0, 1.0)]
    run = episode(4, EpisodeEnd.TIME_LIMIT, reward=1.0)
    run["reward"][1] = np.inf
    assert [(s, a, k) for s, _, a, _, k in table(made_of(run, 3))] == [
        (0.0, 1.0, 1.0), (2.0, 4.0, 2.0), (3.0, 4.0, 1.0)
    ]  # fmt: skip


def test_a_terminal_state_ends_a_window_even_if_its_record_is_not_marked_as_the_last() -> None:
    run = episode(4, EpisodeEnd.TIME_LIMIT, reward=1.0)
    run["end"][2] = EpisodeEnd.SUCCESS
    assert [(s, a, d) for s, _, a, d, _ in table(made_of(run, 4))][:2] == [(0.0, 2.0, 1.0), (1.0, 2.0, 1.0)]


def test_one_step_is_what_it_always_was() -> None:
    run = noisy_run(80, seed=1)
    made, rest = n_step_transitions(run, 1, GAMMA)
    plain = transitions(run)
    for field in ("obs", "action", "reward", "next_obs", "terminal"):
        np.testing.assert_array_equal(getattr(made, field), getattr(plain, field))
    assert set(made.steps.tolist()) == {1.0}  # type: ignore[union-attr]
    assert len(rest) == 1
    assert Assembler().add(batches(run, 1000)[0])[0].steps is None


# --- brute force -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """One transition, summed in a loop."""

    start: int
    reward: float
    after: int
    terminal: float
    steps: int


def brute_force(run: Records, n: int) -> list[Expected]:
    """Walk from every step for as long as the rules let it; a window that reaches the end of an open episode waits."""
    found = []
    for i in range(len(run)):
        total, k, ended, waits = 0.0, 0, 0.0, False
        while k < n:
            at = i + k
            if run["flags"][at] & Flag.FINAL or (k and run["end"][at] != EpisodeEnd.RUNNING):
                break
            if at + 1 == len(run):
                waits = True
                break
            follows = run["seq"][at + 1] == run["seq"][at] + 1 and run["episode"][at + 1] == run["episode"][at]
            finite = np.isfinite([run["reward"][at], *run["obs"][at], *run["obs"][at + 1]]).all()
            if not follows or not finite or run["end"][at + 1] >= EpisodeEnd.FAULT:
                break
            total += GAMMA**k * float(run["reward"][at])
            k += 1
            ended = float(run["end"][at + 1] in (EpisodeEnd.SUCCESS, EpisodeEnd.FAILURE))
        if k and not (waits and k < n):
            found.append(Expected(int(run["seq"][i]), total, int(run["seq"][i + k]), ended, k))
    return found


def random_run(seed: int) -> Records:
    """Episodes of every end and length, among them open ones, lost records, and numbers that are none."""
    rng = np.random.default_rng(seed)
    parts, seq = [], 0
    for number in range(1, 12):
        part = episode(int(rng.integers(0, 9)), EpisodeEnd(int(rng.integers(1, 6))), number, seq)
        part["reward"][:-1] = rng.normal(size=len(part) - 1)
        parts.append(part)
        seq += len(part)
    run = np.concatenate([*parts, records(int(rng.integers(0, 6)), seq)])
    run["episode"][seq:] = 99  # still under way
    run["reward"][seq:] = rng.normal(size=len(run) - seq)
    run["reward"][rng.random(len(run)) < 0.02] = np.nan
    return run[rng.random(len(run)) > 0.05]


def agree(made: Transitions, expected: list[Expected]) -> None:
    assert made.obs[:, 0].tolist() == [e.start for e in expected]
    assert made.next_obs[:, 0].tolist() == [e.after for e in expected]
    assert made.terminal.tolist() == [e.terminal for e in expected]
    assert made.steps is not None and made.steps.tolist() == [e.steps for e in expected]
    # Whatever n is, and wherever the window ends: the very next state.
    assert made.after is not None and made.after[:, 0].tolist() == [e.start + 1 for e in expected]
    # float32 of a sum in float64: half a unit in the last place of numbers around 1.
    np.testing.assert_allclose(made.reward, [e.reward for e in expected], atol=1e-6)


@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(1, 40))
@hypothesis_settings(max_examples=150, deadline=None)
def test_any_run_cut_anyhow_is_what_a_loop_over_it_finds(seed: int, n: int, size: int) -> None:
    run = random_run(seed)
    agree(made_of(run, n, size), brute_force(run, n))


def ring(capacity: int, n_step: int) -> Replay:
    return Replay(capacity, OBS_DIM, ACT_DIM, CPU, torch.Generator().manual_seed(0), with_steps=n_step > 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_full_ring_of_several_robots_and_boots_holds_the_newest_of_what_a_loop_finds(seed: int) -> None:
    # Four boots in turn, a few records at a time: windows wait in each of them while the others go on.
    rng, n, capacity = np.random.default_rng(seed), 3, 40
    keys = [("r", "a"), ("r", "b"), ("s", "a"), ("t", "c")]
    runs = {key: random_run(100 * seed + i) for i, key in enumerate(keys)}
    assembler, replay = Assembler(n, GAMMA), ring(capacity, n)
    at, order = dict.fromkeys(keys, 0), []
    while any(at[key] < len(runs[key]) for key in keys):
        key = keys[rng.integers(len(keys))]
        piece = runs[key][at[key] : at[key] + int(rng.integers(1, 7))]
        made, _ = assembler.add(LoggedBatch(1, *key, piece))
        at[key] += len(piece)
        replay.append(made)
        done = brute_force(runs[key][: at[key]], n)
        order += [(key, e) for e in done if (key, e) not in order]
    newest = {(e.start, e.after, e.terminal, e.steps, round(e.reward, 4)) for _, e in order[-capacity:]}
    assert replay.total == len(order) > capacity
    batch = replay.sample(4000)
    assert batch.steps is not None and batch.steps.shape == (4000,) and batch.steps.dtype == torch.float32
    columns = (batch.obs[:, 0], batch.next_obs[:, 0], batch.terminal, batch.steps, batch.reward)
    got = {tuple(round(float(x), 4) for x in row) for row in zip(*columns, strict=True)}
    assert got == newest


# --- ring, learner, limiter --------------------------------------------------------------------------------------


def test_steps_take_room_only_where_there_are_some() -> None:
    assert ring(10, 1).rows(0, 0).shape[1] == OBS_DIM * 2 + ACT_DIM + 2
    assert ring(10, 2).rows(0, 0).shape[1] == OBS_DIM * 2 + ACT_DIM + 3
    assert ring(10, 2).tensors[0].nbytes - ring(10, 1).tensors[0].nbytes == 10 * 4
    plain = ring(10, 1)
    plain.append(transitions(noisy_run(20, seed=0)))
    assert plain.sample(4).steps is None
    with pytest.raises(ValueError, match="widths"):
        ring(10, 2).append(transitions(noisy_run(20, seed=0)))
    with pytest.raises(ValueError, match="widths"):
        plain.append(made_of(noisy_run(20, seed=0), 2))


def test_what_came_one_step_later_is_kept_where_the_policy_must_be_smooth_over_time() -> None:
    # ``obs[0]`` is ``seq``: the next state is one further, the bootstrap up to four.
    run = episode(80, EpisodeEnd.TIME_LIMIT)
    learn = settings(n_step=4, smooth_time=0.1).learn
    replay = Replay.of(learn, 50, OBS_DIM, ACT_DIM, torch.Generator().manual_seed(0))
    replay.append(made_of(run, 4))
    batch = replay.sample(300)
    assert batch.after is not None and batch.steps is not None
    assert torch.equal(batch.after[:, 0], batch.obs[:, 0] + 1)
    assert torch.equal(batch.next_obs[:, 0], batch.obs[:, 0] + batch.steps) and batch.steps.max() == 4
    both = batch.joined(batch)
    assert both.after is not None and torch.equal(both.after, torch.cat((batch.after, batch.after)))

    for less in (settings(n_step=4).learn, settings(n_step=1, smooth_time=0.1).learn):
        without = Replay.of(less, 50, OBS_DIM, ACT_DIM, torch.Generator().manual_seed(0))
        without.append(made_of(run, 4) if less.n_step > 1 else transitions(run))
        assert without.sample(4).after is None


def all_alike() -> float:
    """Q of the one state whose episodes fail after seven steps: the mean over its windows of R + γ^k (1 − d) Q."""
    k = [min(5, 7 - start) for start in range(7)]
    rewards = sum((1 - GAMMA**steps) / (1 - GAMMA) for steps in k)
    bootstraps = sum(GAMMA**steps for start, steps in enumerate(k) if start + steps < 7)
    return rewards / (7 - bootstraps)


@pytest.mark.parametrize(("end", "worth"), [(EpisodeEnd.TIME_LIMIT, 10.0), (EpisodeEnd.FAILURE, all_alike())])
def test_a_constant_reward_of_one_is_worth_what_its_windows_are(end: EpisodeEnd, worth: float) -> None:
    # γ = 0.9, windows of 5, every state the same: cut by time it is worth 10, if γ^k is right for every k.
    small = {"hidden": (16,), "critic_lr": 2e-2, "polyak": 0.3, "temperature": 1e-5, "batch_size": 64}
    learning = Learning(settings(n_step=5, horizon_s=10 / RATE_HZ, **small), contract(), CPU)
    run = np.concatenate([episode(7, end, i + 1, 8 * i, reward=1.0) for i in range(20)])
    run["obs"] = 1.0
    run["action_applied"] = np.random.default_rng(0).uniform(-1, 1, run["action_applied"].shape)
    learning.absorb(batches(run, 32))
    q = [float(learning.update()["q"]) for _ in range(300)]
    assert np.mean(q[-50:]) == pytest.approx(worth, rel=0.05)


@given(st.integers(0, 1000), st.integers(2, 20), st.integers(1, 9))
@hypothesis_settings(max_examples=25, deadline=None)
def test_robots_and_trainer_never_both_wait_while_windows_wait_for_their_steps(seed: int, n: int, u: int) -> None:
    # Long episodes, little room: what waits in windows must not be what both wait for.
    limiter = Limiter(updates_per_step=u / 3, start_steps=1, slack_steps=1, room_records=2)
    rng, assembler, updates, transitions_, credit = np.random.default_rng(seed), Assembler(n, GAMMA), 0, 0, 0
    long = np.concatenate([episode(45, EpisodeEnd.TIME_LIMIT, i + 1, 46 * i) for i in range(2)])
    runs = {"a": long, "b": long}
    at = dict.fromkeys(runs, 0)
    while any(at[boot] < len(run) for boot, run in runs.items()):
        credit = max(credit, limiter.credit_total(assembler.records, transitions_, updates))
        allowed = limiter.updates_allowed(transitions_, updates)
        room = credit - assembler.records
        assert allowed or room >= 1, "both wait"
        updates += int(rng.integers(0, allowed + 1)) if room >= 1 else allowed
        open_boots = [boot for boot, run in runs.items() if at[boot] < len(run)]
        boot = open_boots[rng.integers(len(open_boots))]
        piece = runs[boot][at[boot] : at[boot] + min(room, int(rng.integers(1, 4)))]
        at[boot] += len(piece)
        transitions_ += len(assembler.add(LoggedBatch(1, "r", boot, piece))[0])
        waiting = limiter.slack_steps + np.ceil(3 / u) + limiter.room_records + (n - 1) * len(runs)
        assert transitions_ - limiter.start_steps - np.floor(updates / limiter.updates_per_step) <= waiting
