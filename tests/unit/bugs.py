"""What the tests of the ten bugs and of exact answers share: learners of which every number can be worked out by hand.

Networks without hidden layers are linear, so a few weights say all of Q and of the policy, and the equations can be written
out once more, row by row in Python floats, without torch and without broadcasting.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from learner_world import ACT_DIM, OBS_DIM, RATE_HZ, contract, settings
from torch import Tensor

from robotsac.actor.episodes import EpisodeRunner
from robotsac.config import load_config
from robotsac.env.arm_env import ArmEnv
from robotsac.learner.algorithm import Noise
from robotsac.learner.checkpoint import SCHEMA, Manifest, learning_tensors, restore
from robotsac.learner.critic import Critic
from robotsac.learner.learning import Learning
from robotsac.learner.replay import Batch
from robotsac.learner.sac import SacState
from robotsac.learner.sync import SyncLearning
from robotsac.policy.runner import Policy
from robotsac.records import Records, record_dtype
from robotsac.shared import RecordRing

CPU = torch.device("cpu")
DISCOUNT, ALPHA = 0.9, 0.5


def lower_learning_rates(state: SacState, factor: float) -> None:
    """Multiply the learning rates of actor and critics."""
    for adam in (state.actor_adam, state.critic_adam):
        adam.param_groups[0]["lr"] *= factor


# --- linear learners ---------------------------------------------------------------------------------------------


def linear(**learn: object) -> dict[str, object]:
    """``[learn]`` for networks without hidden layers, γ = 0.9 and α = 0.5."""
    return {"hidden": (), "discount": DISCOUNT, "temperature": ALPHA} | learn


def known(**learn: object) -> SacState:
    """SAC with linear networks. Target Qs: two that cross. The policy's mean follows the observation; σ = e^-1.5."""
    state = SacState.create(settings(**linear(**learn)).learn, OBS_DIM, ACT_DIM, RATE_HZ, CPU)
    set_q(state.critic, [[0.3, 0.2, -0.1, 0.5, -0.2, 1.0], [-0.4, 0.1, 0.2, -0.3, 0.6, 1.2]])
    set_q(state.target, [[2.0, 0.5, -0.3, 1.0, -0.7, 0.0], [-1.0, 0.2, 0.4, -0.5, 2.0, 1.0]])
    with torch.no_grad():
        state.actor.last.weight.zero_()
        state.actor.last.weight[:ACT_DIM] = torch.tensor([[0.8, -0.3, 0.1], [-0.5, 0.4, 0.2]])
        state.actor.last.bias.copy_(torch.tensor([0.1, -0.2, 0.0, 0.0]))
    return state


def set_q(critic: Critic, rows: Sequence[Sequence[float]]) -> None:
    """Q_i(s, a) = the first numbers of row i · (s, a) + the last one; of a critic without hidden layers."""
    weights = torch.tensor(rows)
    with torch.no_grad():
        critic.layers[0].weight.copy_(weights[:, :-1, None])
        critic.layers[0].bias.copy_(weights[:, -1:, None])


def some_batch(rows: int = 6, seed: int = 0) -> Batch:
    """Every number another one; the second row and the last are terminal."""
    rng = np.random.default_rng(seed)
    numbers = torch.tensor(rng.uniform(-1.0, 1.0, (rows, 2 * OBS_DIM + ACT_DIM + 1)), dtype=torch.float32)
    obs, next_obs, action, reward = torch.split(numbers, [OBS_DIM, OBS_DIM, ACT_DIM, 1], dim=1)
    terminal = torch.zeros(rows)
    terminal[[1, -1]] = 1.0
    return Batch(obs, action, reward[:, 0], next_obs, terminal)


def some_noise(state: SacState, rows: int, seed: int = 1) -> Noise:
    return state.noise_shape.draw(rows, torch.Generator().manual_seed(seed))


def with_gradient(*named: tuple[str, Iterable[Tensor]]) -> set[str]:
    """The names of those that hold a gradient other than zero."""
    return {name for name, tensors in named if any(t.grad is not None and bool((t.grad != 0).any()) for t in tensors)}


# --- the equations, by hand --------------------------------------------------------------------------------------


def q_by_hand(critic: Critic, obs: Tensor, action: Sequence[float]) -> list[float]:
    """Q_i of one state and action."""
    weight, bias = (part.detach().double() for part in critic.layers[0][:2])
    x = [*obs.tolist(), *action]
    return [
        sum(float(w) * v for w, v in zip(weight[i, :, 0], x, strict=True)) + float(bias[i, 0, 0])
        for i in range(len(weight))
    ]


def policy_by_hand(state: SacState, obs: Tensor, noise: Tensor) -> tuple[list[float], float]:
    """Action and log π of one state and its noise (act_dim,), by the textbook."""
    action, log_prob = [], 0.0
    weight, bias = (part.detach().double() for part in (state.actor.last.weight, state.actor.last.bias))
    log_sigma = -1.5
    for i in range(ACT_DIM):
        mean = sum(float(w) * v for w, v in zip(weight[i], obs.tolist(), strict=True)) + float(bias[i])
        u = mean + math.exp(log_sigma) * float(noise[i])
        action.append(math.tanh(u))
        log_prob -= 0.5 * float(noise[i]) ** 2 + log_sigma + 0.5 * math.log(2.0 * math.pi)
        log_prob -= math.log(1.0 - math.tanh(u) ** 2)
    return action, log_prob


def targets_by_hand(state: SacState, batch: Batch, noise: Noise) -> list[float]:
    """y of each row: r + γ^k (1 − d) (min_i Q_θ̄i(s', a') − α log π(a'|s')), a' fresh."""
    targets = []
    for b in range(len(batch)):
        action, log_prob = policy_by_hand(state, batch.next_obs[b], noise.next_action[b])
        value = min(q_by_hand(state.target, batch.next_obs[b], action)) - ALPHA * log_prob
        discount = DISCOUNT ** (1.0 if batch.steps is None else float(batch.steps[b]))
        targets.append(float(batch.reward[b]) + discount * (0.0 if batch.terminal[b] else 1.0) * value)
    return targets


# --- the learner around it ---------------------------------------------------------------------------------------


def all_rows(learning: Learning | SyncLearning) -> Batch:
    """What the ring holds, each transition once, in order of its observation; two may begin at the same place."""
    drawn = learning.replay.sample(200 + 20 * len(learning.replay))
    _, first = np.unique(torch.cat((drawn.obs, drawn.action), dim=1).numpy(), axis=0, return_index=True)
    columns = (getattr(drawn, field.name) for field in dataclasses.fields(Batch))
    return Batch(*(None if column is None else column[first] for column in columns))  # type: ignore[arg-type]


def copy_by_checkpoint(learning: Learning, **learn: object) -> Learning:
    """A fresh ``learning`` restored from what a checkpoint of this one holds; its ring is the caller's to fill."""
    fresh = Learning(settings(**learn), contract(), CPU)
    manifest = Manifest(
        schema=SCHEMA, run_id="run-1", updates=learning.state.updates, transitions=0, records=0, env_steps=0,
        replay_row=0, policy_version=1, wall_s=0.0, device="cpu", learn={}, config_digest="d", contract=contract(),
        versions={}, tensors_sha256="",
    )  # fmt: skip
    restore(fresh, manifest, learning_tensors(learning))
    return fresh


# --- the robot's side --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """Records of episodes on the simulated arm, and beside them what the arm itself said at each step and each start.

    Attributes:
        records: as they came out of the ring.
        tau_policy: (steps, n) N·m, of the guard.
        q_before: (episodes, n) rad, where the arm was when an episode began.
        q_after: (steps, n) rad, where each step left it.
    """

    records: Records
    tau_policy: np.ndarray
    q_before: np.ndarray
    q_after: np.ndarray


@contextmanager
def short_episodes() -> Iterator[ArmEnv]:
    """The simulated arm, on; episodes of 20 steps."""
    env = ArmEnv(load_config("arm0-sim", overrides=["task.episode_s=0.4", "task.hold_s=0.2"]))
    try:
        env.start()
        yield env
    finally:
        env.close()


class Given:
    """A source of policies that has this one, or none."""

    def __init__(self, policy: Policy | None = None) -> None:
        self._policy = policy

    def swap(self) -> Policy | None:
        return self._policy


def run_arm(env: ArmEnv, policy: Policy | None = None, episodes: int = 2) -> Run:
    """Episodes through the real loop and ring: of ``policy``, deterministic, or of random actions that jump."""
    ring = RecordRing.create(record_dtype(env.contract.obs_dim, env.contract.act_dim), 1024)
    tau_policy, q_before, q_after = [], [], []

    def on_step() -> None:
        assert env.last_tick is not None
        tau_policy.append(env.last_tick.tau_policy.copy())
        q_after.append(env.guard.joints.q.copy())

    runner = EpisodeRunner(env, Given(policy), ring.push, seed=0, random_hold_s=1e-6, deterministic=policy is not None)
    try:
        for number in range(episodes):
            home = {"home": number == 0}
            runner.run(lambda: False, on_step, home, lambda: q_before.append(env.guard.joints.q.copy()))
        return Run(ring.peek(1024), np.stack(tau_policy), np.stack(q_before), np.stack(q_after))
    finally:
        ring.close()
        ring.unlink()
