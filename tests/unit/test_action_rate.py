"""How rough actions are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from robotsac.action_rate import ActionRate


def test_it_is_the_rms_of_the_changes_within_episodes():
    rate = ActionRate()
    assert rate.rms is None
    rate.add(np.array([0.0, 0.0], np.float32))
    assert rate.rms is None, "one action has not changed yet"
    rate.add(np.array([0.3, 0.4], np.float32))
    assert rate.rms == pytest.approx(math.sqrt((0.09 + 0.16) / 2))
    rate.begin()
    rate.add(np.array([-1.0, 1.0], np.float32))  # far from the last one, but of another episode
    rate.add(np.array([-1.0, 1.0], np.float32))
    assert rate.rms == pytest.approx(math.sqrt((0.09 + 0.16) / 4))


def test_an_array_that_is_used_again_is_not_kept():
    rate, action = ActionRate(), np.zeros(1)
    for value in (0.0, 1.0, 0.0):
        action[:] = value
        rate.add(action)
    assert rate.rms == 1.0
