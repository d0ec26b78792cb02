"""Soft policy iteration on finite MDPs, exactly: what the deep learner is held against, and the theory in numbers.

Everything is in float64 and shaped by states first: transition P (S, A, S), reward r (S, A), policy π (S, A), Q (S, A),
V (S,). A state that ends the episode is absorbing with reward 0 and marked in ``terminal``: it has value 0 and no
entropy, as in the deep learner's targets.

    evaluation     Q_π = r + γ P V_π,  V_π(s) = Σ_a π(a|s) (Q_π(s,a) − α log π(a|s))     Haarnoja et al. 2018a, lemma 1
    improvement    π'(·|s) ∝ exp(Q_π(s,·)/α)                                              lemma 2
    iteration      both in turn until nothing changes                                     theorem 1
    operator       T_α V(s) = α log Σ_a exp((r(s,a) + γ Σ_s' P V(s'))/α)                  Haarnoja et al. 2017, theorem 3

α = 0 is ordinary dynamic programming: greedy improvement and the Bellman optimality operator (Sutton and Barto 2018,
chapter 4). Monte Carlo and TD(0) evaluation (chapters 5.1 and 6.1) estimate V from episodes instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ITERATIONS_MAX = 100_000
ROUNDING = 1e-14
"""Of a linear system whose condition grows with 1/(1 − γ), as a share of V."""


@dataclass(frozen=True, slots=True)
class FiniteMdp:
    """A Markov decision process with S states and A actions.

    Args:
        transition: P (S, A, S), rows sum to 1.
        reward: expected r (S, A).
        discount: γ in [0, 1).
        terminal: (S,) bool, where an episode ends; default none.

    Raises:
        ValueError: shapes or probabilities that do not fit.
    """

    transition: Array
    reward: Array
    discount: float
    terminal: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        states, actions = self.reward.shape
        if self.transition.shape != (states, actions, states):
            raise ValueError(f"transition has shape {self.transition.shape}, not {(states, actions, states)}")
        if (self.transition < 0).any() or not np.allclose(self.transition.sum(axis=2), 1.0):
            raise ValueError("transition rows must be probabilities that sum to 1")
        if not 0.0 <= self.discount < 1.0:
            raise ValueError(f"discount {self.discount} is not in [0, 1)")
        if self.terminal is not None and self.terminal.shape != (states,):
            raise ValueError(f"terminal has shape {self.terminal.shape}, not {(states,)}")

    @property
    def alive(self) -> Array:
        """(S,) 0 where an episode ends, else 1."""
        ends = np.zeros(len(self.reward)) if self.terminal is None else self.terminal.astype(np.float64)
        alive: Array = 1.0 - ends
        return alive

    def backup(self, value: Array) -> Array:
        """Q = r + γ P V (S, A); nothing comes out of a terminal state."""
        q: Array = (self.reward + self.discount * self.transition @ (self.alive * value)) * self.alive[:, None]
        return q


@dataclass(frozen=True, slots=True)
class SoftSolution:
    """A policy π (S, A), its soft Q (S, A) and V (S,), and the V of every policy on the way there, oldest first."""

    policy: Array
    q: Array
    value: Array
    history: tuple[Array, ...]


def soft_evaluation(mdp: FiniteMdp, policy: Array, alpha: float) -> tuple[Array, Array]:
    """``(Q_π, V_π)``, the fixed point of the soft Bellman operator of ``policy``, by one linear solve.

    Source: Haarnoja et al. 2018a, eqs. 2 and 3 and lemma 1.
    """
    alive = mdp.alive
    entropy = -(policy * _log(policy)).sum(axis=1)
    income = ((policy * mdp.reward).sum(axis=1) + alpha * entropy) * alive
    moves = np.einsum("sa,sat->st", policy, mdp.transition) * alive[:, None] * alive[None, :]
    value: Array = np.linalg.solve(np.eye(len(income)) - mdp.discount * moves, income)
    return mdp.backup(value), value


def soft_improvement(q: Array, alpha: float) -> Array:
    """π'(a|s) = exp(Q/α) / Z(s) (Haarnoja et al. 2018a, eq. 4 over all distributions); α = 0: greedy, the first best."""
    if alpha == 0.0:
        greedy: Array = np.eye(q.shape[1])[q.argmax(axis=1)]
        return greedy
    with np.errstate(over="ignore"):
        weights = np.exp((q - q.max(axis=1, keepdims=True)) / alpha)
    policy: Array = weights / weights.sum(axis=1, keepdims=True)
    return policy


def soft_policy_iteration(
    mdp: FiniteMdp, alpha: float, policy: Array | None = None, tol: float = 1e-12
) -> SoftSolution:
    """Evaluation and improvement in turn until V changes by no more than ``tol`` (Haarnoja et al. 2018a, theorem 1).

    Args:
        mdp: to be solved.
        alpha: temperature ≥ 0.
        policy: to begin with, (S, A); default uniform.
        tol: largest change of V, as a share of its largest value where that is above 1, that counts as none; near γ = 1
            not less than what solving for V rounds off.

    Raises:
        ValueError: a negative temperature.
        ArithmeticError: no convergence.
    """
    if alpha < 0.0:
        raise ValueError(f"alpha {alpha} is negative")
    if policy is None:
        policy = np.full(mdp.reward.shape, 1.0 / mdp.reward.shape[1])
    tol = max(tol, ROUNDING / (1.0 - mdp.discount))
    q, value = soft_evaluation(mdp, policy, alpha)
    history = [value]
    for _ in range(ITERATIONS_MAX):
        policy = soft_improvement(q, alpha)
        q, value = soft_evaluation(mdp, policy, alpha)
        history.append(value)
        if np.abs(value - history[-2]).max() <= tol * max(1.0, np.abs(value).max()):
            return SoftSolution(policy, q, value, tuple(history))
    raise ArithmeticError(f"soft policy iteration did not converge in {ITERATIONS_MAX} iterations")


def soft_optimal_operator(mdp: FiniteMdp, value: Array, alpha: float) -> Array:
    """T_α V, (S,) → (S,): a γ-contraction in the maximum norm (Haarnoja et al. 2017, theorem 3; α = 0: max)."""
    return soft_maximum(mdp.backup(value), alpha) * mdp.alive


def soft_optimal_value(mdp: FiniteMdp, alpha: float, tol: float = 1e-12) -> Array:
    """The fixed point of T_α by iteration, within ``tol`` of it, as a share of its largest value where that is above 1 (the
    contraction bounds what is left).

    Raises:
        ArithmeticError: no convergence.
    """
    value = np.zeros(len(mdp.reward))
    for _ in range(ITERATIONS_MAX):
        after = soft_optimal_operator(mdp, value, alpha)
        left = np.abs(after - value).max() * mdp.discount / (1.0 - mdp.discount)
        value = after
        if left <= tol * max(1.0, np.abs(value).max()):
            return value
    raise ArithmeticError(f"soft value iteration did not converge in {ITERATIONS_MAX} iterations")


def soft_maximum(q: Array, alpha: float) -> Array:
    """α log Σ_a exp(Q/α) along the last axis, stable; α = 0: the maximum."""
    most = q.max(axis=-1)
    if alpha == 0.0:
        return np.asarray(most)
    with np.errstate(over="ignore"):  # a difference that is huge in units of α is -inf, and its exp 0, as it should be
        rest = np.exp((q - most[..., None]) / alpha).sum(axis=-1)
    return np.asarray(most + alpha * np.log(rest))


def evaluate_by_sweeps(mdp: FiniteMdp, policy: Array, sweeps: int) -> Array:
    """V_π after ``sweeps`` of iterative policy evaluation from V = 0, all states at once; (S,).

    Source: Sutton and Barto 2018, section 4.1.
    """
    value = np.zeros(len(mdp.reward))
    for _ in range(sweeps):
        value = (policy * mdp.backup(value)).sum(axis=1)
    return value


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an episode: the state, the reward for leaving it, the state it led to, whether that ended it."""

    state: int
    reward: float
    next_state: int
    terminal: bool


def evaluate_by_monte_carlo(episodes: Iterable[Sequence[Step]], states: int, discount: float) -> Array:
    """First-visit Monte Carlo: V(s) = mean return after the first visit of each episode; NaN where none came.

    Only whole episodes have a return: one whose last step did not end it is refused (Sutton and Barto 2018, section 5.1).

    Raises:
        ValueError: an episode that is cut short.
    """
    total, visits = np.zeros(states), np.zeros(states)
    for episode in episodes:
        if not episode or not episode[-1].terminal:
            raise ValueError("Monte Carlo needs whole episodes; this one does not end in a terminal state")
        first: dict[int, float] = {}
        income = 0.0
        for step in reversed(episode):
            income = step.reward + discount * income
            first[step.state] = income
        for state, value in first.items():
            total[state] += value
            visits[state] += 1
    mean: Array = np.divide(total, visits, out=np.full(states, np.nan), where=visits > 0)
    return mean


def evaluate_by_td0(
    steps: Iterable[Step], states: int, discount: float, step_size: float, value: Array | None = None
) -> Array:
    """TD(0): V(s) ← V(s) + η (r + γ V(s') − V(s)), one step after the other (Sutton and Barto 2018, section 6.1).

    A terminal s' is worth 0; a step at which an episode was merely cut is like any other.

    Args:
        steps: in the order they happened.
        states: S.
        discount: γ.
        step_size: η.
        value: to begin with, (S,); default 0. Not changed.
    """
    value = np.zeros(states) if value is None else value.copy()
    for step in steps:
        bootstrap = 0.0 if step.terminal else discount * value[step.next_state]
        value[step.state] += step_size * (step.reward + bootstrap - value[step.state])
    return value


def rollout(mdp: FiniteMdp, policy: Array, state: int, steps_max: int, rng: np.random.Generator) -> list[Step]:
    """One episode of ``policy`` from ``state``; cut, not ended, after ``steps_max``."""
    steps: list[Step] = []
    ends = np.zeros(len(mdp.reward), dtype=bool) if mdp.terminal is None else mdp.terminal
    while len(steps) < steps_max and not ends[state]:
        action = rng.choice(policy.shape[1], p=policy[state])
        after = int(rng.choice(len(ends), p=mdp.transition[state, action]))
        steps.append(Step(state, float(mdp.reward[state, action]), after, bool(ends[after])))
        state = after
    return steps


def _log(probability: Array) -> Array:
    """log p where p > 0, else 0: p log p tends to 0."""
    logarithm: Array = np.log(probability, out=np.zeros_like(probability), where=probability > 0)
    return logarithm
