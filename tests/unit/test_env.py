"""The one environment, on the simulated arm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import robotsac.env
from robotsac.actor.contract import robot_contract
from robotsac.arm import JointState
from robotsac.config import load_config
from robotsac.dynamics import RigidBody
from robotsac.env.arm_env import ArmEnv
from robotsac.env.codec import OBS_BOUND
from robotsac.errors import ArmStateError, ConfigError, FaultCode
from robotsac.guard import GuardState
from robotsac.records import EpisodeEnd


@pytest.fixture
def env() -> Iterator[ArmEnv]:
    env = ArmEnv(load_config("arm0-sim"))
    yield env
    env.close()


def test_it_is_registered_and_passes_gymnasiums_checker():
    env = gymnasium.make(robotsac.env.ENV_ID, robot="arm0-sim", task="reach")
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_nothing_is_drawn_and_a_render_mode_is_refused_in_words():
    gymnasium.make(robotsac.env.ENV_ID, render_mode=None).close()
    with pytest.raises(ConfigError, match="render_mode 'human' is not there") as caught:
        gymnasium.make(robotsac.env.ENV_ID, render_mode="human")
    assert "mujoco.viewer" in str(caught.value) and "env.unwrapped.guard.joints" in str(caught.value)
    env = gymnasium.make(robotsac.env.ENV_ID)
    assert env.unwrapped.config.robot.model.is_file()
    env.close()


@pytest.mark.parametrize("task", ["reach", "hold", "track"])
def test_every_task_runs_an_episode_to_its_end(task):
    env = gymnasium.make(robotsac.env.ENV_ID, robot="arm0-sim", task=task)
    obs, _ = env.reset(seed=0)
    steps, done = 0, False
    while not done:
        assert obs in env.observation_space
        obs, reward, terminated, truncated, _info = env.step(env.action_space.sample())
        assert np.isfinite(reward)
        steps, done = steps + 1, terminated or truncated
    assert steps <= env.unwrapped.episode_steps
    env.close()


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(ConfigError, match="reach"):
        ArmEnv(load_config("arm0-sim", overrides=["task.name='raech'"]))


def test_a_parameter_of_another_task_is_refused():
    with pytest.raises(ConfigError, match="tolerance_mm"):
        ArmEnv(load_config("arm0-sim", overrides=["task.tolerance_mm=3"]))


def test_the_same_seed_gives_the_same_trajectory(env):
    def trajectory() -> np.ndarray:
        rng = np.random.default_rng(3)
        obs, _ = env.reset(seed=5)
        seen = [obs]
        for _ in range(30):
            obs, *_ = env.step(rng.uniform(-1, 1, 6))
            seen.append(obs)
        return np.array(seen)

    np.testing.assert_array_equal(trajectory(), trajectory())


def test_a_goal_seed_draws_the_goal_and_leaves_the_arm_alone(env):
    env.reset(seed=0)
    for _ in range(20):
        env.step(np.ones(6))
    before = env.guard.joints.q.copy()
    env._running = False
    one, _ = env.reset(options={"goal_seed": 11})
    np.testing.assert_allclose(env.guard.joints.q, before)
    two, _ = env.reset(options={"goal_seed": 11})
    np.testing.assert_array_equal(one, two)


def test_the_time_limit_truncates_and_the_task_is_asked_first():
    env = ArmEnv(load_config("arm0-sim", overrides=["task.episode_s=0.1", "task.tolerance_m=10", "task.hold_s=0.095"]))
    env.reset(seed=0)
    for _ in range(4):
        *_, terminated, truncated, info = env.step(np.zeros(6))
        assert (terminated, truncated) == (False, False)
    *_, terminated, truncated, info = env.step(np.zeros(6))
    assert (terminated, truncated) == (True, False), "success on the last step is a success, not a time limit"
    assert info["end"] is EpisodeEnd.SUCCESS
    env.close()


def homes(overrides: list[str], episodes: int, action: float = 0.0) -> list[bool]:
    """Of each new episode behind the first, whether the arm went home for it; every episode pushes with ``action``."""
    env = ArmEnv(load_config("arm0-sim", overrides=["task.episode_s=0.2", "task.hold_s=0.1", *overrides]))
    env.reset(seed=0)
    went = []
    for _ in range(episodes):
        while not any(env.step(np.full(6, action))[2:4]):
            pass
        before = env.guard.joints.q
        env.reset()
        went.append(bool(np.abs(env.guard.joints.q - before).max() > 0.005))
    env.close()
    return went


def test_what_missed_its_target_begins_the_next_episode_at_home():
    assert homes([], 3, 0.5) == [True] * 3
    # Whatever the arm does is a success: it goes on from where it is, until home_every_episodes sends it home.
    anywhere = ["task.tolerance_m=10", "task.home_every_episodes=3"]
    assert homes(anywhere, 6, 0.5) == [False, False, True] * 2
    assert homes([*anywhere, 'task.home_after=["success"]'], 3, 0.5) == [True] * 3
    assert homes(["task.home_after=[]", "task.home_every_episodes=3"], 3, 0.5) == [False, False, True]


@pytest.mark.parametrize("task", ["hold", "track"])
def test_a_task_that_always_ends_by_the_time_limit_goes_on_from_where_it_is(task):
    # Else it would only ever be done from the home pose.
    env = ArmEnv(load_config("arm0-sim", overrides=[f"task.name={task}", "task.episode_s=0.2"]))
    env.reset(seed=0)
    began = []
    for _ in range(4):
        began.append(env.guard.joints.q.tolist())
        while not any(env.step(np.full(6, 0.5))[2:4]):
            pass
        env.reset()
    assert len({tuple(q) for q in began}) == 4
    env.close()


def test_a_fault_can_send_it_home_too():
    for ends, went in (("[]", False), ('["fault"]', True)):
        env = ArmEnv(load_config("arm0-sim", overrides=[f"task.home_after={ends}"]))
        env.reset(seed=0)
        for _ in range(20):
            env.step(np.full(6, 0.5))
        env.step(np.full(6, np.nan))
        env.guard.clear_fault()
        before = env.guard.joints.q
        env.reset()
        assert bool(np.abs(env.guard.joints.q - before).max() > 0.02) == went
        env.close()


def test_an_end_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="home_after"):
        load_config("arm0-sim", overrides=['task.home_after=["sucess"]'])


def test_success_needs_the_whole_hold_without_a_break_and_a_policy_sees_how_much_of_it_is_done():
    env = ArmEnv(load_config("arm0-sim", overrides=["task.tolerance_m=10"]))
    env.reset(seed=0)
    steps = [env.step(np.zeros(6)) for _ in range(25)]
    ends = [info["end"] for *_, info in steps]
    assert ends[:24] == [EpisodeEnd.RUNNING] * 24
    assert ends[24] is EpisodeEnd.SUCCESS, "0.5 s at 50 Hz"
    channels = env.contract.observation
    held = sum(channel.size for channel in channels[: [channel.name for channel in channels].index("held")])
    assert np.allclose([obs[held] for obs, *_ in steps], np.linspace(0.008, 0.2, 25)), "small: see HELD_SPAN"
    env.close()


def test_an_action_that_is_not_finite_ends_the_episode_as_a_fault(env):
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(np.full(6, np.nan))
    assert (terminated, truncated) == (False, True)
    assert info["end"] is EpisodeEnd.FAULT
    assert info["fault"].code is FaultCode.NOT_FINITE
    assert reward == 0.0
    assert env.guard.state is GuardState.FAULT
    assert env.arm.torque_is_off()
    with pytest.raises(ArmStateError, match="latched"):
        env.reset()


class Overheard:
    """The simulated arm, with what it was told and what it answered kept."""

    def __init__(self, arm) -> None:
        self._arm = arm
        self.told: list[np.ndarray] = []
        self.states: list[JointState] = []

    def __getattr__(self, name: str):
        return getattr(self._arm, name)

    def place(self, q):
        self.told, self.states = [], [self._arm.place(q)]
        return self.states[0]

    def exchange(self, torque):
        self.told.append(np.array(torque))
        self.states.append(self._arm.exchange(torque))
        return self.states[-1]


@pytest.fixture(scope="module")
def overheard() -> Iterator[tuple[ArmEnv, Overheard]]:
    env = ArmEnv(load_config("arm0-sim"))
    arm = Overheard(env.arm)
    env.arm = env.guard.arm = env.guard._bus._arm = arm
    yield env, arm
    env.close()


@given(
    action=arrays(np.float64, 6, elements=st.floats(-2.0, 2.0)),
    bad=st.dictionaries(st.integers(0, 5), st.sampled_from((np.nan, np.inf, -np.inf)), min_size=1),
    dtype=st.sampled_from((np.float64, np.float32)),
)
@settings(max_examples=40, deadline=None)
def test_an_action_that_is_not_finite_is_a_fault_and_never_a_torque(overheard, action, bad, dtype):
    """Clipping it, as np.clip does, would be full torque."""
    env, arm = overheard
    if env.guard.state is GuardState.FAULT:
        env.guard.clear_fault()
    env.reset(seed=0)
    for joint, value in bad.items():
        action[joint] = value
    *_, terminated, truncated, info = env.step(action.astype(dtype))
    assert (terminated, truncated, info["end"]) == (False, True, EpisodeEnd.FAULT)
    assert info["fault"].code is FaultCode.NOT_FINITE
    assert info["fault"].joint == min(bad)
    assert info["fault"].latched
    assert arm.torque_is_off()
    spec, body = arm.spec, RigidBody.from_config(env.config.robot)
    # The torque of a tick is made from the state that the tick before brought.
    for told, seen in zip(arm.told, arm.states, strict=False):
        beyond = np.abs(told - body.gravity(seen.q))
        assert (beyond <= spec.damping * np.abs(seen.dq) + 1e-9).all()


@pytest.mark.parametrize(
    "action",
    [0.5, np.float64(0.5), np.zeros(1), np.zeros(5), np.zeros(7), np.zeros((6, 1)), np.zeros((1, 6)), np.zeros(0), []],
)
def test_an_action_of_another_shape_is_refused_and_never_repeated_to_fit(env, action):
    env.reset(seed=0)
    ticks = env.guard.counters.ticks
    with pytest.raises(ValueError, match=re.escape(f"shape {np.shape(action)}, the arm takes (6,)")):
        env.step(action)
    assert env.guard.counters.ticks == ticks, "the arm was not moved"
    env.step([0.0] * 6)


def test_a_fault_tells_what_every_step_tells(env):
    def keys(info) -> set[str]:
        return set(info) - {"fault"}

    _, begun = env.reset(seed=0)
    *_, first_fault = env.step(np.full(6, np.inf))
    env.guard.clear_fault()
    env.reset()
    *_, usual = env.step(np.zeros(6))
    *_, later_fault = env.step(np.full(6, np.nan))
    assert keys(first_fault) == keys(usual) == keys(later_fault) == keys(begun) | {"applied", "flags"}
    assert later_fault["is_success"] is False
    assert later_fault["distance_m"] == usual["distance_m"], "the last one known"
    assert begun["distance_m"] == first_fault["distance_m"]


def test_a_state_that_is_not_finite_gives_the_last_observation_there_was(overheard):
    env, arm = overheard
    if env.guard.state is GuardState.FAULT:
        env.guard.clear_fault()
    env.reset(seed=0)
    seen, *_ = env.step(np.zeros(6))
    exchange = arm.exchange
    arm.exchange = lambda torque: replace(exchange(torque), q=np.full(6, np.nan))
    try:
        obs, *_, info = env.step(np.zeros(6))
    finally:
        del arm.exchange
    assert info["fault"].code is FaultCode.NOT_FINITE
    np.testing.assert_array_equal(obs, seen)


def test_a_reset_after_a_latched_fault_says_what_an_operator_has_to_do(env):
    env.reset(seed=0)
    env.step(np.full(6, np.nan))
    with pytest.raises(ArmStateError, match="not finite") as caught:
        env.reset()
    assert caught.value.command == "env.unwrapped.guard.clear_fault()"
    assert caught.value.command in str(caught.value), "who calls from Python sees nothing else"
    env.unwrapped.guard.clear_fault()
    env.reset()


@pytest.mark.parametrize("hold_s", [2.0, 2.5])
def test_a_hold_that_no_episode_can_contain_is_refused(hold_s):
    with pytest.raises(ConfigError, match=f"hold_s {hold_s:g} s must be below task.episode_s 2 s") as caught:
        ArmEnv(load_config("arm0-sim", overrides=[f"task.hold_s={hold_s}"]))
    assert caught.value.command == f"--set task.episode_s={4 * hold_s:g}"
    ArmEnv(load_config("arm0-sim", overrides=["task.hold_s=1.9"])).close()


def test_step_without_an_episode_is_refused(env):
    with pytest.raises(ArmStateError, match="reset"):
        env.step(np.zeros(6))


def test_the_observation_holds_the_applied_actions_newest_first(env):
    env.reset(seed=0)
    for value in (0.1, 0.2, 0.3):
        obs, *_, info = env.step(np.full(6, value))
        np.testing.assert_allclose(obs[-12:-6], info["applied"], atol=1e-6)
    np.testing.assert_allclose(obs[-12:-6], 0.3, atol=0.05)
    np.testing.assert_allclose(obs[-6:], 0.2, atol=0.05)


def test_what_the_caller_got_is_not_changed_later(env):
    obs, _ = env.reset(seed=0)
    _, _, _, _, info = env.step(np.full(6, 0.5))
    kept_obs, kept_applied = obs.copy(), info["applied"].copy()
    for _ in range(5):
        env.step(np.full(6, -0.5))
    env._running = False
    env.reset()
    np.testing.assert_array_equal(obs, kept_obs)
    np.testing.assert_array_equal(info["applied"], kept_applied)


def test_observations_stay_bounded_whatever_the_policy_does(env):
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(300):
        obs, _, terminated, truncated, _ = env.step(rng.choice((-1.0, 1.0), 6))
        assert (np.abs(obs) <= OBS_BOUND).all()
        if terminated or truncated:
            env.reset()


def test_the_contract_from_configuration_is_the_environments(env):
    assert robot_contract(load_config("arm0-sim")) == env.contract
    assert robot_contract(load_config("arm0")) == env.contract, "one policy for arm, twin and simulation"


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("task.history_steps=3", "history_steps"),
        ("task.tolerance_m=0.03", "task.tolerance_m is 0.02 here and 0.03 there"),
        ("robot.tip_site='tip'", ""),
        ("robot.guard.gravity_compensation=false", "model_digest"),
        ("task.name='hold'", "task"),
    ],
)
def test_the_contract_changes_with_what_a_policy_depends_on(env, override, word):
    overrides = [override] if "hold" not in override else ["task={name='hold'}"]
    other = robot_contract(load_config("arm0-sim", overrides=overrides))
    assert word in env.contract.difference(other)
    assert (other.digest() == env.contract.digest()) == (word == "")


def test_an_arm_that_cannot_be_placed_needs_an_explicit_start(env):
    class Unplaceable:
        """The simulated arm without its one privilege: what hardware looks like from above."""

        def __init__(self, arm) -> None:
            self._arm = arm

        def __getattr__(self, name: str):
            if name == "place":
                raise AttributeError(name)
            return getattr(self._arm, name)

    arm = Unplaceable(env.arm)
    env.arm = env.guard.arm = arm
    with pytest.raises(ArmStateError) as caught:
        env.reset()
    assert "start()" in caught.value.command
    env.start()
    env.reset(options={"home": True})
    np.testing.assert_allclose(env.guard.joints.q, arm.spec.home, atol=0.05)
