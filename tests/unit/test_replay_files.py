"""The replay on disk: whatever was appended between checkpoints, what is read is what was there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robotsac.errors import CheckpointError
from robotsac.learner import replay_files
from robotsac.learner.replay import Replay
from robotsac.learner.replay_files import ReplayFiles
from robotsac.records import Transitions

CPU = torch.device("cpu")


def ring(capacity: int, with_steps: bool = False) -> Replay:
    return Replay(capacity, 2, 1, CPU, torch.Generator().manual_seed(0), with_steps=with_steps)


def append(replay: Replay, count: int) -> None:
    """Transitions that say their number, one call each."""
    for number in range(replay.total, replay.total + count):
        obs = np.full((1, 2), number, np.float32)
        one = np.zeros(1, np.float32)
        steps = one + 1 if replay.rows(replay.total, replay.total).shape[1] == 8 else None
        replay.append(Transitions(obs, obs[:, :1], one, obs + 1, one, steps))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.lists(st.integers(0, 45), min_size=1, max_size=6), st.booleans())
def test_what_is_read_is_the_ring_that_was_written(tmp_path_factory, capacity, counts, with_steps):
    folder = tmp_path_factory.mktemp("replay")
    before = replay_files.ROWS_MIN
    replay_files.ROWS_MIN = 8
    try:
        replay, files = ring(capacity, with_steps), ReplayFiles(folder)
        for count in counts:
            append(replay, count)
            made = files.write(replay)
            files.keep(made)
            again = ring(capacity, with_steps)
            ReplayFiles(folder).read(again, made, replay.total)
            assert again.total == replay.total
            kept = (replay.oldest, replay.total)
            assert torch.equal(again.rows(*kept), replay.rows(*kept))
            assert len(made) <= len(replay) // 8 + 2, "the files stay few"
            assert {path.name for path in folder.glob("*")} == {rows.name for rows in made}
    finally:
        replay_files.ROWS_MIN = before


def test_a_checkpoint_writes_what_is_new_and_nothing_that_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(replay_files, "ROWS_MIN", 10)
    replay, files = ring(1000), ReplayFiles(tmp_path)
    spans = []
    for count in (4, 8, 0, 5):
        append(replay, count)
        spans.append([(rows.first, rows.end) for rows in files.write(replay)])
    assert spans == [[(0, 4)], [(0, 12)], [(0, 12)], [(0, 12), (12, 17)]]


def test_a_file_that_is_damaged_or_gone_is_refused_in_words(tmp_path):
    replay, files = ring(10), ReplayFiles(tmp_path / "replay")
    append(replay, 7)
    (made,) = files.write(replay)
    path = tmp_path / "replay" / made.name
    data = path.read_bytes()
    for spoil in (lambda: path.write_bytes(data[:-1] + b"?"), path.unlink):
        spoil()
        with pytest.raises(CheckpointError, match=r"the replay in .* is damaged"):
            ReplayFiles(tmp_path / "replay").read(ring(10), (made,), 7)


@pytest.mark.parametrize("parts", [[], [(1, 6)], [(0, 6)], [(0, 8)]])
def test_a_ring_is_not_filled_with_more_or_less_than_there_was(parts):
    with pytest.raises(ValueError):
        ring(10).refill(7, ((first, torch.zeros(end - first, 7)) for first, end in parts))


def test_rows_that_are_not_there_are_not_given():
    replay = ring(5)
    append(replay, 8)
    assert replay.oldest == 3
    np.testing.assert_array_equal(replay.rows(3, 8)[:, 0], [3, 4, 5, 6, 7])
    for first, end in ((2, 8), (3, 9), (5, 4)):
        with pytest.raises(ValueError):
            replay.rows(first, end)
