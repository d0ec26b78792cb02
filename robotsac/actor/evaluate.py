"""Evaluation: a policy without noise on held-out goals, on whatever arm the configuration names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robotsac.actor.episodes import EpisodeRunner, EpisodeSummary
from robotsac.actor.realtime import collect_garbage, freeze_garbage, make_realtime
from robotsac.config import Config
from robotsac.env.arm_env import ArmEnv
from robotsac.errors import GuardFault
from robotsac.policy.runner import Policy
from robotsac.records import EpisodeEnd
from robotsac.signals import counted_signals

# Deadline misses, episodes that are run again: one is a hiccup of the computer and says nothing about the policy.
RETRIES_MAX = 5


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was counted. ``seconds`` is the arm's time under policy control."""

    episodes: int
    successes: int
    mean_return: float
    mean_steps: float
    seconds: float
    faults: int
    torque_off: bool
    interrupted: bool

    @property
    def success_rate(self) -> float:
        """Share of successful episodes; 0 for none."""
        return self.successes / self.episodes if self.episodes else 0.0

    def line(self) -> str:
        """The line that scripts look for."""
        return f"success {100 * self.success_rate:.0f} % ({self.successes}/{self.episodes})"


@dataclass(slots=True)
class _Fixed:
    """A source of one policy."""

    policy: Policy

    def swap(self) -> Policy:
        return self.policy


def evaluate(
    config: Config,
    policy: Policy,
    episodes: int,
    first_seed: int,
    faults_folder: Path | None = None,
    on_episode: Callable[[int, int], None] = lambda done, successes: None,
    on_phase: Callable[[str], None] = lambda words: None,
) -> Evaluation:
    """Run ``episodes`` episodes, goal ``k`` drawn from seed ``first_seed + k``; the arm is parked and off afterwards.

    Raises:
        RobotsacError: from the arm; torque is off then too.
    """
    env = ArmEnv(config, faults_folder)
    summaries: list[EpisodeSummary] = []
    faults = 0
    with counted_signals() as signals:

        def stopped() -> bool:
            return signals.count > 0

        try:
            runner = EpisodeRunner(
                env, _Fixed(policy), _keep_nothing, seed=first_seed, random_hold_s=1.0, deterministic=True
            )
            on_phase("connecting to the arm, torque off")
            env.arm.connect()
            if env.arm.clock.free_running:
                make_realtime(config.collect.realtime_priority)
            else:
                freeze_garbage()
            on_phase("torque on, going home")
            env.start()
            while len(summaries) < episodes and not stopped():
                # The first episode starts at home, like every evaluation before and after it.
                options = {"goal_seed": first_seed + len(summaries), "home": not summaries}
                try:
                    summary = runner.run(stopped, options=options)
                    if summary.fault is not None:
                        raise summary.fault
                except GuardFault as fault:
                    faults += 1
                    if fault.latched or faults > RETRIES_MAX:
                        raise
                    continue
                if summary.end is not EpisodeEnd.OPERATOR:
                    summaries.append(summary)
                    on_episode(len(summaries), sum(s.end is EpisodeEnd.SUCCESS for s in summaries))
                collect_garbage()
        finally:
            env.park_and_close()
        interrupted = stopped()
    steps = [summary.steps for summary in summaries]
    return Evaluation(
        episodes=len(summaries),
        successes=sum(summary.end is EpisodeEnd.SUCCESS for summary in summaries),
        mean_return=float(np.mean([s.total_reward for s in summaries])) if summaries else float("nan"),
        mean_steps=float(np.mean(steps)) if steps else float("nan"),
        seconds=sum(steps) / config.robot.control_rate_hz,
        faults=faults,
        torque_off=env.arm.torque_is_off(),
        interrupted=interrupted,
    )


def _keep_nothing(_record: NDArray[np.void]) -> bool:
    return True
