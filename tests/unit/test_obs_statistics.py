"""Statistics of the observations, apart from any learner."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robotsac.learner.networks import Normaliser
from robotsac.learner.obs_statistics import STD_MIN, ObsStatistics


@pytest.mark.parametrize("size", [1, 7, 500])
def test_rows_in_any_portion_give_mean_and_spread_of_all_of_them_even_far_from_zero(size):
    rows = (1e4 + np.random.default_rng(0).standard_normal((500, 3)) * [0.1, 1.0, 10.0]).astype(np.float32)
    statistics, normaliser = ObsStatistics(3, True), Normaliser(3)
    for start in range(0, 500, size):
        statistics.add(rows[start : start + size], normaliser)
    assert statistics.count == 500
    np.testing.assert_allclose(normaliser.mean, rows.astype(np.float64).mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(normaliser.std, rows.astype(np.float64).std(axis=0), rtol=1e-5)


def test_a_channel_that_never_changed_is_not_blown_up_when_it_does():
    statistics, normaliser = ObsStatistics(1, True), Normaliser(1)
    statistics.add(np.full((100, 1), 3.0, np.float32), normaliser)
    assert normaliser.std.tolist() == [pytest.approx(STD_MIN)]
    assert float(normaliser(torch.tensor([[3.5]]))) == pytest.approx(50.0)


def test_nothing_is_kept_where_nobody_asks_and_no_rows_change_nothing():
    off, on, normaliser = ObsStatistics(2, False), ObsStatistics(2, True), Normaliser(2)
    off.add(np.ones((5, 2), np.float32), normaliser)
    on.add(np.zeros((0, 2), np.float32), normaliser)
    assert off.tensors() == {} and off.count == on.count == 0
    assert normaliser.mean.tolist() == [0.0, 0.0] and normaliser.std.tolist() == [1.0, 1.0]


def test_what_is_written_into_its_tensors_is_where_it_goes_on():
    rows = np.random.default_rng(1).standard_normal((60, 2)).astype(np.float32)
    one, other, normalisers = ObsStatistics(2, True), ObsStatistics(2, True), [Normaliser(2), Normaliser(2)]
    one.add(rows[:40], normalisers[0])
    for name, tensor in other.tensors().items():
        tensor.copy_(one.tensors()[name])
    for statistics, normaliser in zip((one, other), normalisers, strict=True):
        statistics.add(rows[40:], normaliser)
    assert torch.equal(normalisers[0].mean, normalisers[1].mean)
    assert torch.equal(normalisers[0].std, normalisers[1].std)
