"""Time, and the schedule on it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robotsac.clock import ManualClock, MonotonicClock, Pacer

PERIOD_NS = 4_000_000


def test_manual_clock_passes_only_when_told():
    seen = []
    clock = ManualClock(5, seen.append)
    clock.idle()
    assert clock.now_ns() == 5
    clock.sleep_until(3)
    assert clock.now_ns() == 5
    clock.advance(10)
    assert clock.now_ns() == 15
    assert seen == [15]


def test_monotonic_clock_returns_at_or_after_the_deadline():
    clock = MonotonicClock()
    target = clock.now_ns() + 2_000_000
    clock.sleep_until(target)
    assert clock.now_ns() >= target


@pytest.mark.parametrize("period", [0, -1])
def test_a_period_must_be_positive(period):
    with pytest.raises(ValueError, match="period_ns"):
        Pacer(ManualClock(), period)


def test_on_time_ticks_keep_the_grid():
    clock = ManualClock()
    pacer = Pacer(clock, PERIOD_NS)
    for tick in range(1, 10):
        clock.advance(PERIOD_NS // 3)
        assert pacer.wait() == 0
        assert clock.now_ns() == tick * PERIOD_NS


@given(late_ns=st.integers(0, 100 * PERIOD_NS))
def test_a_late_tick_skips_to_the_grid_and_is_counted(late_ns):
    clock = ManualClock()
    pacer = Pacer(clock, PERIOD_NS)
    clock.advance(PERIOD_NS + late_ns)
    missed = pacer.wait()
    assert missed == late_ns // PERIOD_NS
    assert pacer.skipped == missed
    assert pacer.deadline_ns % PERIOD_NS == 0
    assert pacer.deadline_ns <= clock.now_ns() < pacer.deadline_ns + PERIOD_NS
    assert pacer.wait() == 0, "never a burst to catch up"
    assert clock.now_ns() == pacer.deadline_ns
