"""Episodes: the loop that runs a policy on the environment and records every step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robotsac.actor.held_noise import HeldNoise
from robotsac.actor.random_policy import SmoothRandom
from robotsac.env.arm_env import ArmEnv
from robotsac.errors import GuardFault
from robotsac.policy.runner import Policy
from robotsac.records import EpisodeEnd, Flag, record_dtype

LATENCY_US_MAX = 2**32 - 1
LATENCY_SMOOTHING = 0.02


class PolicySource(Protocol):
    """Where the loop takes its policy from, anew at each tick."""

    def swap(self) -> Policy | None:
        """The policy for the next control tick; ``None`` while there is none."""
        ...


@dataclass(frozen=True, slots=True)
class EpisodeSummary:
    """One episode as the operator sees it."""

    steps: int
    total_reward: float
    end: EpisodeEnd
    policy_version: int
    fault: GuardFault | None


class EpisodeRunner:
    """Runs episodes on an environment and emits one record per step, plus the final one.

    Args:
        env: the environment; its guard is started.
        source: of policies; while it has none, actions are smooth random ones.
        emit: takes each record (a 0-d structured array that is reused); False when it cannot.
        seed: of noise and random actions; recorded by the caller.
        random_hold_s: correlation time of the random actions.
        noise_hold_s: how long a policy's noise stays as it was drawn; 0 = anew at each step.
        deterministic: zero noise.
    """

    def __init__(
        self,
        env: ArmEnv,
        source: PolicySource,
        emit: Callable[[NDArray[np.void]], bool],
        *,
        seed: int,
        random_hold_s: float,
        noise_hold_s: float = 0.0,
        deterministic: bool = False,
    ) -> None:
        self.env = env
        self.seq = 0
        self.episode = 0
        self.overflowed = False
        self.latency_us = 0.0
        self._source = source
        self._emit = emit
        self._rng = np.random.default_rng(seed)
        self._deterministic = deterministic
        contract = env.contract
        dt_s = 1.0 / contract.control_rate_hz
        self._random = SmoothRandom(contract.act_dim, random_hold_s, dt_s, self._rng)
        self._noise = HeldNoise(noise_hold_s, dt_s, self._rng)
        self._record = np.zeros((), dtype=record_dtype(contract.obs_dim, contract.act_dim))

    def run(
        self,
        should_stop: Callable[[], bool],
        on_step: Callable[[], None] = lambda: None,
        options: dict[str, Any] | None = None,
        on_begin: Callable[[], None] = lambda: None,
    ) -> EpisodeSummary:
        """One episode. Ends early, as OPERATOR, when ``should_stop`` says so or a record cannot be emitted.

        Args:
            should_stop: asked before each step, and on the way to the start.
            on_step: called after each step.
            options: of ``reset``.
            on_begin: called once the arm is where the episode starts.

        Raises:
            GuardFault, ArmStateError: from ``reset``; a fault during the episode ends it instead.
        """
        env = self.env
        obs, _ = env.reset(options={**(options or {}), "should_stop": should_stop})
        on_begin()
        self.episode += 1
        self._noise.renew()
        ready_ns = time.perf_counter_ns()
        end, total, steps, version = EpisodeEnd.RUNNING, 0.0, 0, 0
        fault: GuardFault | None = None
        while end is EpisodeEnd.RUNNING:
            if self.overflowed or should_stop():
                env.guard.hold()
                end = EpisodeEnd.OPERATOR
                break
            action, flags, version = self._act(obs)
            latency_ns = time.perf_counter_ns() - ready_ns
            next_obs, reward, _, _, info = env.step(action)
            ready_ns = env.last_tick.done_ns if env.last_tick is not None else time.perf_counter_ns()
            end, fault = info["end"], info.get("fault")
            self.latency_us += LATENCY_SMOOTHING * (latency_ns / 1000 - self.latency_us)
            self._put(obs, action, info["applied"], reward, flags | int(info["flags"]), version, latency_ns)
            obs = next_obs
            total += reward
            steps += 1
            on_step()
        self._put_final(obs, end, version)
        return EpisodeSummary(steps, total, end, version, fault)

    def _act(self, obs: NDArray[np.float32]) -> tuple[NDArray[np.float32], int, int]:
        policy = self._source.swap()
        if policy is None:
            return self._random.action(), int(Flag.RANDOM), 0
        if self._deterministic:
            return policy.action(obs), int(Flag.DETERMINISTIC), policy.version
        return policy.action(obs, self._noise.draw(policy.info.noise_dim)), 0, policy.version

    def _put(
        self,
        obs: NDArray[np.float32],
        action: NDArray[np.float32],
        applied: NDArray[np.float64],
        reward: float,
        flags: int,
        version: int,
        latency_ns: int,
    ) -> None:
        record = self._record
        record["end"] = EpisodeEnd.RUNNING
        record["obs"] = obs
        record["action_asked"] = action
        record["action_applied"] = applied
        record["reward"] = reward
        record["flags"] = flags
        record["policy_version"] = version
        record["latency_us"] = min(latency_ns // 1000, LATENCY_US_MAX)
        self._send(record)

    def _put_final(self, obs: NDArray[np.float32], end: EpisodeEnd, version: int) -> None:
        record = self._record
        record["end"] = end
        record["obs"] = obs
        record["action_asked"] = 0.0
        record["action_applied"] = 0.0
        record["reward"] = 0.0
        record["flags"] = int(Flag.FINAL) | (int(Flag.DETERMINISTIC) if self._deterministic else 0)
        record["policy_version"] = version
        record["latency_us"] = 0
        self._send(record)

    def _send(self, record: NDArray[np.void]) -> None:
        record["seq"] = self.seq
        record["episode"] = self.episode
        record["t_ns"] = self.env.guard.joints.t_ns
        if self._emit(record):
            self.seq += 1
        else:
            self.overflowed = True
