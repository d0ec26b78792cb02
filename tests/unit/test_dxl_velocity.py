"""Velocity from quantised positions, against motions whose velocity is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from robotsac_hardware.control_table import RAD_PER_COUNT
from robotsac_hardware.velocity import SlopeVelocity, round_distance

PERIOD_S = 0.004
WINDOW = 8
DELAY_S = (WINDOW - 1) * PERIOD_S / 2
ALL = np.ones(1, dtype=np.bool_)
NONE = np.zeros(1, dtype=np.bool_)
REGISTER = np.array([123.0])


def estimator() -> SlopeVelocity:
    return SlopeVelocity(1, WINDOW, age_max_s=2 * WINDOW * PERIOD_S)


def quantised(q: float) -> NDArray[np.float64]:
    return np.array([round(q / RAD_PER_COUNT) * RAD_PER_COUNT])


def test_the_register_is_used_until_four_rounds_count() -> None:
    velocity = estimator()
    taken = [velocity.update(np.array([0.01 * k]), PERIOD_S, ALL, REGISTER)[0] for k in range(5)]
    assert taken[:3] == [123.0] * 3
    np.testing.assert_allclose(taken[3:], 2.5)


@pytest.mark.parametrize("speed", [-2.5, -0.01, 0.0, 0.3, 6.0])
def test_constant_speed_is_found_without_bias(speed: float) -> None:
    velocity = estimator()
    taken = [velocity.update(np.array([1 + speed * k * PERIOD_S]), PERIOD_S, ALL, REGISTER)[0] for k in range(40)]
    np.testing.assert_allclose(taken[3:], speed, atol=1e-9)


def test_uneven_rounds_do_not_matter() -> None:
    velocity, t, generator = estimator(), 0.0, np.random.default_rng(0)
    for _ in range(60):
        distance = float(generator.uniform(0.001, 0.009))
        t += distance
        dq = velocity.update(np.array([1.7 * t]), distance, ALL, REGISTER)
    np.testing.assert_allclose(dq, 1.7)


def test_quantisation_noise_is_what_the_docstring_says() -> None:
    velocity, errors = estimator(), []
    for k in range(4000):
        dq = velocity.update(quantised(0.3137 * k * PERIOD_S), PERIOD_S, ALL, REGISTER)
        errors.append(dq[0] - 0.3137)
    assert np.std(errors[WINDOW:]) < 0.02
    assert np.max(np.abs(errors[WINDOW:])) < 0.075


def test_a_joint_at_rest_that_moves_by_one_count_stays_below_the_rest_threshold() -> None:
    velocity = estimator()
    taken = [velocity.update(quantised(RAD_PER_COUNT * (k > 20)), PERIOD_S, ALL, REGISTER)[0] for k in range(60)]
    assert max(taken[4:]) == pytest.approx(0.073, abs=0.001)


def test_delay_is_half_the_window() -> None:
    velocity, omega, amplitude = estimator(), 2 * math.pi * 2.0, 0.4
    for k in range(400):
        t = k * PERIOD_S
        dq = velocity.update(quantised(amplitude * math.sin(omega * t)), PERIOD_S, ALL, REGISTER)[0]
        if k > WINDOW:
            assert dq == pytest.approx(amplitude * omega * math.cos(omega * (t - DELAY_S)), abs=0.1)


def test_after_a_gap_the_estimate_starts_anew() -> None:
    velocity = estimator()
    for k in range(20):
        velocity.update(np.array([0.01 * k]), PERIOD_S, ALL, REGISTER)
    assert velocity.update(np.array([3.0]), 1.0, ALL, REGISTER)[0] == 123.0


def test_rounds_that_are_too_old_do_not_count() -> None:
    velocity, q = estimator(), 0.0
    for speed, distance in [(5.0, PERIOD_S)] * 8 + [(1.0, 0.02)] * 5:
        q += speed * distance
        dq = velocity.update(np.array([q]), distance, ALL, REGISTER)
    assert dq[0] == pytest.approx(1.0)


def test_a_silent_joint_keeps_its_velocity_and_does_not_disturb_it_when_it_returns() -> None:
    velocity = estimator()
    for k in range(40):
        fresh = NONE if k in (20, 21, 22) else ALL
        q = np.array([0.008 * (19 if k in (20, 21, 22) else k)])
        dq = velocity.update(q, PERIOD_S, fresh, REGISTER)
        if k > 3:
            assert dq[0] == pytest.approx(2.0)


def test_a_joint_silent_for_longer_than_the_window_starts_from_its_register() -> None:
    velocity = estimator()
    for _ in range(10):
        velocity.update(np.array([0.0]), PERIOD_S, ALL, REGISTER)
    for _ in range(WINDOW + 2):
        velocity.update(np.array([0.0]), PERIOD_S, NONE, REGISTER)
    assert velocity.update(np.array([1.0]), PERIOD_S, ALL, REGISTER)[0] == pytest.approx(123.0)


def test_one_silent_joint_does_not_touch_the_others() -> None:
    velocity = SlopeVelocity(2, WINDOW, age_max_s=1.0)
    for k in range(30):
        fresh = np.array([True, k % 3 != 0])
        dq = velocity.update(np.array([0.004 * k, 0.0]), PERIOD_S, fresh, np.zeros(2))
    np.testing.assert_allclose(dq, [1.0, 0.0], atol=1e-9)


def test_two_rounds_at_the_same_moment_do_no_harm() -> None:
    velocity = estimator()
    for _ in range(10):
        assert np.isfinite(velocity.update(np.array([0.5]), 0.0, ALL, REGISTER)).all()


def test_a_window_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="3 < 4"):
        SlopeVelocity(1, 3, 1.0)


@pytest.mark.parametrize(
    ("host_s", "ticks", "wanted_s"),
    [
        (0.0043, (4, 4), 0.0043),  # finer than the tick
        (0.0090, (4, 5), 0.0050),  # the host was preempted before it wrote: servos say at most 5 ms
        (0.0004, (4, 5), 0.0040),  # and the round after: at least 4 ms
        (0.0043, (4, 9), 0.0043),  # servos that contradict each other correct nothing
    ],
)
def test_round_distance_is_the_hosts_within_what_the_ticks_allow(
    host_s: float, ticks: tuple[int, int], wanted_s: float
) -> None:
    assert round_distance(host_s, *ticks) == pytest.approx(wanted_s)
