"""The one gymnasium environment: hardware, twin and simulation alike.

``gymnasium.make("robotsac/Arm-v0", robot="arm0-sim", task="reach")`` after ``import robotsac.env``. Observation and
action are described by ``env.unwrapped.contract``. The reward, and whether an episode ended, are the task's; how it ended
is ``info["end"]``, an :class:`~robotsac.records.EpisodeEnd`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from robotsac.arm import JointState, PlaceableArm, open_arm
from robotsac.config import Config, load_config
from robotsac.dynamics import RigidBody
from robotsac.env.checked_task import open_task
from robotsac.env.codec import OBS_BOUND, Codec
from robotsac.env.stability import check_gains, largest_inertias
from robotsac.env.task import task_parameters
from robotsac.errors import ArmStateError, ConfigError, GuardFault, RobotsacError, TaskError
from robotsac.guard import ControlTick, Guard, GuardState, never
from robotsac.records import EpisodeEnd, Flag

Observation = NDArray[np.float32]
CLEAR_FAULT = "env.unwrapped.guard.clear_fault()"


class ArmEnv(gymnasium.Env[Observation, NDArray[Any]]):
    """See module docstring.

    The guard must be started before the first ``reset``: by :meth:`start`, an explicit act, since it switches torque on.
    A simulated arm (one that can be placed) is started by ``reset`` itself.

    Args:
        config: resolved configuration.
        faults_folder: where the guard writes faults.

    Raises:
        ConfigError, DriverUnavailable, TaskError: from driver or task, or gains that are unstable at this bus rate.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(self, config: Config, faults_folder: Path | None = None) -> None:
        robot = config.robot
        body = RigidBody.from_config(robot)
        inertia = largest_inertias(robot, body)
        check_gains(robot, body, inertia)
        self.config = config
        self.arm = open_arm(robot)
        self.guard = Guard(self.arm, body.gravity, robot.guard, faults_folder, inertia)
        self.task = open_task(config.task, robot, body)
        spec = self.arm.spec
        self.codec = Codec(
            spec,
            self.task.name,
            task_parameters(config.task, self.task),
            self.task.channels,
            config.task.history_steps,
        )
        self.contract = self.codec.contract
        self.episode_steps = max(1, round(config.task.episode_s * spec.control_rate_hz))
        self.observation_space = gymnasium.spaces.Box(-OBS_BOUND, OBS_BOUND, (self.codec.obs_dim,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.codec.act_dim,), np.float32)
        self._rng = np.random.default_rng(config.task.seed)
        self._history = np.zeros((config.task.history_steps, spec.n))
        self._previous = np.zeros(spec.n)
        # Timing of the newest step; not in ``info``, which is a function of seed and actions in simulation.
        self.last_tick: ControlTick | None = None
        self._goal: Any = None
        self._told: dict[str, Any] = {}
        self._seen: Observation = np.zeros(self.codec.obs_dim, dtype=np.float32)
        self._step = 0
        self._episode = 0
        self._end = EpisodeEnd.RUNNING
        asked = config.task.home_after
        self._home_after = self.task.home_after if asked is None else tuple(EpisodeEnd[end.upper()] for end in asked)
        self._running = False

    def start(self) -> None:
        """Switch the arm on and hold it. Raises whatever the driver or the guard raise; torque is off then."""
        self.guard.start()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode.

        The arm goes home with a ``seed``, with ``options={"home": True}``, every ``task.home_every_episodes``, after an
        end that ``task.home_after`` names, or else the task, and when it is outside its soft limits; else it starts from
        where it is. ``options={"goal_seed": k}`` draws the goal from a seed of its own (evaluation on held-out goals).
        ``options={"should_stop": f}`` asks ``f`` on the way home; once it is true the arm brakes, and the episode begins
        where it came to rest.

        Raises:
            ArmStateError: the guard is not started, or has a latched fault.
            GuardFault: the arm was stopped on its way home.
            TaskError: the task cannot begin; the arm is held.
        """
        super().reset(seed=seed)
        options = options or {}
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._make_ready()
        if seed is not None or options.get("home") or self._due_home():
            self.guard.settle(self.arm.spec.home, options.get("should_stop", never))
        goal_seed = options.get("goal_seed")
        rng = self._rng if goal_seed is None else np.random.default_rng(goal_seed)
        self._goal = self.task.begin(rng, self.guard.joints)
        self._history[:] = 0.0
        self._previous = np.zeros_like(self._previous)
        self._step = 0
        # Judged where it stands: what the task tells about a step it can tell before the first one.
        self._told = dict(self.task.judge(self._goal, self.guard.joints, self._previous, self._previous).info)
        self._seen = self._observe()
        self._episode += 1
        self._running = True
        self.guard.activate()
        return self._seen.copy(), {**self._told, "end": EpisodeEnd.RUNNING, "is_success": False}

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One control period with ``action`` (act_dim,) in [-1, 1]; beyond ±1 it is cut.

        A fault ends the episode, ``truncated``, with the fault in ``info["fault"]``; an action that is not finite is one.
        ``info`` then has what the task told last.

        Raises:
            ArmStateError: no episode is running.
            ValueError: an action of another shape; the arm was not moved.
            TaskError: the task cannot judge; the episode is over and the arm is held.
        """
        if not self._running:
            raise ArmStateError("step() needs a running episode", reason="reset() begins one")
        asked = np.asarray(action, dtype=np.float64)
        if asked.shape != (self.codec.act_dim,):
            raise ValueError(f"the action has shape {asked.shape}, the arm takes {(self.codec.act_dim,)}")
        try:
            tick = self.guard.step(self.codec.torque(asked))
        except GuardFault as fault:
            return self._faulted(fault)
        try:
            return self._judged(tick)
        except RobotsacError:
            self._running = False
            self.guard.hold()
            raise

    def _judged(self, tick: ControlTick) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """What a control period came to."""
        self.last_tick = tick
        applied = self.codec.action(tick.tau_policy)
        judgement = self.task.judge(self._goal, tick.state, applied, self._previous)
        self._remember(applied)
        self._goal, self._told = judgement.goal, dict(judgement.info)
        self._seen = self._observe()
        self._step += 1
        end = judgement.end
        if end is EpisodeEnd.RUNNING and self._step >= self.episode_steps:
            end = EpisodeEnd.TIME_LIMIT
        self._end = end
        if end is not EpisodeEnd.RUNNING:
            self._running = False
            self.guard.hold()
        info = self._info(end, applied, tick.flags)
        return self._seen.copy(), float(judgement.reward), end.terminated, end.truncated, info

    def _faulted(self, fault: GuardFault) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """The end of an episode that the guard has stopped."""
        self._running = False
        self._end = EpisodeEnd.FAULT
        info = self._info(EpisodeEnd.FAULT, self._previous.copy(), Flag.NONE)
        return self._after_fault(), 0.0, False, True, {**info, "fault": fault}

    def _info(self, end: EpisodeEnd, applied: NDArray[np.float64], flags: Flag) -> dict[str, Any]:
        """The same keys for every step."""
        ours = {"end": end, "applied": applied, "flags": flags, "is_success": end is EpisodeEnd.SUCCESS}
        return {**self._told, **ours}

    def close(self) -> None:
        """Stop the arm and let it go. Idempotent; never raises."""
        self.guard.close()

    def park_and_close(self, should_stop: Callable[[], bool] = never) -> None:
        """As :meth:`close`, from the park pose where that can be reached and ``should_stop`` allows. Never raises."""
        if self.guard.state in (GuardState.HOLD, GuardState.ACTIVE):
            self.guard.park(should_stop)
        self.close()

    def _make_ready(self) -> None:
        state = self.guard.state
        if state is GuardState.DISARMED and isinstance(self.arm, PlaceableArm):
            self.start()
        elif state is GuardState.DISARMED:
            raise ArmStateError(
                f"{self.arm.spec.name} is not started",
                reason="switching torque on is an explicit act on an arm that cannot simply be placed",
                command="env.unwrapped.start()",
            )
        elif state is GuardState.FAULT:
            raise ArmStateError(
                f"{self.arm.spec.name} has a latched fault",
                reason=f"{self.guard.fault}; once an operator has seen to its cause, {CLEAR_FAULT} clears it",
                command=CLEAR_FAULT,
            )
        self.guard.hold()

    def _due_home(self) -> bool:
        spec, q = self.arm.spec, self.guard.joints.q
        outside = bool(((q < spec.q_min) | (q > spec.q_max)).any())
        every = self._episode % self.config.task.home_every_episodes == 0
        return outside or every or self._end in self._home_after

    def _observe(self) -> Observation:
        state: JointState = self.guard.joints
        return self.codec.observation(state, self.task.observe(self._goal, state), self._history)

    def _after_fault(self) -> Observation:
        """Where the arm is; what was last seen of it where that cannot be told, since its state may be what is wrong."""
        try:
            observed = self._observe()
        except TaskError:
            return self._seen.copy()
        return observed if np.isfinite(observed).all() else self._seen.copy()

    def _remember(self, applied: NDArray[np.float64]) -> None:
        self._previous = applied
        if len(self._history):
            self._history[1:] = self._history[:-1]
            self._history[0] = applied


def make_arm_env(
    robot: str = "arm0-sim",
    task: str | None = None,
    overrides: Sequence[str] = (),
    config: Config | None = None,
    render_mode: str | None = None,
) -> ArmEnv:
    """gymnasium's entry point for ``robotsac/Arm-v0``.

    Args:
        robot: name or path of a robot file.
        task: task name; default: the one the robot's configuration names.
        overrides: as ``--set`` on the command line.
        config: a resolved configuration instead of all that.
        render_mode: ``None``: nothing is drawn here. The arm's joints are in ``env.unwrapped.guard.joints``, and MuJoCo's
            own viewer shows the model, ``env.unwrapped.config.robot.model``.

    Raises:
        ConfigError, DriverUnavailable, TaskError: as :class:`ArmEnv`, and for any other ``render_mode``.
    """
    if render_mode is not None:
        raise ConfigError(
            f"render_mode {render_mode!r} is not there, only None is",
            reason="nothing is drawn here: env.unwrapped.guard.joints tells where the arm is, and "
            "`python -m mujoco.viewer --mjcf=FILE` shows the file in env.unwrapped.config.robot.model",
            command='gymnasium.make("robotsac/Arm-v0", render_mode=None)',
        )
    if config is None:
        chosen = [f"task.name={task!r}"] if task is not None else []
        config = load_config(robot, overrides=[*chosen, *overrides])
    return ArmEnv(config)
