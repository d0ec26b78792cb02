"""``learn`` and ``collect`` as processes over loopback ZeroMQ: every record accounted for, whatever is killed."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path

import pytest
from processes import SMALL, Command, children_of, free_address, replay_seqs, running, spool_seqs, wait_for

from robotsac.policy.accept import read_info


def collect_arguments(address: str, *more: str, robot: str = "arm0-sim") -> list[str]:
    return ["collect", "--robot", robot, "--run", "bot", "--learner", address, "--json", *more]


def learn_arguments(address: str, *more: str) -> list[str]:
    return ["learn", "--run", "brain", "--set", f"link.address='{address}'", "--json", *SMALL, *more]


def assert_exactly_once(folder, records: int) -> None:
    spool, replay = spool_seqs(folder / "runs/bot/spool.db"), replay_seqs(folder / "runs/brain/replay.db")
    assert set(spool.values()) == {1}
    assert set(replay.values()) == {1}, "duplicated in the learner's log"
    assert spool.keys() == replay.keys(), "lost between robot and learner"
    assert len(replay) == records


def test_every_record_of_a_run_reaches_the_replay_exactly_once(tmp_path):
    address = free_address()
    with running(tmp_path, "learn", *learn_arguments(address)) as learn:
        with running(tmp_path, "collect", *collect_arguments(address, "--steps", "700")) as collect:
            assert collect.wait() == 0, collect.output()
            result = collect.result()
        learn.process.send_signal(signal.SIGTERM)
        assert learn.wait() == 0, learn.output()
    assert result["torque_off"]
    assert result["unsent"] == 0
    assert result["policy_version"] > 0, "new policies reached the robot while it ran"
    # One final record closes each episode.
    assert_exactly_once(tmp_path, result["steps"] + result["episodes"])
    latest = json.loads((tmp_path / "runs/brain/policies/latest.json").read_text())
    assert read_info((tmp_path / "runs/brain/policies" / latest["file"]).read_bytes()).version == latest["version"]


def test_a_learner_killed_mid_run_resumes_with_nothing_lost_and_nothing_twice(tmp_path):
    address = free_address()

    def durable() -> int:
        try:
            return json.loads((tmp_path / "runs/brain/ingest-status.json").read_text())["records"]
        except (OSError, ValueError, KeyError):
            return 0

    with running(tmp_path, "collect", *collect_arguments(address, "--steps", "1000")) as collect:
        with running(tmp_path, "learn", *learn_arguments(address)) as learn:
            wait_for(lambda: durable() > 200, "200 records at the learner", collect)
            learn.kill_all()
        wait_for(lambda: "no sign of life" in collect.output(), "word of the loss", collect)
        with running(tmp_path, "learn2", *learn_arguments(address, "--resume")) as learn:
            assert collect.wait() == 0, collect.output()
            learn.process.send_signal(signal.SIGTERM)
            assert learn.wait() == 0, learn.output()
    result = collect.result()
    assert result["torque_off"]
    assert_exactly_once(tmp_path, result["steps"] + result["episodes"])


def test_records_collected_offline_are_sent_by_the_next_run(tmp_path):
    address = free_address()
    with running(tmp_path, "offline", *collect_arguments(address, "--offline", "--steps", "200")) as offline:
        assert offline.wait() == 0, offline.output()
    first = offline.result()
    assert first["unsent"] == first["steps"] + first["episodes"]
    with running(tmp_path, "learn", *learn_arguments(address)) as learn:
        with running(tmp_path, "online", *collect_arguments(address, "--steps", "100")) as online:
            assert online.wait() == 0, online.output()
        learn.process.send_signal(signal.SIGTERM)
        assert learn.wait() == 0, learn.output()
    second = online.result()
    assert second["unsent"] == 0
    assert_exactly_once(tmp_path, sum(r["steps"] + r["episodes"] for r in (first, second)))


def test_a_learner_of_another_contract_is_refused_in_words(tmp_path):
    address = free_address()
    with running(tmp_path, "learn", *learn_arguments(address)) as learn:
        with running(tmp_path, "collect", *collect_arguments(address, "--steps", "100")) as collect:
            assert collect.wait() == 0, collect.output()
        with running(tmp_path, "other", *collect_arguments(address, "--set", "task.history_steps=4")) as other:
            code = other.wait()
        learn.process.send_signal(signal.SIGTERM)
        learn.wait()
    assert code != 0
    assert "history_steps" in other.output()
    assert "Traceback" not in other.output()


def test_a_trainer_that_is_killed_takes_its_learner_with_it(tmp_path):
    arguments = ["train", "--robot", "arm0-sim", "--run", "t", "--json", *SMALL]
    with running(tmp_path, "train", *arguments) as train:
        wait_for((tmp_path / "runs/t/learner/ingest-status.json").exists, "the learner", train)
        learner = next(pid for pid in children_of(train.process.pid) if b"learn" in cmdline(pid).split(b"\0"))
        train.kill_all()
        wait_for(lambda: b"learn" not in cmdline(learner).split(b"\0"), "the learner's end", train)


def test_a_training_run_that_was_interrupted_says_how_it_goes_on_and_goes_on(tmp_path):
    arguments = ["train", "--robot", "arm0-sim", "--json", "--steps", "700", "--episodes", "1", *SMALL]
    arguments += ["--set", "learn.start_steps=100", "--set", "learn.slack_steps=50"]
    with running(tmp_path, "train", *arguments, "--run", "t") as train:
        wait_for((tmp_path / "runs/t/learner/policies/latest.json").exists, "a policy", train)
        train.process.send_signal(signal.SIGINT)
        assert train.wait() == 130, train.output()
    cut = train.result()
    assert cut["interrupted"] and cut["torque_off"] and 100 < cut["steps"] < 700
    assert cut["command"] == shlex.join(["robotsac", *arguments, "--run", "t", "--resume"])
    assert cut["command"] in train.output().replace("\n", " ")
    with running(tmp_path, "again", *shlex.split(cut["command"])[1:]) as again:
        assert again.wait() == 0, again.output()
    assert again.output().count("· updates ") == 1, "what computes them is told once"
    whole = again.result()
    assert 700 <= whole["steps"] < 900 and not whole["interrupted"] and whole["eval_episodes"] == 1
    spool, replay = (
        seqs(tmp_path / "runs/t" / path)
        for seqs, path in ((spool_seqs, "robot/spool.db"), (replay_seqs, "learner/replay.db"))
    )
    assert spool == replay and set(spool.values()) == {1}
    assert len({boot for boot, _ in spool}) == 2
    with running(tmp_path, "done", *shlex.split(cut["command"])[1:]) as done:
        assert done.wait() == 2
    assert f"has done {whole['steps']} of 700 steps" in done.result()["error"]["message"]
    assert whole["episodes"] == len(spool) - whole["steps"]


def test_ctrl_c_at_the_first_word_of_a_training_run_keeps_the_arm_still(tmp_path):
    with running(tmp_path, "train", "train", "--robot", "arm0-sim", "--run", "t", "--json", *SMALL) as train:
        wait_for(lambda: "run folder" in train.output(), "the first word", train)
        train.process.send_signal(signal.SIGINT)
        assert train.wait() == 130, train.output()
    assert train.result()["interrupted"] and train.result()["steps"] == 0
    assert "torque never switched on" in train.output() or "torque off, read back" in train.output()


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [("learn.target_sigma=3.0", 2, "entropy"), ("learn.device='potato'", 2, "potato")],
)
def test_what_the_learner_refuses_train_says_in_the_same_words(tmp_path, override, code, words):
    with running(tmp_path, "train", "train", "--robot", "arm0-sim", "--run", "t", "--set", override) as train:
        assert train.wait() == code, train.output()
    assert words in train.output()
    assert "Traceback" not in train.output()


def test_a_run_folder_that_cannot_be_made_is_said_before_anything_starts(tmp_path):
    (tmp_path / "file").write_text("")
    with running(tmp_path, "collect", "collect", "--robot", "arm0-sim", "--run", "file/x") as collect:
        assert collect.wait() == 6, collect.output()
    assert "file/x cannot be written" in collect.output()
    assert "Traceback" not in collect.output()


def test_no_learner_is_said_with_the_command_that_starts_one(tmp_path):
    arguments = collect_arguments(free_address(), "--set", "collect.wait_for_learner_s=1")
    with running(tmp_path, "collect", *arguments) as collect:
        assert collect.wait() == 5
    assert "robotsac learn" in collect.output()
    assert "Traceback" not in collect.output()


def test_a_second_learner_on_the_same_port_is_told_who_is_there(tmp_path):
    address = free_address()
    with running(tmp_path, "learn", *learn_arguments(address)) as learn:
        wait_for((tmp_path / "runs/brain/ingest-status.json").exists, "the first learner", learn)
        second = Command(tmp_path, "second", "learn", "--run", "other", "--set", f"link.address='{address}'", *SMALL)
        try:
            assert second.wait() != 0
        finally:
            second.close()
    said = second.output().splitlines()
    assert "in use" in said[0] and len(said) == 3, "what, why and what to try, and no status before"
    assert not (tmp_path / "runs/other").exists()
    assert "Traceback" not in second.output()
