"""Learning and acting in turn, in one process: what ``train --sync`` runs, and what benchmarks are measured with.

One step: act, let the world go on by it, put the transition into the replay, do the updates that are due. The world
stands still meanwhile, so nothing here depends on how fast the computer is, and on the CPU the same seed gives the same run.
The algorithm, the replay and the count of updates are those of ``learn``; there is no log, no link and no process around them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from robotsac.action_rate import ActionRate
from robotsac.config.learn import LearnConfig
from robotsac.errors import ConfigError, RobotsacError
from robotsac.learner.algorithm import discount_of, smaller_step
from robotsac.learner.backends import choose_backend
from robotsac.learner.limiter import Limiter
from robotsac.learner.obs_statistics import ObsStatistics
from robotsac.learner.outcomes import joiner_of
from robotsac.learner.prior_data import require_no_prior_data
from robotsac.learner.replay import Replay
from robotsac.learner.streams import Streams
from robotsac.learner.sync_progress import Evaluation, Plan, Spent
from robotsac.learner.variants import create_algorithm
from robotsac.learner.world import Vector, World
from robotsac.records import EpisodeEnd

EPISODE_STEPS_MAX = 20_000
"""An evaluation episode of more steps does not end: twenty times the longest of gymnasium's own."""


class TrainingDiverged(RobotsacError):
    """Networks or losses are no numbers any more: nothing comes of going on."""


@dataclass(slots=True)
class Hooks:
    """What the loop asks and tells. ``on_step`` comes after every step, so it must cost nothing."""

    should_stop: Callable[[], bool] = lambda: False
    on_step: Callable[[], None] = lambda: None
    on_evaluation: Callable[[Evaluation], None] = lambda evaluation: None
    on_exam: Callable[[int], None] = lambda number: None


class SyncLearning:
    """One run of it.

    Args:
        learn: settings.
        plan: how long.
        world: to learn in.
        exam: to evaluate in; another instance, so that evaluating changes nothing.
        control_rate_hz: turns a horizon in seconds into a discount; ``None`` where the world has no rate.
        device: where networks and replay lie.

    Attributes:
        backend: what computes the updates, and why.
        env_steps, episodes, spent: so far; ``evaluated_at``: how many steps at the last evaluation.
        generators: of minibatches and of the noise in updates, by name.
        observed: statistics of the observations, if they are asked for.
        losses: of the last updates, unread on the device; the actor's may be older than the critics'.

    Raises:
        ConfigError: settings that cannot work, or not here.
    """

    def __init__(
        self,
        learn: LearnConfig,
        plan: Plan,
        world: World,
        exam: World,
        control_rate_hz: float | None,
        device: torch.device,
    ) -> None:
        _require_possible(learn, control_rate_hz)
        self.plan = plan
        self.env_steps = self.episodes = self.evaluated_at = 0
        self.spent = Spent()
        rate_hz, dims = control_rate_hz or 1.0, (world.obs_dim, world.act_dim)
        self.state = create_algorithm(learn, *dims, rate_hz, device)
        self.backend = choose_backend(self.state, learn, device)
        streams = Streams.of(learn.seed)
        replay, noise = (torch.Generator(device).manual_seed(s) for s in (streams.replay, streams.update))
        self._update_noise = noise
        self.generators = {"generator.replay": replay, "generator.noise": noise}
        capacity = min(learn.replay_capacity, plan.steps)
        self.replay = Replay.of(learn, capacity, *dims, replay)
        self.observed = ObsStatistics(world.obs_dim, learn.normalise_obs)
        self._joiner = joiner_of(learn.n_step, discount_of(learn, rate_hz), *dims)
        self.learn, self.world, self._exam, self.device = learn, world, exam, device
        self._limiter = Limiter(learn.updates_per_step, learn.start_steps, slack_steps=0, room_records=1)
        self._noise_dim = self.state.noise_shape.action
        self._silence = np.zeros(self._noise_dim, dtype=np.float32)
        self.losses: dict[str, Tensor] = {}
        self._began_s = time.monotonic()

    @property
    def wall_s(self) -> float:
        """Since it began, over all its lives, s."""
        return time.monotonic() - self._began_s

    @wall_s.setter
    def wall_s(self, value: float) -> None:
        self._began_s = time.monotonic() - value

    def run(self, hooks: Hooks) -> None:
        """Until the steps are done or ``hooks.should_stop``; ends with an evaluation unless stopped.

        Begins a new episode. Updates and an evaluation that an earlier life of the run was stopped in come first.

        Raises:
            RobotsacError: training has diverged, or from the worlds.
        """
        self._learn_and_look(hooks)
        obs = self.world.reset()
        while self.env_steps < self.plan.steps and not hooks.should_stop():
            obs = self.step(obs)
            hooks.on_step()
            self._learn_and_look(hooks)

    def _learn_and_look(self, hooks: Hooks) -> None:
        """What is due after a step: updates, then an evaluation. A stop ends it between two updates, without the rest."""
        for _ in range(self._limiter.updates_allowed(self.replay.total, self.state.updates)):
            if hooks.should_stop():
                return
            self.update()
        looks = self.env_steps % self.plan.eval_every == 0 or self.env_steps == self.plan.steps
        if looks and self.env_steps != self.evaluated_at and (evaluation := self.evaluate(hooks)) is not None:
            self.evaluated_at = self.env_steps
            hooks.on_evaluation(evaluation)

    def step(self, obs: Vector) -> Vector:
        """One step from ``obs`` (obs_dim,), kept as a transition; the observation to go on from.

        Raises:
            RobotsacError: the policy is no number any more.
        """
        begin_s = time.perf_counter()
        if self.replay.total < self.learn.start_steps:
            action = self.world.random_action()
        else:
            action = self.action(obs, self.world.noise(self._noise_dim))
        acted_s = time.perf_counter()
        outcome = self.world.step(action)
        self.env_steps += 1
        if (made := self._joiner.add(obs, outcome)) is not None:
            self.replay.append(made)
            self.observed.add(made.obs, self.state.normaliser)
        if outcome.end is EpisodeEnd.RUNNING:
            after = outcome.obs
        else:
            self.episodes += 1
            after = self.world.reset()
        self.spent.act += acted_s - begin_s
        self.spent.world += time.perf_counter() - acted_s
        return after

    @torch.no_grad()
    def action(self, obs: Vector, noise: Vector) -> Vector:
        """The policy's action (act_dim,) at ``obs`` (obs_dim,); all-zero ``noise`` (noises·act_dim,): the deterministic one.

        Raises:
            RobotsacError: it is no number.
        """
        state = self.state
        given, drawn = (torch.from_numpy(numbers)[None].to(self.device) for numbers in (obs, noise))
        action: Vector = state.actor.action(state.normaliser(given), drawn)[0].cpu().numpy()
        if not np.isfinite(action).all():
            raise _diverged(f"the policy's action is not finite after {state.updates} updates", self.learn)
        return action

    def update(self) -> None:
        """One update on a fresh minibatch."""
        begin_s = time.perf_counter()
        size = self.learn.batch_size
        noise = self.state.noise_shape.draw(size, self._update_noise)
        self.losses |= self.backend.backend.update(self.replay.sample(size), noise)
        self.spent.update += time.perf_counter() - begin_s

    def evaluate(self, hooks: Hooks) -> Evaluation | None:
        """The policy without noise on the held-out episodes; ``None`` when stopped in the middle.

        Raises:
            RobotsacError: losses that are no numbers, or an episode without an end.
        """
        begin_s = time.perf_counter()
        losses = {name: float(tensor) for name, tensor in self.losses.items()}
        if wrong := [name for name, value in losses.items() if not np.isfinite(value)]:
            raise _diverged(f"{', '.join(wrong)} is {losses[wrong[0]]} after {self.state.updates} updates", self.learn)
        trials, rate = [], ActionRate()
        for number in range(self.plan.eval_episodes):
            hooks.on_exam(number)
            trial = self._trial(number, rate, hooks.should_stop)
            if trial is None:
                return None
            trials.append(trial)
        returns, steps, successes = zip(*trials, strict=True)
        self.spent.evaluate += time.perf_counter() - begin_s
        return Evaluation(
            env_steps=self.env_steps,
            updates=self.state.updates,
            episodes=self.episodes,
            wall_s=self.wall_s,
            seed=self.learn.seed,
            returns=returns,
            success_rate=None if None in successes else float(np.mean(successes)),
            episode_steps=float(np.mean(steps)),
            action_rate=rate.rms,
            losses=losses,
            spent=asdict(self.spent),
        )

    def _trial(
        self, number: int, rate: ActionRate, should_stop: Callable[[], bool]
    ) -> tuple[float, int, bool | None] | None:
        """Return, steps and success of held-out episode ``number``; its actions go into ``rate`` too."""
        obs, total = self._exam.reset(held_out=number), 0.0
        rate.begin()
        for steps in range(1, EPISODE_STEPS_MAX + 1):
            outcome = self._exam.step(self.action(obs, self._silence))
            obs, total = outcome.obs, total + outcome.reward
            rate.add(outcome.applied)
            if outcome.end is not EpisodeEnd.RUNNING:
                return total, steps, outcome.success
            if should_stop():
                return None
        raise RobotsacError(
            f"an evaluation episode has not ended after {EPISODE_STEPS_MAX:,} steps",
            reason="neither the environment nor its registration sets a limit of steps",
        )


def _require_possible(learn: LearnConfig, control_rate_hz: float | None) -> None:
    require_no_prior_data(learn)
    if learn.discount == "from_horizon" and control_rate_hz is None:
        raise ConfigError(
            "learn.discount is not set",
            reason="the environment has no dt, so a horizon in seconds says nothing",
            command="--set learn.discount=0.99",
        )


def _diverged(what: str, learn: LearnConfig) -> TrainingDiverged:
    return TrainingDiverged(
        f"training has diverged: {what}",
        reason="too large a step size, or nothing that stabilises the critics",
        command=smaller_step(learn),
    )
