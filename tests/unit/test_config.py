"""Configuration: mistakes are found, all of them, with the place and the nearest right word."""

from __future__ import annotations

from pathlib import Path

import pytest

from robotsac.config import load_config, load_learner_settings
from robotsac.config.loading import find_robot, merge
from robotsac.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("robot", ["arm0", "arm0-twin", "arm0-sim"])
def test_the_configs_that_come_with_robotsac_are_valid(robot):
    assert load_config(robot).robot.name == robot


def test_twin_and_sim_change_only_name_and_driver():
    arm, twin, sim = (load_config(name).model_dump() for name in ("arm0", "arm0-twin", "arm0-sim"))
    for tree in (arm, twin, sim):
        del tree["robot"]["name"], tree["robot"]["driver"]
    assert arm == twin == sim


def test_arm_twin_and_sim_agree_on_what_a_policy_depends_on():
    assert len({load_config(name).robot.model_digest() for name in ("arm0", "arm0-twin", "arm0-sim")}) == 1


def test_another_driver_discards_the_parameters_of_the_old_one():
    assert load_config("arm0-sim").robot.driver.params() == {}


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        load_config("arm0", overrides=["learn.batchsize=3"])
    assert "learn.batchsize" in str(caught.value)
    assert "'batch_size'" in str(caught.value)


def test_an_unknown_key_in_a_list_of_tables_names_the_nearest(tmp_path):
    text = (CONFIGS / "arm0.toml").read_text().replace("q_max_rad = 1.1", "q_maxrad = 1.1")
    (tmp_path / "arm.toml").write_text(text)
    for name in ("reach.toml", "arm0.xml"):
        (tmp_path / name).write_text((CONFIGS / name).read_text())
    with pytest.raises(ConfigError) as caught:
        load_config(str(tmp_path / "arm.toml"))
    assert "robot.joints.2.q_maxrad" in str(caught.value)
    assert "'q_max_rad'" in str(caught.value)


def test_all_mistakes_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        load_config("arm0", overrides=["learn.actor_lr=-1", "link.window_batches=0", "spool.nonsense=1"])
    for path in ("learn.actor_lr", "link.window_batches", "spool.nonsense"):
        assert path in str(caught.value)


def test_a_list_whose_entries_are_wrong_is_not_called_too_short_as_well(tmp_path):
    text = (CONFIGS / "arm0.toml").read_text()
    for name in ("reach.toml", "arm0.xml"):
        (tmp_path / name).write_text((CONFIGS / name).read_text())
    (tmp_path / "arm.toml").write_text(text.replace("q_max_rad = ", "q_maxrad = "))
    with pytest.raises(ConfigError) as caught:
        load_config(str(tmp_path / "arm.toml"))
    reason = caught.value.reason
    assert "robot.joints.0.q_maxrad: unknown key" in reason
    assert "at least 1 item" not in reason and all(reason.splitlines())
    with pytest.raises(ConfigError, match="at least 1 item"):
        load_config("arm0", overrides=["robot.joints=[]"])


@pytest.mark.parametrize("key", ["robot", "robot.driver", "robot.guard", "task", "learn", "robot.joints.0"])
def test_a_value_where_a_table_belongs_is_refused_in_words_with_a_key_of_it(key):
    with pytest.raises(ConfigError) as caught:
        load_config("arm0", overrides=[f"{key}=5"])
    assert f"{key} is a table of keys, not a value: set the keys in it, such as {key}." in caught.value.reason
    assert "dictionary" not in caught.value.reason and "instance" not in caught.value.reason


def test_a_value_where_a_list_belongs_is_refused_in_words():
    with pytest.raises(ConfigError, match=r"robot\.home_rad: input should be a list") as caught:
        load_config("arm0", overrides=["robot.home_rad=5"])
    assert "tuple" not in str(caught.value)


def test_an_unknown_robot_names_the_nearest_command():
    with pytest.raises(ConfigError) as caught:
        find_robot("arm0-tiwn")
    assert "arm0-twin" in caught.value.command
    assert "arm0-sim" in caught.value.reason


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("robot.control_rate_hz=60", "integer multiple"),
        ("robot.home_rad=[0,0,0]", "3 values for 6 joints"),
        ("robot.home_rad=[9,0,0,0,0,0]", "outside"),
        ("learn.log_std_min=3", "log_std_min"),
        ("robot.model='nowhere.xml'", "nowhere.xml"),
    ],
)
def test_values_that_contradict_each_other_are_refused_in_words(override, words):
    with pytest.raises(ConfigError) as caught:
        load_config("arm0", overrides=[override])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("key", "highest"),
    [
        ("collect.ring_records", 262_144),
        ("robot.guard.velocity_fault_factor", 5),
        ("robot.guard.stop_timeout_s", 10),
        ("robot.guard.flight_recorder_s", 60),
        ("robot.guard.move_duration_s", 60),
        ("link.message_max_bytes", 1_000_000_000),
        ("policy.size_max_bytes", 1_000_000_000),
    ],
)
def test_what_would_take_all_memory_or_wait_for_ever_has_a_bound(key, highest):
    load_config("arm0", overrides=[f"{key}={highest}"])
    for beyond in (highest + 1, "1e12", "inf", "nan"):
        with pytest.raises(ConfigError, match=key):
            load_config("arm0", overrides=[f"{key}={beyond}"])


def test_a_batch_that_the_replay_cannot_hold_is_refused_on_either_side():
    wrong = ["learn.batch_size=101", "learn.replay_capacity=100"]
    for load in (lambda: load_config("arm0", overrides=wrong), lambda: load_learner_settings(overrides=wrong)):
        with pytest.raises(ConfigError, match="batch_size 101 is more than the 100 transitions"):
            load()
    load_learner_settings(overrides=["learn.batch_size=100", "learn.replay_capacity=100"])


# ---- --set into a list -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("joint", ["1", "shoulder_pitch"])
def test_one_key_of_one_joint_is_overridden_by_index_and_by_name(joint):
    before = load_config("arm0").model_dump()
    after = load_config("arm0", overrides=[f"robot.joints.{joint}.tau_max_nm=5"]).model_dump()
    assert after["robot"]["joints"][1].pop("tau_max_nm") == 5.0
    before["robot"]["joints"][1].pop("tau_max_nm")
    assert after == before


def test_several_overrides_of_one_list_add_up_and_a_list_of_numbers_has_indices_too():
    config = load_config(
        "arm0",
        overrides=[
            "robot.joints.0.tau_max_nm=5",
            "robot.joints.base_yaw.dq_max_rad_s=2",
            "robot.home_rad.1=0.3",
            "robot.driver.servos.2.zero_count=2000",
        ],
    )
    assert (config.robot.joints[0].tau_max_nm, config.robot.joints[0].dq_max_rad_s) == (5.0, 2.0)
    assert config.robot.home_rad == (0.0, 0.3, -0.2, 0.0, 0.5, 0.0)
    assert [servo["zero_count"] for servo in config.robot.driver.params()["servos"]][:3] == [2048, 2048, 2000]


@pytest.mark.parametrize(
    ("entry", "hint"), [("6", ""), ("-1", ""), ("x", ""), ("shoulder", "did you mean 'shoulder_pitch'?"), ("", "")]
)
def test_an_entry_that_a_list_has_not_is_refused_with_those_it_has(entry, hint):
    with pytest.raises(ConfigError) as caught:
        load_config("arm0", overrides=[f"robot.joints.{entry}.tau_max_nm=5"])
    assert f"there is no entry '{entry}'" in caught.value.message
    assert hint in caught.value.message
    assert "6 entries: 0 to 5, base_yaw, shoulder_pitch" in caught.value.reason


def test_a_wrong_key_of_one_joint_names_the_nearest():
    with pytest.raises(ConfigError, match=r"robot\.joints\.0\.tau_max: unknown key; did you mean 'tau_max_nm'"):
        load_config("arm0", overrides=["robot.joints.base_yaw.tau_max=5"])


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:9"])
def test_a_device_that_some_computer_may_have_is_taken(device):
    assert load_config("arm0", overrides=[f"learn.device={device}"]).learn.device == device


@pytest.mark.parametrize("device", ["gpu", "", "cuda:", "cuda:x", "CUDA", "cuda:0 ", "cpu:0", "abacus"])
def test_a_device_that_no_computer_has_is_refused_on_either_side(device):
    with pytest.raises(ConfigError, match=r"learn\.device: must be auto, cpu, cuda or cuda:N"):
        load_config("arm0", overrides=[f"learn.device={device!r}"])
    with pytest.raises(ConfigError, match=r"learn\.device"):
        load_learner_settings(overrides=[f"learn.device={device!r}"])


def test_a_mistake_laid_over_a_robot_suggests_to_look_at_the_robot_and_one_in_its_file_to_edit_that(tmp_path):
    with pytest.raises(ConfigError) as laid_over:
        load_config("arm0-sim", overrides=["learn.thread=1"])
    assert laid_over.value.command == "robotsac config show --robot arm0-sim"
    file = tmp_path / "my arm.toml"
    file.write_text("[robot]\n")
    with pytest.raises(ConfigError) as inside:
        load_config(str(file))
    assert inside.value.command == f"${{EDITOR:-vi}} '{file}'"


def test_a_learner_is_started_where_the_robot_looks_for_it():
    assert load_config("arm0").link.learn_command() == "robotsac learn"
    elsewhere = load_config("arm0", overrides=["link.address=tcp://127.0.0.1:6000"]).link
    assert elsewhere.learn_command() == "robotsac learn --set link.address=tcp://127.0.0.1:6000"
    assert elsewhere.collect_command("arm0") == "robotsac collect --robot arm0 --learner tcp://127.0.0.1:6000"


@pytest.mark.parametrize("override", ["", "=3", "learn.threads"])
def test_a_malformed_override_is_refused(override):
    with pytest.raises(ConfigError, match=r"key\.path=value"):
        load_config("arm0", overrides=[override])


def test_overrides_are_parsed_as_toml_and_else_taken_as_text():
    config = load_config("arm0", overrides=["learn.hidden=[64, 64]", "learn.device=cpu", "learn.threads=2"])
    assert config.learn.hidden == (64, 64)
    assert config.learn.device == "cpu"
    assert config.learn.threads == 2


def test_a_later_file_wins_and_includes_come_first(tmp_path):
    (tmp_path / "base.toml").write_text("[learn]\nthreads = 3\nbatch_size = 8\n")
    (tmp_path / "top.toml").write_text('include = "base.toml"\n[learn]\nthreads = 4\n')
    settings = load_learner_settings([tmp_path / "top.toml"])
    assert (settings.learn.threads, settings.learn.batch_size) == (4, 8)


def test_a_circle_of_includes_ends(tmp_path):
    (tmp_path / "a.toml").write_text('include = "a.toml"\n')
    with pytest.raises(ConfigError, match="nested deeper"):
        load_learner_settings([tmp_path / "a.toml"])


@pytest.mark.parametrize("content", [b"x = ", b"\xff\xfe", b"[[["])
def test_a_file_that_is_not_toml_is_named(tmp_path, content):
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        load_learner_settings([tmp_path / "bad.toml"])


def test_the_learner_reads_a_robots_file_and_leaves_its_other_tables_alone():
    assert load_learner_settings([CONFIGS / "arm0.toml"]).learn == load_config("arm0").learn


def test_merge_changes_neither_side():
    base, over = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge(base, over) == {"a": {"b": 1, "c": 2}}
    assert (base, over) == ({"a": {"b": 1}}, {"a": {"c": 2}})


def test_the_digest_changes_with_any_value():
    assert load_config("arm0").digest() != load_config("arm0", overrides=["learn.threads=2"]).digest()


def test_another_task_keeps_what_all_tasks_share_and_drops_the_rest():
    task = load_config("arm0", overrides=["task.episode_s=3", "task.name='hold'"]).task
    assert task.name == "hold"
    assert task.episode_s == 3
    assert task.params() == {}
