"""Records to transitions: what may be paired, and what may be bootstrapped from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robotsac.records import EpisodeEnd, Flag, record_dtype, transitions

OBS, ACT = 3, 2


def episode(number: int, steps: int, end: EpisodeEnd, first_seq: int) -> np.ndarray:
    """Steps + 1 self-describing records: obs[0] is the episode, obs[1] the step."""
    records = np.zeros(steps + 1, dtype=record_dtype(OBS, ACT))
    records["seq"] = first_seq + np.arange(steps + 1)
    records["episode"] = number
    records["obs"][:, 0] = number
    records["obs"][:, 1] = np.arange(steps + 1)
    records["action_applied"][:, 0] = np.arange(steps + 1) + 0.5
    records["action_asked"] = 99.0
    records["reward"] = 100 * number + np.arange(steps + 1)
    records["end"][-1] = end
    records["flags"][-1] = Flag.FINAL
    return records


@pytest.mark.parametrize(
    ("end", "pairs", "terminal"),
    [
        (EpisodeEnd.SUCCESS, 4, 1.0),
        (EpisodeEnd.FAILURE, 4, 1.0),
        (EpisodeEnd.TIME_LIMIT, 4, 0.0),
        (EpisodeEnd.OPERATOR, 4, 0.0),
        (EpisodeEnd.FAULT, 3, 0.0),
    ],
)
def test_how_an_episode_ended_decides_what_the_learner_does(end, pairs, terminal):
    result = transitions(episode(1, 4, end, 0))
    assert len(result) == pairs
    assert result.terminal[-1] == terminal
    assert not result.terminal[:-1].any()
    if end is not EpisodeEnd.FAULT:
        assert result.next_obs[-1, 1] == 4, "bootstraps from the true final observation"


def test_it_trains_on_what_was_applied_not_on_what_was_asked():
    np.testing.assert_array_equal(transitions(episode(1, 3, EpisodeEnd.SUCCESS, 0)).action[:, 0], [0.5, 1.5, 2.5])


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6), dropped=st.sets(st.integers(0, 30)))
def test_no_pair_crosses_an_episode_or_a_gap(lengths, dropped):
    seq, parts = 0, []
    for number, steps in enumerate(lengths, 1):
        parts.append(episode(number, steps, EpisodeEnd.TIME_LIMIT, seq))
        seq += steps + 1
    records = np.concatenate(parts)
    records = records[~np.isin(records["seq"], sorted(dropped))]
    result = transitions(records)
    np.testing.assert_array_equal(result.obs[:, 0], result.next_obs[:, 0])
    np.testing.assert_array_equal(result.obs[:, 1] + 1, result.next_obs[:, 1])
    if not dropped:
        assert len(result) == sum(lengths)


@pytest.mark.parametrize("field", ["obs", "reward", "action_applied"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_not_finite_never_reaches_the_replay(field, bad):
    records = episode(1, 4, EpisodeEnd.TIME_LIMIT, 0)
    records[field][2] = bad
    result = transitions(records)
    for values in (result.obs, result.action, result.reward, result.next_obs):
        assert np.isfinite(values).all()
    assert len(result) < 4


def test_the_result_does_not_alias_the_records():
    records = episode(1, 4, EpisodeEnd.TIME_LIMIT, 0)
    result = transitions(records)
    records["obs"] = -1.0
    assert (result.obs >= 0).all()


def test_flags_of_an_episode_end_map_to_gymnasiums():
    assert [end.name for end in EpisodeEnd if end.terminated] == ["SUCCESS", "FAILURE"]
    assert [end.name for end in EpisodeEnd if end.truncated] == ["TIME_LIMIT", "OPERATOR", "FAULT"]
