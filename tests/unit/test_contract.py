"""The contract: the same bytes for the same agreement, and a difference that a person can act on."""

from __future__ import annotations

import msgspec
import pytest
from learner_world import contract

from robotsac.actor.contract import robot_contract
from robotsac.config import load_config
from robotsac.contract import SCHEMA, Contract
from robotsac.env.tasks.reach import ReachParams

GOLDEN_JSON = (
    b'{"schema":2,"task":"reach","task_parameters":{"hold_s":"0.5","tolerance_m":"0.02"},"joint_names":["j0","j1"],'
    b'"control_rate_hz":50,"history_steps":0,'
    b'"observation":[{"name":"q","size":3,"unit":"rad","scale":[1.0,1.0,1.0]}],'
    b'"action":[{"name":"tau","size":2,"unit":"N\xc2\xb7m","scale":[1.0,1.0]}],"model_digest":"m"}'
)
GOLDEN_DIGEST = "2be55bc9faece8bebd9c95e4acf9b873901bda9c26a97761a45c9744b1691a93"


def with_parameters(**values: str) -> Contract:
    return msgspec.structs.replace(contract(), task_parameters=values)


def test_the_bytes_and_the_digest_are_what_they_were():
    """They are in every spool, replay log and bundle: a change needs another schema number."""
    made = with_parameters(tolerance_m="0.02", hold_s="0.5")
    assert made.to_json() == GOLDEN_JSON
    assert made.digest() == GOLDEN_DIGEST
    assert Contract.from_json(GOLDEN_JSON) == made


def test_the_order_in_which_parameters_were_written_does_not_matter():
    assert with_parameters(a="1", b="2").digest() == with_parameters(b="2", a="1").digest()


def test_every_task_parameter_that_differs_is_named_with_both_values():
    ours = with_parameters(tolerance_m="0.02", hold_s="0.5", spread="0.3")
    theirs = with_parameters(tolerance_m="0.03", spread="0.3", far_m="0.2")
    assert ours.difference(theirs) == (
        "task.far_m is not set here and 0.2 there; task.hold_s is 0.5 here and not set there; "
        "task.tolerance_m is 0.02 here and 0.03 there"
    )


def test_from_configuration_to_words():
    ours = robot_contract(load_config("arm0-sim"))
    theirs = robot_contract(load_config("arm0-sim", overrides=["task.tolerance_m=0.03", "task.episode_s=3"]))
    assert (
        ours.difference(theirs)
        == "task.episode_s is 2.0 here and 3.0 there; task.tolerance_m is 0.02 here and 0.03 there"
    )


REACH = {
    "action_cost": "0.05",
    "episode_s": "2.0",
    "far_m": "0.2",
    "floor_m": "0.05",
    "hold_s": "0.5",
    "precise_m": "0.01",
    "progress": "5.0",
    "rate_cost": "0.05",
    "reward_per_s": "5.0",
    "spread": "0.3",
    "success_s": "0.6",
    "tolerance_m": "0.02",
}
HOLD = {"action_cost": "0.05", "episode_s": "2.0", "failure_rad": "0.6", "rate_cost": "0.05", "scale_rad": "0.2"}
TRACK = {
    "action_cost": "0.05",
    "episode_s": "2.0",
    "period_s": "4.0",
    "radius_m": "0.08",
    "rate_cost": "0.05",
    "scale_m": "0.1",
}


@pytest.mark.parametrize(("task", "parameters"), [("reach", REACH), ("hold", HOLD), ("track", TRACK)])
def test_every_parameter_of_the_task_is_in_the_contract_those_at_their_defaults_too(task, parameters):
    """A change here makes policies and records of before those of another contract."""
    made = robot_contract(load_config("arm0-sim", overrides=[f"task={{name='{task}'}}"]))
    assert made.task_parameters == parameters


@pytest.mark.parametrize("task", ["reach", "hold", "track"])
def test_to_write_a_default_out_changes_nothing_and_to_change_one_is_noticed(task):
    ours = robot_contract(load_config("arm0-sim", overrides=[f"task.name={task}"]))
    for name, text in ours.task_parameters.items():
        written = robot_contract(load_config("arm0-sim", overrides=[f"task.name={task}", f"task.{name}={text}"]))
        assert written.digest() == ours.digest(), name
        other = float(text) * 0.9
        changed = robot_contract(load_config("arm0-sim", overrides=[f"task.name={task}", f"task.{name}={other}"]))
        assert f"task.{name} is {text} here and {other} there" in ours.difference(changed)


def test_a_default_that_the_code_changes_is_noticed(monkeypatch):
    class Changed(ReachParams):
        progress: float = 4.0

    ours = robot_contract(load_config("arm0-sim"))
    monkeypatch.setattr("robotsac.env.tasks.reach.ReachParams", Changed)
    theirs = robot_contract(load_config("arm0-sim"))
    assert ours.difference(theirs) == "task.progress is 5.0 here and 4.0 there"


def test_where_an_episode_begins_is_not_part_of_what_a_policy_depends_on():
    ours = robot_contract(load_config("arm0-sim"))
    theirs = robot_contract(load_config("arm0-sim", overrides=["task.home_every_episodes=1", "task.seed=7"]))
    assert ours.digest() == theirs.digest()


def test_what_says_most_is_told_before_a_digest():
    ours = contract()
    theirs = msgspec.structs.replace(ours, control_rate_hz=25, model_digest="n")
    assert ours.difference(theirs) == "control_rate_hz is 50 here and 25 there"
    only_model = msgspec.structs.replace(ours, model_digest="n")
    assert "MJCF" in ours.difference(only_model)
    assert ours.difference(ours) == ""


def test_a_contract_of_another_schema_is_refused_by_its_number():
    old = b'{"schema":1,"model_digest":"m","task":"reach","task_digest":"t"}'
    with pytest.raises(ValueError, match=f"contract schema 1 is not {SCHEMA}"):
        Contract.from_json(old)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema":2}', GOLDEN_JSON.replace(b'"0.5"', b"0.5")])
def test_what_is_no_contract_is_refused(data):
    with pytest.raises(ValueError):
        Contract.from_json(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"control_rate_hz": 0}, "control rate 0 Hz"),
        ({"history_steps": -1}, "history of -1 steps"),
        ({"observation": ()}, "without observation"),
        ({"action": ()}, "without action"),
    ],
)
def test_numbers_that_no_robot_has_are_refused_before_they_are_stored(change, said):
    with pytest.raises(ValueError, match=said):
        Contract.from_json(msgspec.structs.replace(contract(), **change).to_json())
