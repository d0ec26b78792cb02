"""The rate limiter: nobody runs away, and nobody waits for ever."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from learner_world import settings

from robotsac.config.schema import LinkConfig
from robotsac.learner.limiter import Limiter

limiters = st.builds(
    lambda u, s, k, b, n: Limiter.of(
        settings(updates_per_step=u, start_steps=s, slack_steps=k).model_copy(
            update={"link": LinkConfig(batch_records=b, robots_max=n)}
        )
    ),
    st.one_of(st.sampled_from([0.01, 0.1, 1 / 3, 0.5, 1.0, 5.0, 20.0]), st.floats(0.01, 50)),
    st.integers(1, 600),
    st.integers(1, 300),
    st.integers(1, 64),
    st.integers(1, 64),
)


def test_no_update_before_the_start_then_so_many_per_transition() -> None:
    limiter = Limiter(updates_per_step=2.0, start_steps=100, slack_steps=10, room_records=2)
    assert [limiter.updates_allowed(t, 0) for t in (0, 100, 101, 150)] == [0, 0, 2, 100]
    assert limiter.updates_allowed(150, 60) == 40
    assert limiter.updates_allowed(150, 200) == 0


def test_before_the_first_update_credit_covers_the_start_and_no_slack() -> None:
    chosen = settings(start_steps=500, slack_steps=1000)
    credit = Limiter.of(chosen).credit_total(0, 0, 0)
    assert 500 < credit <= 501 + chosen.link.batch_records + chosen.link.robots_max


def test_the_trainer_behind_holds_the_robots_at_the_slack() -> None:
    limiter = Limiter(updates_per_step=1.0, start_steps=100, slack_steps=50, room_records=2)
    assert limiter.credit_total(records=100, transitions=100, updates=0) == 103
    assert limiter.credit_total(records=150, transitions=150, updates=1) == 154
    assert limiter.credit_total(records=150, transitions=150, updates=20) == 173


@given(
    limiters,
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 400), st.floats(0, 1)), max_size=60),
)
@hypothesis_settings(max_examples=300, deadline=None)
def test_in_any_sequence_nobody_runs_away_and_never_do_both_wait(
    limiter: Limiter, turns: list[tuple[int, int, float]]
) -> None:
    durable = transitions = updates = 0
    credit = limiter.credit_total(0, 0, 0)
    for wants, works, yield_ in turns:
        sent = min(wants, credit - durable)  # what ingest lets through
        durable += sent
        transitions += math.floor(sent * yield_)  # some records are ends of episodes
        updates += min(works, limiter.updates_allowed(transitions, updates))
        before, credit = credit, limiter.credit_total(durable, transitions, updates)

        assert credit >= before
        assert updates <= limiter.updates_per_step * max(0, transitions - limiter.start_steps)
        backlog = transitions - limiter.start_steps - math.floor(updates / limiter.updates_per_step)
        assert backlog <= limiter.slack_steps + math.ceil(1 / limiter.updates_per_step) + limiter.room_records
        if limiter.updates_allowed(transitions, updates) == 0:
            assert credit - durable >= limiter.room_records - 1


@given(limiters, st.integers(0, 10**9), st.floats(0, 1))
def test_a_trainer_with_nothing_to_do_always_leaves_every_robot_a_record_and_room_for_a_batch(
    limiter: Limiter, records: int, yield_: float
) -> None:
    transitions = math.floor(records * yield_)
    updates = limiter.updates_allowed(transitions, 0)
    assert limiter.credit_total(records, transitions, updates) - records >= max(1, limiter.room_records - 1)
