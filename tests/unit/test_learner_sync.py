"""``train --sync``: the loop against a world whose every number is known, the worlds it is given, the command."""

from __future__ import annotations

import json
import math
import signal
import threading
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from cli_world import run as typed
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, Sequence, Tuple
from sync_world import CPU, RANDOM, Ladder, ladder, learn_config, run

from robotsac.cli.arm_world import ArmWorld
from robotsac.cli.checked_env import control_rate_of, make_env
from robotsac.cli.gym_world import GymWorld
from robotsac.config import load_config, load_learner_settings
from robotsac.config.entropy import GAUSSIAN_ENTROPY_NATS
from robotsac.errors import ConfigError, DriverUnavailable, RobotsacError, TaskError
from robotsac.learner.outcomes import SeveralSteps, SingleSteps
from robotsac.learner.streams import Streams
from robotsac.learner.sync import Hooks, Plan, SyncLearning
from robotsac.learner.sync_progress import Evaluation
from robotsac.learner.world import Outcome, Seeds
from robotsac.records import EpisodeEnd, Flag, record_dtype, transitions

ROOT = Path(__file__).parents[2]
SEEDS = Seeds(1, 2, 3)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.set_flush_denormal(False)


# ---- the loop -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_step", [0.3, 1.0, 2.5])
def test_as_many_updates_are_done_as_the_configuration_says(per_step):
    learning = ladder(60, updates_per_step=per_step)
    run(learning)
    # Every third episode ends in a FAULT, whose step makes no transition: 60 steps are 12 episodes with 4 of them.
    assert learning.replay.total == 56
    assert learning.state.updates == math.floor(per_step * (56 - 20))


def test_actions_are_random_until_there_is_enough_to_learn_from_and_the_policys_afterwards():
    learning = ladder(40)
    run(learning)
    asked = learning.world.asked
    # 21 steps make the first 20 transitions: the 15th step ended in a FAULT.
    assert asked[:21] == [RANDOM] * 21
    assert RANDOM not in asked[21:]


def test_the_replay_holds_what_was_applied_the_true_last_state_and_whether_it_was_terminal():
    learning = ladder(30, start_steps=1000)
    run(learning)
    rows = learning.replay.rows(0, learning.replay.total).numpy()
    obs, action, reward, after, terminal = rows[:, :2], rows[:, 2], rows[:, 3], rows[:, 4:6], rows[:, 6]
    assert (obs[:, 0] == after[:, 0]).all(), "no transition crosses an episode"
    assert (after[:, 1] == obs[:, 1] + 1).all()
    assert (reward == 10.0 * after[:, 1]).all()
    assert (action == np.float32(0.5 * RANDOM)).all(), "half of what was asked for is what was carried out"
    last = after[:, 1] == 5
    assert (terminal == (last & (after[:, 0] % 3 == 0))).all(), "a termination has no value behind it, a time limit has"
    assert sorted(after[last, 0]) == [0, 1, 3, 4], "what ended in a fault is no evidence"


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    def weights(seed: int) -> torch.Tensor:
        learning = ladder(60, seed=seed)
        run(learning)
        return torch.cat([tensor.flatten() for tensor in learning.state.actor.state_dict().values()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.allclose(weights(1), weights(2))


class Target(Ladder):
    """Episodes of one step; the reward is best, 0, at the action 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)

    def step(self, action) -> Outcome:
        self.at = 5
        return Outcome(self._obs() * 0, -float((action[0] - 0.5) ** 2), action, EpisodeEnd.FAILURE, None)

    def reset(self, held_out: int | None = None):
        return super().reset(held_out) * 0

    def random_action(self):
        return np.array([self.rng.uniform(-1.0, 1.0)], np.float32)

    def noise(self, size: int):
        return self.rng.standard_normal(size, dtype=np.float32)


def test_it_learns():
    learning = SyncLearning(
        learn_config(hidden=(32, 32), temperature_init=0.02, target_sigma=0.1, batch_size=32, critic_lr=3e-3),
        Plan(200, 200, 1),
        Target(),
        Target(),
        None,
        CPU,
    )
    (evaluation,) = run(learning)
    # A policy that does not learn acts by 0, and gets -0.25; 0.1 off gets -0.01.
    assert evaluation.returns[0] > -0.02


def test_evaluating_changes_nothing():
    often, once = ladder(60, eval_every=7), ladder(60)
    assert len(run(often)) == 9  # at 7, 14, … 56, and at the end
    assert len(run(once)) == 1
    for name, tensor in often.state.critic.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(tensor, once.state.critic.state_dict()[name])  # type: ignore[attr-defined]
    assert often.world.asked == once.world.asked


def test_an_evaluation_counts_whole_episodes_without_noise_on_the_held_out_ones():
    learning = ladder(60, eval_episodes=3)
    (evaluation,) = run(learning)
    assert evaluation.returns == (150.0, 150.0, 150.0)
    assert evaluation.success_rate == pytest.approx(1 / 3)
    assert evaluation.episode_steps == 5
    changes = 0.5 * np.diff(np.array(learning._exam.asked).reshape(3, 5))  # half of what is asked is applied
    assert evaluation.action_rate == pytest.approx(np.sqrt(np.mean(changes**2))) and changes.any()
    assert learning._exam.held_out == [0, 1, 2]
    obs = np.array([0, 0], np.float32)
    assert learning._exam.asked[0] == learning.action(obs, np.zeros(1, np.float32))[0]
    line = evaluation.line()
    assert (line["return_mean"], line["return_std"], line["env_steps"], line["updates"]) == (150.0, 0.0, 60, 72)
    assert {"critic_loss", "q", "actor_loss", "alpha", "entropy"} <= line.keys()
    json.dumps(line, allow_nan=False)


def test_a_run_that_diverges_ends_with_an_error_that_says_so():
    learning = ladder(60)
    with torch.no_grad():
        learning.state.actor.last.bias.fill_(math.nan)
    with pytest.raises(RobotsacError, match="diverged"):
        run(learning)
    assert learning.env_steps == 21, "at the first action of the policy, before it reaches the world"


def test_losses_that_are_no_numbers_end_a_run_too():
    learning = ladder(60, eval_every=30, actor_delay=1000)  # the actor learns nothing of it
    with torch.no_grad():
        next(iter(learning.state.critic.parameters())).fill_(math.inf)  # type: ignore[attr-defined]
    with pytest.raises(RobotsacError, match="critic_loss"):
        run(learning)


def test_a_request_to_stop_is_obeyed_at_the_next_step_and_nothing_is_evaluated():
    learning = ladder(1000)
    found: list[Evaluation] = []
    learning.run(Hooks(should_stop=lambda: learning.env_steps >= 13, on_evaluation=found.append))
    assert learning.env_steps == 13
    assert not found


def test_a_request_to_stop_is_obeyed_between_two_updates_of_a_step_too():
    learning = ladder(60, eval_every=22, updates_per_step=10)
    found: list[Evaluation] = []
    learning.run(Hooks(should_stop=lambda: learning.state.updates >= 3, on_evaluation=found.append))
    assert (learning.env_steps, learning.state.updates) == (22, 3), "of the ten of the first step that has any"
    assert not found


def test_an_evaluation_that_is_stopped_in_the_middle_does_not_count():
    learning = ladder(10, eval_episodes=3)
    found: list[Evaluation] = []
    learning.run(Hooks(should_stop=lambda: len(learning._exam.asked) >= 7, on_evaluation=found.append))
    assert learning._exam.held_out == [0, 1]
    assert not found


def test_seeds_are_all_different_and_neighbouring_runs_share_none():
    def numbers(seed: int) -> list[int]:
        streams = Streams.of(seed)
        of_worlds = [s for w in (streams.world, streams.exam) for s in (w.episodes, w.random_action, w.noise)]
        return [*of_worlds, streams.replay, streams.update, streams.prior]

    drawn = [number for seed in range(22) for number in numbers(seed)]
    assert len(set(drawn)) == len(drawn) == 22 * 9
    assert all(0 <= number < 2**31 for number in drawn)


def test_a_horizon_without_a_control_rate_is_refused_and_a_discount_will_do():
    with pytest.raises(ConfigError, match=r"learn\.discount is not set"):
        ladder(10, discount="from_horizon")
    rated = SyncLearning(
        learn_config(discount="from_horizon", horizon_s=0.5), Plan(10, 10, 1), Ladder(), Ladder(), 20.0, CPU
    )
    assert rated.state.constants.discount == pytest.approx(0.9)  # type: ignore[attr-defined]


def test_prior_data_is_refused_since_nothing_reads_it():
    with pytest.raises(ConfigError, match="not possible with --sync"):
        ladder(10, prior_data=("x",))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_steps_that_are_joined_as_they_come_are_those_of_the_whole_record(n):
    """Against the path that a robot's records take, and counted: one transition starts at each step that is evidence."""
    world, joiner = Ladder(), SeveralSteps(n, 0.9, 2, 1) if n > 1 else SingleSteps()
    made, rows = [], []
    obs = world.reset()
    for _ in range(45):
        outcome = world.step(np.full(1, 0.1, np.float32))
        found = joiner.add(obs, outcome)
        made += [found] if found is not None else []
        ended = outcome.end is not EpisodeEnd.RUNNING
        rows.append((world.episode, obs, outcome.applied, outcome.reward, EpisodeEnd.RUNNING, Flag.NONE))
        if ended:
            rows.append((world.episode, outcome.obs, 0.0, 0.0, outcome.end, Flag.FINAL))
        obs = world.reset() if ended else outcome.obs
    records = np.zeros(len(rows), record_dtype(2, 1))
    for name, column in zip(
        ("episode", "obs", "action_applied", "reward", "end", "flags"), zip(*rows, strict=True), strict=True
    ):
        for row, value in enumerate(column):
            records[name][row] = value
    records["seq"] = np.arange(len(rows))
    single = transitions(records)
    assert sum(len(found) for found in made) == len(single) == 45 - 3
    got = {field: np.concatenate([getattr(found, field) for found in made]) for field in ("obs", "reward", "next_obs")}
    assert (got["obs"] == single.obs).all()
    ahead = np.minimum(got["obs"][:, 1] + n, np.where(got["obs"][:, 0] % 3 == 2, 4, 5))
    assert (got["next_obs"][:, 1] == ahead).all()
    for row in range(len(single)):
        first, last = int(got["obs"][row, 1]) + 1, int(ahead[row])
        total = sum(0.9**k * 10.0 * at for k, at in enumerate(range(first, last + 1)))
        assert got["reward"][row] == pytest.approx(total, rel=1e-6)


def test_n_step_runs_in_the_loop():
    learning = ladder(60, n_step=3)
    run(learning)
    assert learning.replay.total == 56
    steps = learning.replay.rows(0, learning.replay.total)[:, -1]
    assert set(steps.tolist()) == {1.0, 2.0, 3.0}


# ---- gymnasium's worlds -------------------------------------------------------------------------------------------------


class Box2x2(gymnasium.Env):
    """Observations are matrices, all in one array that is written anew; actions a matrix between uneven bounds."""

    dt = 0.02

    def __init__(self, action: gymnasium.Space | None = None, observation: gymnasium.Space | None = None) -> None:
        low, high = np.array([[-0.1, -3.0, 0.0]], np.float32), np.array([[0.4, -1.0, 1e6]], np.float32)
        self.action_space = Box(low, high) if action is None else action
        self.observation_space = Box(-np.inf, np.inf, (2, 2)) if observation is None else observation
        self.array = np.zeros((2, 2))
        self.got: list[np.ndarray] = []
        self.reward, self.last = 1.0, (False, False, {})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.array[:] = self.np_random.uniform(size=(2, 2))
        return self.array, {}

    def step(self, action):
        self.got.append(action)
        self.array += 1.0
        return self.array, self.reward, *self.last


def test_actions_reach_uneven_bounds_exactly_and_the_middle_is_the_middle():
    env = Box2x2()
    world = GymWorld(env, SEEDS)
    assert (world.obs_dim, world.act_dim) == (4, 3)
    world.reset()
    for share in (-1.0, 0.0, 1.0):
        world.step(np.full(3, share, np.float32))
    assert env.got[0].shape == (1, 3) and env.got[0].dtype == np.float32
    np.testing.assert_array_equal(env.got[0], env.action_space.low)
    np.testing.assert_allclose(env.got[1], [[0.15, -2.0, 5e5]], rtol=1e-6)
    np.testing.assert_array_equal(env.got[2], env.action_space.high)
    assert all(env.action_space.contains(got) for got in env.got)


def test_an_observation_is_flat_and_stays_as_it_was_when_the_environment_writes_over_its_array():
    world = GymWorld(Box2x2(), SEEDS)
    first = world.reset()
    kept = first.copy()
    second = world.step(np.zeros(3, np.float32)).obs
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_allclose(second, kept + 1.0, rtol=1e-6)
    assert first.shape == (4,) and first.dtype == np.float32


@pytest.mark.parametrize(
    ("last", "end", "success"),
    [
        ((False, False, {}), EpisodeEnd.RUNNING, None),
        ((True, False, {}), EpisodeEnd.FAILURE, None),
        ((True, True, {}), EpisodeEnd.FAILURE, None),
        ((False, True, {}), EpisodeEnd.TIME_LIMIT, None),
        ((True, False, {"is_success": np.True_}), EpisodeEnd.SUCCESS, True),
        ((False, True, {"is_success": 1.0}), EpisodeEnd.TIME_LIMIT, True),
        ((False, True, {"is_success": 0.0}), EpisodeEnd.TIME_LIMIT, False),
    ],
)
def test_how_an_episode_stands_is_read_from_gymnasiums_flags(last, end, success):
    env = Box2x2()
    world = GymWorld(env, SEEDS)
    world.reset()
    env.last = last
    outcome = world.step(np.zeros(3, np.float32))
    assert (outcome.end, outcome.success) == (end, success)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (Box2x2(action=Discrete(3)), "Discrete"),
        (Box2x2(action=Box(-np.inf, np.inf, (2,))), "bound"),
        (Box2x2(action=Box(0, 3, (2,), np.int64)), "real numbers"),
        (Box2x2(observation=Sequence(Box(-1, 1, (2,)))), "a Sequence, which cannot be flattened"),
        (Box2x2(observation=Dict({"q": Sequence(Box(-1, 1, (2,)))})), "a Dict, which cannot be flattened"),
        (Box2x2(observation=Space((2,), np.float32)), "a Space, which cannot be flattened"),
    ],
)
def test_spaces_that_sac_does_not_fit_are_refused_with_the_reason(env, words):
    with pytest.raises(ConfigError) as caught:
        GymWorld(env, SEEDS)
    assert words in caught.value.reason
    assert caught.value.command


@pytest.mark.parametrize(
    ("space", "given", "flat"),
    [
        (
            Dict({"q": Box(-1, 1, (2, 2)), "goal": Box(-9, 9, (1,))}),
            {"q": np.array([[0.1, 0.2], [0.3, 0.4]]), "goal": np.array([7.0])},
            [7.0, 0.1, 0.2, 0.3, 0.4],  # by name
        ),
        (Tuple((Box(-1, 1, (2,)), Discrete(3))), (np.array([0.5, -0.5]), 1), [0.5, -0.5, 0.0, 1.0, 0.0]),
        (Dict({"in": Dict({"a": Box(-1, 1, (1,))})}), {"in": {"a": np.array([0.25])}}, [0.25]),
    ],
    ids=["dict", "tuple", "nested"],
)
def test_observations_of_several_parts_are_flattened(space, given, flat):
    env = Box2x2(observation=space)
    env.array = given
    env.reset = lambda **seeded: (given, {})
    env.step = lambda action: (given, 1.0, False, False, {})
    world = GymWorld(env, SEEDS)
    assert world.obs_dim == len(flat)
    for obs in (world.reset(), world.step(np.zeros(3, np.float32)).obs):
        assert obs.dtype == np.float32
        np.testing.assert_array_equal(obs, np.array(flat, np.float32))


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_a_number_that_is_not_finite_never_reaches_the_replay(what):
    env = Box2x2()
    world = GymWorld(env, SEEDS)
    world.reset()
    if what == "reward":
        env.reward = math.nan
    else:
        env.array[0, 0] = math.inf
    with pytest.raises(TaskError, match=what):
        world.step(np.zeros(3, np.float32))


def test_held_out_episodes_begin_the_same_each_time_and_training_episodes_do_not():
    world = GymWorld(Box2x2(), SEEDS)
    training = [world.reset() for _ in range(3)]
    held_out = [world.reset(held_out=k) for k in (0, 1, 0)]
    np.testing.assert_array_equal(held_out[0], held_out[2])
    assert not np.array_equal(held_out[0], held_out[1])
    assert not np.array_equal(training[1], training[2])
    again = GymWorld(Box2x2(), SEEDS)
    np.testing.assert_array_equal([again.reset() for _ in range(3)], training)


@pytest.mark.parametrize(("hold_s", "steps"), [(0.0, 1), (0.06, 3)])
def test_noise_is_held_as_long_as_asked_and_drawn_anew_with_each_episode(hold_s, steps):
    world = GymWorld(Box2x2(), SEEDS, hold_s)  # 0.02 s a step
    world.reset()
    drawn = np.array([world.noise(3) for _ in range(6)])
    rng = np.random.default_rng(SEEDS.noise)
    fresh = [rng.standard_normal(3, dtype=np.float32) for _ in range(9)]
    np.testing.assert_array_equal(drawn, np.repeat(fresh, steps, axis=0)[:6])
    world.noise(3)
    world.reset()
    np.testing.assert_array_equal(world.noise(3), fresh[6 // steps + 1])


def test_noise_is_held_only_where_a_step_has_a_length():
    with pytest.raises(ConfigError, match="no length in seconds") as caught:
        GymWorld(make_env("MountainCarContinuous-v0"), SEEDS, 0.1)
    assert caught.value.command == "--set collect.noise_hold_s=0"
    GymWorld(make_env("MountainCarContinuous-v0"), SEEDS)


def test_a_control_rate_is_what_the_environment_says():
    assert control_rate_of(make_env("Pendulum-v1")) == pytest.approx(20.0)
    assert control_rate_of(Box2x2()) == pytest.approx(50.0)
    assert control_rate_of(make_env("MountainCarContinuous-v0")) is None


@pytest.mark.parametrize(
    ("env_id", "error"),
    [("Pandulum-v1", ConfigError), ("Pendulum-v99", ConfigError), ("not_a_module:Pendulum-v1", DriverUnavailable)],
)
def test_an_environment_that_is_not_there_is_said_in_words(env_id, error):
    with pytest.raises(error) as caught:
        make_env(env_id)
    assert caught.value.reason and caught.value.command


def test_a_mujoco_task_of_gymnasium_opens_and_leaves_no_log_behind(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    env = make_env("HalfCheetah-v4")
    world = GymWorld(env, SEEDS)
    assert (world.obs_dim, world.act_dim, control_rate_of(env)) == (17, 6, pytest.approx(20.0))
    world.reset()
    assert world.step(world.random_action()).end is EpisodeEnd.RUNNING
    world.close()
    assert not list(tmp_path.iterdir())


# ---- the arm ------------------------------------------------------------------------------------------------------------


def test_the_arm_learns_from_what_was_applied_and_evaluates_on_the_goals_of_eval():
    config = load_config("arm0-sim")
    world = ArmWorld(config, SEEDS)
    try:
        assert (world.obs_dim, world.act_dim) == (world.contract.obs_dim, world.contract.act_dim)
        world.reset()
        outcomes = [world.step(np.full(6, 1.0, np.float32)) for _ in range(5)]
        assert all((np.abs(outcome.applied) <= 1.0).all() for outcome in outcomes)
        assert (outcomes[0].applied < 0.999).any(), "the guard's limit on jumps held some of it back"
        assert outcomes[0].success is False
        first = world.reset(held_out=0)
        world.step(np.full(6, 0.5, np.float32))
        np.testing.assert_array_equal(world.reset(held_out=0), first)
        assert not np.array_equal(world.reset(held_out=1), first)
        assert (np.abs([world.random_action() for _ in range(20)]) < 1.0).all()
    finally:
        world.close()


def test_an_arm_in_real_time_is_refused():
    with pytest.raises(ConfigError, match="real time"):
        ArmWorld(load_config("arm0-twin"), SEEDS)


# ---- the recipe ---------------------------------------------------------------------------------------------------------


def test_the_recipe_for_gymnasium_is_sac_as_published():
    learn = load_learner_settings([ROOT / "configs/gym.toml"]).learn
    # Haarnoja et al. 2018b, table 1; the target entropy is -1 per dimension.
    assert GAUSSIAN_ENTROPY_NATS + math.log(learn.target_sigma) == pytest.approx(-1.0, abs=1e-3)
    assert (learn.discount, learn.polyak, learn.batch_size, learn.updates_per_step) == (0.99, 0.005, 256, 1.0)
    assert learn.hidden == (256, 256) and not learn.critic_layer_norm
    assert learn.actor_lr == learn.critic_lr == learn.temperature_lr == 3e-4


# ---- the command --------------------------------------------------------------------------------------------------------

QUICK = (
    "--env Pendulum-v1 --eval-episodes 2 --set learn.hidden=[8] --set learn.start_steps=100 --set learn.batch_size=16 "
)
QUICK += "--set learn.device=cpu --set learn.discount=0.9 --set learn.n_step=1"


def command(monkeypatch, capsys, text: str) -> tuple[int, str, str]:
    return typed(monkeypatch, capsys, "train", *text.split())


def test_a_run_leaves_its_settings_its_evaluations_its_picture_and_its_summary(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = f"--sync {QUICK} --steps 300 --eval-every 200 --seed 5 --run a --json"
    code, out, _ = command(monkeypatch, capsys, text)
    assert code == 0
    folder = tmp_path / "runs/a"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["env_steps"], line["updates"], line["seed"]) for line in lines] == [(200, 200, 5), (300, 400, 5)]
    assert all(len(line["returns"]) == 2 and -2000 < line["return_mean"] < 0 for line in lines)
    assert lines[0]["success_rate"] is None
    summary = json.loads(out.splitlines()[-1])
    assert summary == json.loads((folder / "summary.json").read_text())
    assert summary["finished"] and summary["return_mean"] == lines[-1]["return_mean"]
    assert not summary["interrupted"] and summary["command"] is None
    assert sum(summary["share"].values()) == pytest.approx(1.0, abs=1e-3)
    config = json.loads((folder / "config.json").read_text())
    assert (config["env"], config["learn"]["seed"], config["plan"]["steps"]) == ("Pendulum-v1", 5, 300)
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = command(monkeypatch, capsys, text)
    assert code == 2
    assert "exists already" in err and "--run a-2" in err


def test_noise_that_is_held_is_another_run_and_is_kept_to_go_on(monkeypatch, capsys, tmp_path):
    """Within the 0.1 s two steps of Pendulum have the same noise."""
    monkeypatch.chdir(tmp_path)
    seen: list[tuple[float, ...]] = []
    act = SyncLearning.action

    def note(self, obs, noise):
        seen.append(tuple(noise))
        return act(self, obs, noise)

    monkeypatch.setattr(SyncLearning, "action", note)
    code, _, err = command(monkeypatch, capsys, f"--sync {QUICK} --steps 110 --run a --set collect.noise_hold_s=0.1")
    assert code == 0, err
    acted = [noise for noise in seen if any(noise)]  # an evaluation has none
    assert len(acted) == 10 and acted[0::2] == acted[1::2] and len(set(acted)) == 5
    kept = json.loads((tmp_path / "runs/a/config.json").read_text())
    assert kept["collect"]["noise_hold_s"] == 0.1


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("--env Pendulum-v1", 2, ["--sync --env Pendulum-v1"]),
        ("--sync --until-success 0.9", 2, ["there is no --until-success with --sync"]),
        ("--sync", 2, ["arm0-twin", "--robot arm0-sim"]),
        ("--sync --env CartPole-v1", 2, ["Discrete", "--env Pendulum-v1"]),
        ("--sync --env MountainCarContinuous-v0", 2, ["learn.discount=0.99"]),
        ("--sync --env Pandulum-v1", 2, ["Pandulum"]),
        (
            "--sync --env Pendulum-v1 --set learn.prior_data=['x']",
            2,
            ["learn.prior_data is not possible with --sync", "--set 'learn.prior_data=[]'"],
        ),
        ("--sync --robot arm0-sim --set learn.prior_data=['x']", 2, ["not possible with --sync"]),
        ("--sync --env Pendulum-v1 --set learn.horizon_s=0.01", 2, ["horizon_s"]),
        (
            "--sync --env MountainCarContinuous-v0 --set learn.discount=0.99 --set collect.noise_hold_s=0.2",
            2,
            ["collect.noise_hold_s is 0.2 s", "--set collect.noise_hold_s=0"],
        ),
        ("--sync --env Pendulum-v1 --set collect.noise_hold=0.2", 2, ["did you mean 'noise_hold_s'?"]),
    ],
)
def test_what_cannot_be_trained_is_refused_in_words_and_leaves_nothing_behind(
    monkeypatch, capsys, tmp_path, text, code, words
):
    monkeypatch.setenv("ROBOTSAC_CONFIG_DIR", str(ROOT / "configs"))
    monkeypatch.chdir(tmp_path)
    got, _, err = command(monkeypatch, capsys, text)
    assert got == code, err
    assert "Traceback" not in err
    for word in words:
        assert word in err, err
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_stopped_before_its_first_step_still_writes_valid_json(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SyncLearning, "run", lambda self, hooks: signal.raise_signal(signal.SIGTERM))
    code, out, _ = command(monkeypatch, capsys, f"--sync {QUICK} --steps 300 --run a --json")
    assert code == 130
    assert "NaN" not in out
    summary = json.loads(out.splitlines()[-1])
    assert summary["steps"] == 0 and summary["interrupted"]


@pytest.mark.parametrize("as_json", [True, False])
def test_ctrl_c_ends_in_order_and_says_how_it_goes_on_and_nothing_that_looks_like_a_result(
    monkeypatch, capsys, tmp_path, as_json
):
    monkeypatch.chdir(tmp_path)
    metrics, ended = tmp_path / "runs/a/metrics.jsonl", threading.Event()

    def interrupt() -> None:
        while not ended.wait(0.01):
            if metrics.exists() and metrics.read_text().count("\n") >= 2:
                signal.raise_signal(signal.SIGINT)
                return

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        text = f"--sync {QUICK} --steps 1000000 --eval-every 120 --run a" + " --json" * as_json
        code, out, err = command(monkeypatch, capsys, text)
    finally:
        ended.set()
        thread.join()
    assert code == 130
    summary = json.loads((tmp_path / "runs/a/summary.json").read_text())
    assert summary["interrupted"] and not summary["finished"]
    assert 240 <= summary["steps"] < 1_000_000
    assert summary["command"] == "robotsac train --sync --resume --run a"
    told = f"interrupted at step {summary['steps']:,} of 1,000,000; it goes on with\n  {summary['command']}\n"
    assert err.endswith(told)
    assert json.loads(out) == summary if as_json else out == ""
    assert (tmp_path / "runs/a/learning_curve.png").exists()
