"""The episode loop and what surrounds it, on the simulated arm."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from robotsac.actor.actor import Actor, ActorArgs, StepRate
from robotsac.actor.board import ACTOR_FIELDS, Phase
from robotsac.actor.episodes import EpisodeRunner
from robotsac.actor.evaluate import Evaluation
from robotsac.actor.random_policy import SmoothRandom
from robotsac.actor.status import CollectStatus, LinkWatch
from robotsac.actor.uplink_block import LIMIT_NONE, LIMIT_NOTHING, UPLINK_FIELDS, LinkPhase
from robotsac.child_error import read_child_error, read_logged_error, write_child_error
from robotsac.config import load_config
from robotsac.env.arm_env import ArmEnv
from robotsac.errors import BusTimeout, ConfigError, LinkError
from robotsac.records import EpisodeEnd, Flag, transitions
from robotsac.shared import SharedBlock


class NoPolicy:
    def swap(self) -> None:
        return None


def never() -> bool:
    return False


@pytest.fixture
def env():
    env = ArmEnv(load_config("arm0-sim", overrides=["task.episode_s=0.4", "task.hold_s=0.2"]))
    env.start()
    yield env
    env.close()


def run(env: ArmEnv, episodes: int = 1, hold_s: float = 0.2) -> np.ndarray:
    kept: list[np.ndarray] = []
    runner = EpisodeRunner(
        env, NoPolicy(), lambda record: kept.append(record.copy()) or True, seed=0, random_hold_s=hold_s
    )
    for _ in range(episodes):
        runner.run(never)
    return np.stack(kept)


def test_an_episode_of_t_steps_is_t_plus_one_records_with_the_true_final_observation(env):
    records = run(env)
    assert len(records) == 21
    np.testing.assert_array_equal(records["seq"], np.arange(21))
    assert (records["end"][:-1] == EpisodeEnd.RUNNING).all()
    assert records["end"][-1] == EpisodeEnd.TIME_LIMIT
    assert records["flags"][-1] & Flag.FINAL
    assert (records["flags"][:-1] & Flag.RANDOM).all(), "no policy: random actions, and they say so"
    assert (np.diff(records["t_ns"]) >= 0).all()
    assert len(transitions(records)) == 20


def test_records_hold_what_was_asked_and_what_was_applied(env):
    records = run(env, hold_s=1e-6)[:-1]
    assert (np.abs(records["action_asked"]) <= 1).all()
    assert (np.abs(records["action_applied"]) <= 1).all()
    assert np.abs(records["action_asked"] - records["action_applied"]).max() > 0, (
        "the rate limit acts on jumps from end to end"
    )


def test_the_next_records_observation_is_the_one_the_step_led_to(env):
    records = run(env, episodes=2)
    result = transitions(records)
    first = records[records["episode"] == 1]
    np.testing.assert_array_equal(result.next_obs[:20], first["obs"][1:])


def test_sequence_goes_on_over_episodes(env):
    records = run(env, episodes=3)
    np.testing.assert_array_equal(records["seq"], np.arange(len(records)))
    assert sorted(set(records["episode"])) == [1, 2, 3]


def test_a_stop_ends_the_episode_as_operator_and_holds_the_arm(env):
    kept: list[np.ndarray] = []
    runner = EpisodeRunner(
        env, NoPolicy(), lambda record: kept.append(record.copy()) or True, seed=0, random_hold_s=0.2
    )
    summary = runner.run(lambda: len(kept) >= 5)
    assert summary.end is EpisodeEnd.OPERATOR
    assert kept[-1]["end"] == EpisodeEnd.OPERATOR
    assert transitions(np.stack(kept)).terminal.sum() == 0
    env.guard.idle()


def test_a_full_ring_stops_the_episode_and_loses_nothing_that_was_taken(env):
    kept: list[np.ndarray] = []

    def emit(record: np.ndarray) -> bool:
        if len(kept) >= 7:
            return False
        kept.append(record.copy())
        return True

    runner = EpisodeRunner(env, NoPolicy(), emit, seed=0, random_hold_s=0.2)
    summary = runner.run(never)
    assert runner.overflowed
    assert summary.end is EpisodeEnd.OPERATOR
    np.testing.assert_array_equal(np.stack(kept)["seq"], np.arange(7))


def test_the_same_seed_draws_the_same_noise(env):
    one = run(env)["action_asked"]
    two = run(env)["action_asked"]
    np.testing.assert_array_equal(one, two)


def test_random_actions_are_smooth_bounded_and_cover_both_signs():
    policy = SmoothRandom(3, hold_s=0.2, dt_s=0.02, rng=np.random.default_rng(0))
    actions = np.array([policy.action() for _ in range(20_000)])
    assert (np.abs(actions) <= 1).all()
    assert (actions.min(axis=0) < -0.8).all()
    assert (actions.max(axis=0) > 0.8).all()
    correlation = np.corrcoef(actions[:-10, 0], actions[10:, 0])[0, 1]
    assert 0.25 < correlation < 0.5, "exp(-1) after one correlation time"


def test_the_status_line_says_what_an_operator_asks():
    actor, uplink = SharedBlock.create(ACTOR_FIELDS), SharedBlock.create(UPLINK_FIELDS)
    try:
        actor["phase"], actor["steps"], actor["overruns"] = Phase.MOVING, 3200, 4
        actor["recent_successes"], actor["recent_episodes"], actor["policy_version"] = 42, 50, 41
        actor["rate_millihz"], uplink["unsent"], uplink["link_state"] = 49_980, 7, LinkPhase.UP
        line = CollectStatus.read("arm0", 64.0, actor, uplink).line()
    finally:
        for block in (actor, uplink):
            block.close()
            block.unlink()
    for words in ("arm0 moving", "3,200 steps", "50.0 Hz", "overruns 4", "84%", "policy v41", "unsent 7", "link up"):
        assert words in line


def test_news_of_the_link_are_told_once_even_when_old_ones_were_dropped(tmp_path):
    path = tmp_path / "uplink-status.json"
    watch = LinkWatch(path)
    assert list(watch.news()) == []
    path.write_text(json.dumps({"events": ["a", "b"], "events_dropped": 0}))
    assert list(watch.news()) == ["a", "b"]
    assert list(watch.news()) == []
    path.write_text(json.dumps({"events": ["b", "c", "d"], "events_dropped": 1}))
    assert list(watch.news()) == ["c", "d"]
    assert watch.error() is None
    path.write_text(json.dumps({"events": [], "events_dropped": 4, "message": "full", "reason": "r", "exit_code": 6}))
    assert watch.error().exit_code == 6


def write_events(path, *events, dropped=0, **more):
    path.write_text(json.dumps({"events": events, "events_dropped": dropped, **more}))


def test_a_refusal_is_told_once_however_often_the_link_tries_again_and_anew_when_it_changes(tmp_path):
    path, watch, told = tmp_path / "uplink-status.json", LinkWatch(tmp_path / "uplink-status.json"), []
    rounds = ["dialling tcp://x", "refused: two collectors named arm0"]
    for count in range(1, 4):
        write_events(path, *(rounds * count))
        told += watch.news()
    assert told == rounds
    write_events(path, *(rounds * 3), "refused: this run learns for another robot or task")
    assert list(watch.news()) == ["refused: this run learns for another robot or task"]
    write_events(path, *(rounds * 3), "x", "welcome to run pick-1 at tcp://x", rounds[1])
    assert list(watch.news()) == ["welcome to run pick-1 at tcp://x", rounds[1]], "the link was up in between"


def test_a_refusal_that_ends_the_run_is_left_to_the_error_that_tells_it_in_full(tmp_path):
    path = tmp_path / "uplink-status.json"
    words = {"message": "two collectors named arm0", "reason": "r", "command": "c"}
    write_events(
        path, "dialling x", "refused: two collectors named arm0", "two collectors named arm0 (r)", **words, exit_code=5
    )
    watch = LinkWatch(path)
    assert list(watch.news()) == ["dialling x"]
    assert watch.error().message == "two collectors named arm0"
    write_events(path, "dialling x", "disk full (r)", message="disk full", reason="r", command="c", exit_code=6)
    assert list(LinkWatch(path).news()) == ["dialling x", "disk full (r)"], "why a moving arm is being parked is news"


def test_the_rate_is_known_from_the_first_step_and_the_way_home_does_not_count():
    rate = StepRate()
    rate.begin(0)
    assert rate.step(20_000_000) == pytest.approx(50.0)
    for step in range(2, 100):
        assert rate.step(step * 20_000_000) == pytest.approx(50.0)
    rate.begin(10_000_000_000)
    assert rate.step(10_020_000_000) == pytest.approx(50.0)
    assert rate.step(10_120_000_000) < 45.0, "a slow step shows"


def test_an_episode_says_when_it_begins_after_the_way_home_and_before_the_first_step(env):
    order, runner = [], EpisodeRunner(env, NoPolicy(), lambda record: True, seed=0, random_hold_s=0.2)
    settle = env.guard.settle
    env.guard.settle = lambda *args: (order.append("home"), settle(*args))[1]
    runner.run(never, lambda: order.append("step"), {"home": True}, lambda: order.append("begin"))
    assert order[:3] == ["home", "begin", "step"]
    assert order.count("begin") == 1


@pytest.fixture
def boards():
    actor, uplink = SharedBlock.create(ACTOR_FIELDS), SharedBlock.create(UPLINK_FIELDS)
    yield actor, uplink
    for block in (actor, uplink):
        block.close()
        block.unlink()


@pytest.mark.parametrize("phase", list(Phase))
def test_the_status_line_names_the_phase(boards, phase):
    actor, uplink = boards
    actor["phase"] = phase
    line = CollectStatus.read("arm0", 1.0, actor, uplink).line()
    waits = phase in (Phase.WAITING_FOR_LEARNER, Phase.HOLDING)
    name = phase.name.lower().removesuffix("_for_learner")
    assert line.startswith(f"arm0 {name}{' (' if waits else '  '}")


@pytest.mark.parametrize(
    ("phase", "link", "limit", "updates", "words"),
    [
        (Phase.WAITING_FOR_LEARNER, LinkPhase.STARTING, LIMIT_NONE, 0, "the uplink is opening the spool"),
        (Phase.WAITING_FOR_LEARNER, LinkPhase.CONNECTING, LIMIT_NONE, 0, "no learner answers yet"),
        (Phase.WAITING_FOR_LEARNER, LinkPhase.REFUSED, LIMIT_NONE, 0, "the learner refuses this robot"),
        (Phase.HOLDING, LinkPhase.DOWN, LIMIT_NONE, 7, "the link is down"),
        (Phase.HOLDING, LinkPhase.UP, LIMIT_NOTHING, 0, "the learner takes older records first"),
        (Phase.HOLDING, LinkPhase.UP, 396, 0, "the learner has what it begins with and prepares its first update"),
        (Phase.HOLDING, LinkPhase.UP, 396, 7, "the learner is behind, its credit is used up"),
        (Phase.MOVING, LinkPhase.DOWN, LIMIT_NONE, 7, ""),
    ],
)
def test_an_arm_that_waits_says_why(boards, phase, link, limit, updates, words):
    actor, uplink = boards
    actor["phase"], uplink["link_state"], uplink["limit_seq"], uplink["learner_updates"] = phase, link, limit, updates
    status = CollectStatus.read("arm0", 1.0, actor, uplink)
    assert status.waits_for == status.to_dict()["waits_for"] == words
    assert (f"({words})" in status.line()) is bool(words)


@pytest.fixture
def actor_with(boards, tmp_path):
    def make(offline: bool) -> Actor:
        config = load_config("arm0-sim", overrides=["collect.wait_for_learner_s=0.1"])
        names = ("no ring", boards[0].name, boards[1].name)
        return Actor(ActorArgs(config, tmp_path, 0, 0, offline, *names), boards[0])

    return make


@pytest.mark.parametrize("link", list(LinkPhase))
@pytest.mark.parametrize("offline", [True, False])
def test_offline_begins_once_the_spool_is_open_whatever_has_become_of_a_learner(boards, actor_with, offline, link):
    boards[1]["link_state"] = link
    begins = link is not LinkPhase.STARTING if offline else link is LinkPhase.UP
    with nullcontext() if begins else pytest.raises(LinkError, match="no learner answered"):
        actor_with(offline)._wait_for_learner()


@pytest.mark.parametrize(
    ("offline", "free_running", "episode", "waits"),
    [
        (True, True, 0, False),  # begins
        (True, True, 1, True),  # a learner that answers and is behind holds it like any other
        (False, True, 0, True),
        (True, False, 0, True),
    ],
)
@pytest.mark.parametrize("limit", [LIMIT_NOTHING, 3])
def test_the_first_episode_of_an_offline_run_in_real_time_waits_for_no_credit(
    boards, actor_with, offline, free_running, episode, waits, limit
):
    held: list[str] = []

    def hold() -> None:
        held.append("held")
        boards[1]["limit_seq"] = LIMIT_NONE

    boards[1]["link_state"], boards[1]["limit_seq"] = LinkPhase.UP, limit
    guard = SimpleNamespace(hold=lambda: None, idle=hold)
    clock = SimpleNamespace(free_running=free_running, idle=hold)
    env = SimpleNamespace(guard=guard, arm=SimpleNamespace(clock=clock))
    actor_with(offline)._wait_for_credit(env, SimpleNamespace(episode=episode, seq=4))
    assert bool(held) is waits


def test_a_childs_error_reaches_its_supervisor_with_all_it_says(tmp_path):
    path = tmp_path / "error.json"
    assert read_child_error(path) is None
    write_child_error(path, ConfigError("what", reason="why", command="try"))
    error = read_child_error(path)
    assert (error.message, error.reason, error.command, error.exit_code) == ("what", "why", "try", 2)
    write_child_error(tmp_path / "nowhere" / "error.json", BusTimeout("x"))
    path.write_text("{")
    assert read_child_error(path) is None


def test_the_error_in_a_log_is_the_last_one_of_this_start(tmp_path):
    log = tmp_path / "log.txt"
    assert read_logged_error(log) is None
    lines = [json.dumps({"error": ConfigError(what, reason="why", command="try").to_dict()}) for what in ("old", "new")]
    log.write_text("\n".join([*lines, json.dumps({"finished": True, "error": None}), "   why: why", '{"error": ']))
    error = read_logged_error(log)
    assert (error.message, error.reason, error.command, error.exit_code) == ("new", "why", "try", 2)
    assert read_logged_error(log, len("\n".join(lines))) is None


@pytest.mark.parametrize(
    ("successes", "episodes", "line"),
    [(49, 50, "success 98 % (49/50)"), (0, 50, "success 0 % (0/50)"), (0, 0, "success 0 % (0/0)")],
)
def test_the_success_line_is_what_scripts_look_for(successes, episodes, line):
    result = Evaluation(episodes, successes, 0.0, 0.0, None, 0.0, 0, True, True, False)
    assert result.line() == line
