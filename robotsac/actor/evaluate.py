"""Evaluation: a policy without noise on held-out goals, on whatever arm the configuration names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robotsac.action_rate import ActionRate
from robotsac.actor.episodes import EpisodeRunner, EpisodeSummary
from robotsac.actor.realtime import collect_garbage, freeze_garbage, make_realtime
from robotsac.config import Config
from robotsac.env.arm_env import ArmEnv
from robotsac.errors import GuardFault
from robotsac.policy.runner import Policy
from robotsac.records import EpisodeEnd, Flag
from robotsac.signals import counted_signals

# Deadline misses, episodes that are run again: one is a hiccup of the computer and says nothing about the policy.
RETRIES_MAX = 5


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was counted. ``seconds`` is the arm's time under policy control; ``energized`` and ``torque_off`` are as in
    :class:`~robotsac.actor.report.CollectReport`, ``action_rate`` as in :class:`~robotsac.action_rate.ActionRate`."""

    episodes: int
    successes: int
    mean_return: float
    mean_steps: float
    action_rate: float | None
    seconds: float
    faults: int
    energized: bool
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
        """It, always."""
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
        RobotsacError: from the arm, on its way down too; torque is off then, unless the error says that it may not be.
    """
    env = ArmEnv(config, faults_folder)
    rate = ActionRate()
    runner = EpisodeRunner(env, _Fixed(policy), _into(rate), seed=first_seed, random_hold_s=1.0, deterministic=True)
    trial = _Trial(runner, episodes, first_seed, on_episode)
    with counted_signals() as signals:

        def stopped() -> bool:
            return signals.count > 0

        try:
            on_phase("connecting to the arm, torque off")
            env.arm.connect()
            if env.arm.clock.free_running:
                make_realtime(config.collect.realtime_priority)
            else:
                freeze_garbage()
            if not stopped():
                on_phase("torque on, going home")
                env.start()
                trial.run(stopped)
        finally:
            env.park_and_close(lambda: signals.count > 1)
        env.guard.require_off()
        return trial.result(
            config.robot.control_rate_hz, rate.rms, env.guard.energized, env.arm.torque_is_off(), stopped()
        )


class _Trial:
    """The episodes of one evaluation, and what they amounted to."""

    def __init__(
        self, runner: EpisodeRunner, episodes: int, first_seed: int, on_episode: Callable[[int, int], None]
    ) -> None:
        self._runner = runner
        self._episodes = episodes
        self._first_seed = first_seed
        self._on_episode = on_episode
        self._summaries: list[EpisodeSummary] = []
        self._faults = 0

    def run(self, stopped: Callable[[], bool]) -> None:
        """Until all are done or ``stopped``. An episode that a missed deadline cut short is run again."""
        while len(self._summaries) < self._episodes and not stopped():
            # The first episode starts at home, like every evaluation before and after it.
            done = len(self._summaries)
            options = {"goal_seed": self._first_seed + done, "home": done == 0}
            try:
                summary = self._runner.run(stopped, options=options)
                if summary.fault is not None:
                    raise summary.fault
            except GuardFault as fault:
                self._faults += 1
                if fault.latched or self._faults > RETRIES_MAX:
                    raise
                continue
            if summary.end is not EpisodeEnd.OPERATOR:
                self._summaries.append(summary)
                self._on_episode(len(self._summaries), self._successes())
            collect_garbage()

    def result(
        self,
        control_rate_hz: int,
        action_rate: float | None,
        energized: bool,
        torque_off: bool,
        interrupted: bool,
    ) -> Evaluation:
        """What was counted."""
        steps = [summary.steps for summary in self._summaries]
        returns = [summary.total_reward for summary in self._summaries]
        return Evaluation(
            episodes=len(steps),
            successes=self._successes(),
            mean_return=float(np.mean(returns)) if returns else float("nan"),
            mean_steps=float(np.mean(steps)) if steps else float("nan"),
            action_rate=action_rate,
            seconds=sum(steps) / control_rate_hz,
            faults=self._faults,
            energized=energized,
            torque_off=torque_off,
            interrupted=interrupted,
        )

    def _successes(self) -> int:
        return sum(summary.end is EpisodeEnd.SUCCESS for summary in self._summaries)


def _into(rate: ActionRate) -> Callable[[NDArray[np.void]], bool]:
    """What takes the records of an evaluation, and keeps of them how much their actions change."""

    def emit(record: NDArray[np.void]) -> bool:
        if record["flags"] & Flag.FINAL:
            rate.begin()
        else:
            rate.add(record["action_applied"])
        return True

    return emit
