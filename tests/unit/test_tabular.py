"""The exact oracle, held against hand-computed numbers and the theorems it stands for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robotsac.learner.tabular import (
    FiniteMdp,
    Step,
    evaluate_by_monte_carlo,
    evaluate_by_sweeps,
    evaluate_by_td0,
    rollout,
    soft_evaluation,
    soft_improvement,
    soft_maximum,
    soft_optimal_operator,
    soft_optimal_value,
    soft_policy_iteration,
)

# The graph: start 0 goes left to 1 or right to 2; 1 goes on to 3 for 2, 2 falls back to 0 half of the time and reaches 4
# else; 3 and 4 end in 5 for 4 and 10.
#
#        ┌─ 1 ──2──► 3 ──4──┐
#     0 ─┤                  ├─► 5
#        └─ 2 ──0──► 4 ─10──┘
#           └─ ½ ─► 0
GAMMA = 0.5


def graph() -> FiniteMdp:
    transition = np.zeros((6, 2, 6))
    reward = np.zeros((6, 2))
    transition[0, 0, 1] = transition[0, 1, 2] = 1.0
    transition[1, :, 3], reward[1] = 1.0, 2.0
    transition[2, :, 0] = transition[2, :, 4] = 0.5
    transition[3, :, 5], reward[3] = 1.0, 4.0
    transition[4, :, 5], reward[4] = 1.0, 10.0
    transition[5, :, 5] = 1.0
    return FiniteMdp(transition, reward, GAMMA, terminal=np.array([0, 0, 0, 0, 0, 1], dtype=bool))


UNIFORM = np.full((6, 2), 0.5)
# By hand. V3 = 4, V4 = 10, V1 = 2 + ½·4 = 4, V2 = ½(½ V0 + ½·10) = ¼ V0 + 2.5, V0 = ½(½ V1 + ½ V2).
V0 = (0.25 * 4 + 0.25 * 2.5) / (1 - 0.25 * 0.25)
BY_HAND = np.array([V0, 4.0, 0.25 * V0 + 2.5, 4.0, 10.0, 0.0])


def random_mdp(seed: int, states: int = 5, actions: int = 3, discount: float = 0.9) -> FiniteMdp:
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(states, 0.5), size=(states, actions))
    terminal = rng.random(states) < 0.2
    return FiniteMdp(transition, rng.normal(size=(states, actions)), discount, terminal)


# ---- the worked example ------------------------------------------------------------------------------------------------


def test_dynamic_programming_on_the_graph():
    assert soft_evaluation(graph(), UNIFORM, alpha=0.0)[1] == pytest.approx(BY_HAND)


def test_each_sweep_of_iterative_evaluation_looks_one_step_further():
    assert evaluate_by_sweeps(graph(), UNIFORM, 1) == pytest.approx([0, 2, 0, 4, 10, 0])
    assert evaluate_by_sweeps(graph(), UNIFORM, 2) == pytest.approx([0.5, 4, 2.5, 4, 10, 0])
    assert evaluate_by_sweeps(graph(), UNIFORM, 100) == pytest.approx(BY_HAND)


def test_monte_carlo_averages_the_returns_behind_first_visits():
    left = [Step(0, 0, 1, False), Step(1, 2, 3, False), Step(3, 4, 5, True)]
    twice = [
        Step(0, 0, 2, False),
        Step(2, 0, 0, False),
        Step(0, 0, 2, False),
        Step(2, 0, 4, False),
        Step(4, 10, 5, True),
    ]
    value = evaluate_by_monte_carlo([left, twice], 6, GAMMA)
    # Returns from the first visit of 0: ½·2 + ¼·4 = 2, and 10/16.
    assert value[:5] == pytest.approx([(2 + 10 / 16) / 2, 4, 10 / 8, 4, 10])
    assert np.isnan(value[5])


def test_td0_moves_each_state_towards_its_successor():
    steps = [Step(0, 0, 1, False), Step(1, 2, 3, False), Step(3, 4, 5, True)]
    once = evaluate_by_td0(steps, 6, GAMMA, step_size=0.5)
    assert once == pytest.approx([0, 1, 0, 2, 0, 0])
    twice = evaluate_by_td0(steps, 6, GAMMA, 0.5, once)
    # V0 += ½(½·1 − 0); V1 += ½(2 + ½·2 − 1); V3 += ½(4 − 2).
    assert twice == pytest.approx([0.25, 2, 0, 3, 0, 0])
    assert once == pytest.approx([0, 1, 0, 2, 0, 0]), "the argument is not changed"


def test_td0_bootstraps_where_an_episode_was_cut_and_not_where_it_ended():
    start = np.array([0.0, 0.0, 8.0])
    assert evaluate_by_td0([Step(0, 1, 2, False)], 3, GAMMA, 1.0, start)[0] == 5.0
    assert evaluate_by_td0([Step(0, 1, 2, True)], 3, GAMMA, 1.0, start)[0] == 1.0


def test_monte_carlo_refuses_an_episode_that_is_cut():
    with pytest.raises(ValueError, match="whole episodes"):
        evaluate_by_monte_carlo([[Step(0, 1, 1, False)]], 2, GAMMA)


def test_monte_carlo_and_td0_arrive_at_the_value_of_dynamic_programming():
    rng = np.random.default_rng(3)
    episodes = [rollout(graph(), UNIFORM, 0, 1000, rng) for _ in range(4000)]
    value = evaluate_by_monte_carlo(episodes, 6, GAMMA)
    assert value[:5] == pytest.approx(BY_HAND[:5], abs=0.08)
    td = np.zeros(6)
    for size in (0.1, 0.02, 0.004):
        td = evaluate_by_td0((step for episode in episodes for step in episode), 6, GAMMA, size, td)
    assert td == pytest.approx(BY_HAND, abs=0.1)


def test_greedy_policy_iteration_takes_the_better_way():
    solution = soft_policy_iteration(graph(), alpha=0.0)
    # Left is worth ½·4 = 2; right ½(¼ V0 + 2.5): 1.45 at V0 = 2. So left.
    assert solution.policy[0] == pytest.approx([1, 0])
    assert solution.value[0] == pytest.approx(2.0)


# ---- the theorems ------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), alpha=st.floats(0.01, 3.0))
def test_soft_policy_improvement_never_makes_any_state_worse(seed, alpha):
    """Lemma 2 (Haarnoja et al. 2018a), for every state and action, from a random policy."""
    mdp = random_mdp(seed)
    policy = np.random.default_rng(seed + 1).dirichlet(np.ones(3), size=5)
    q, value = soft_evaluation(mdp, policy, alpha)
    better_q, better_value = soft_evaluation(mdp, soft_improvement(q, alpha), alpha)
    assert (better_q >= q - 1e-9).all()
    assert (better_value >= value - 1e-9).all()


@given(seed=st.integers(0, 10_000), alpha=st.sampled_from([0.0, 0.05, 0.5, 2.0]))
def test_soft_policy_iteration_ends_in_the_fixed_point_of_the_optimal_operator(seed, alpha):
    mdp = random_mdp(seed)
    solution = soft_policy_iteration(mdp, alpha)
    assert solution.value == pytest.approx(soft_optimal_value(mdp, alpha), abs=1e-9)
    assert soft_optimal_operator(mdp, solution.value, alpha) == pytest.approx(solution.value, abs=1e-9)
    steps = np.diff(np.array(solution.history), axis=0)
    assert (steps >= -1e-9).all(), "monotone all the way"


@pytest.mark.parametrize("discount", [0.999, 1.0 - 1e-7])
def test_soft_policy_iteration_ends_where_rounding_is_all_that_still_changes(discount):
    mdp = dataclasses.replace(random_mdp(4), discount=discount)
    solution = soft_policy_iteration(mdp, 0.5)
    assert len(solution.history) < 30
    again = soft_optimal_operator(mdp, solution.value, 0.5)
    assert again == pytest.approx(solution.value, rel=1e-6)


@given(seed=st.integers(0, 10_000), alpha=st.floats(0.0, 2.0))
def test_the_optimal_operator_contracts_by_the_discount(seed, alpha):
    mdp, rng = random_mdp(seed), np.random.default_rng(seed)
    one, other = rng.normal(size=(2, 5), scale=10.0)
    apart = np.abs(soft_optimal_operator(mdp, one, alpha) - soft_optimal_operator(mdp, other, alpha)).max()
    assert apart <= mdp.discount * np.abs(one - other).max() + 1e-12


@given(seed=st.integers(0, 10_000), alpha=st.floats(0.05, 3.0))
def test_soft_evaluation_is_the_fixed_point_of_the_soft_bellman_operator(seed, alpha):
    mdp = random_mdp(seed)
    policy = np.random.default_rng(seed + 1).dirichlet(np.ones(3), size=5)
    q, value = soft_evaluation(mdp, policy, alpha)
    for state in range(5):
        expected = 0.0 if mdp.terminal[state] else (policy[state] @ (q[state] - alpha * np.log(policy[state])))
        assert value[state] == pytest.approx(expected, abs=1e-9)
        for action in range(3):
            after = mdp.transition[state, action] @ (value * ~mdp.terminal)
            wanted = 0.0 if mdp.terminal[state] else mdp.reward[state, action] + mdp.discount * after
            assert q[state, action] == pytest.approx(wanted, abs=1e-9)


def test_the_soft_maximum_tends_to_the_maximum_and_adds_the_log_of_the_number_of_actions():
    q = np.array([[1.0, 2.0, 3.0]])
    assert soft_maximum(q, 1e-3) == pytest.approx([3.0])
    assert soft_maximum(q, 0.0) == pytest.approx([3.0])
    assert soft_maximum(np.full((1, 4), 5.0), 2.0) == pytest.approx([5.0 + 2.0 * np.log(4)])
    assert np.isfinite(soft_maximum(1e5 * q, 1.0)).all()


def test_an_mdp_that_is_none_is_refused():
    reward = np.zeros((2, 1))
    with pytest.raises(ValueError, match="shape"):
        FiniteMdp(np.zeros((2, 2, 2)), reward, 0.9)
    with pytest.raises(ValueError, match="sum to 1"):
        FiniteMdp(np.zeros((2, 1, 2)), reward, 0.9)
    with pytest.raises(ValueError, match="discount"):
        FiniteMdp(np.full((2, 1, 2), 0.5), reward, 1.0)
    with pytest.raises(ValueError, match="negative"):
        soft_policy_iteration(FiniteMdp(np.full((2, 1, 2), 0.5), reward, 0.9), alpha=-1.0)
