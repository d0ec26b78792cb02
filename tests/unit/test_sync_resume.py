"""``train --sync --resume``: what a checkpoint holds, what a cut leaves behind, and which runs go on."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from cli_world import run
from learner_world import contract
from sync_world import CPU, Ladder, learn_config

from robotsac.cli.checked_env import make_env
from robotsac.cli.gym_world import GymWorld
from robotsac.config import LearnConfig
from robotsac.errors import CheckpointError, StorageError
from robotsac.learner.algorithm import smaller_step
from robotsac.learner.checkpoint import state_tensors
from robotsac.learner.sealed import MANIFEST_FILE, TENSORS_FILE
from robotsac.learner.streams import Streams
from robotsac.learner.sync import Hooks, Plan, SyncLearning
from robotsac.learner.sync_checkpoint import SyncCheckpoints
from robotsac.learner.sync_progress import Evaluation
from robotsac.lock import FileLock

ROOT = Path(__file__).parents[2]
PATIENCE_S = 240.0
CUT_RUN = pytest.mark.xdist_group("sync_resume")
"""One worker makes the run that these tests go on with."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.set_flush_denormal(False)


# ---- what a checkpoint holds --------------------------------------------------------------------------------------------


def ladder(steps: int, episode: int = 0, exam_episode: int = 0, **changes: object) -> SyncLearning:
    """In a world whose next episode is number ``episode``."""
    world, exam = Ladder(), Ladder()
    world.episode, exam.episode = episode - 1, exam_episode - 1
    return SyncLearning(learn_config(**changes), Plan(steps, 60, 3), world, exam, None, CPU)


def run_until(learning: SyncLearning, steps: int) -> tuple[Evaluation, ...]:
    """Until it has done ``steps``, and evaluated if it is time to."""
    found: list[Evaluation] = []
    at = steps if steps % 60 == 0 else learning.evaluated_at

    def should_stop() -> bool:
        return learning.env_steps >= steps and learning.evaluated_at == at

    learning.run(Hooks(should_stop=should_stop, on_evaluation=found.append))
    return tuple(found)


def checkpoints(folder: Path) -> SyncCheckpoints:
    return SyncCheckpoints(folder, "digest")


def restored(folder: Path, learning: SyncLearning) -> tuple[SyncLearning, tuple[Evaluation, ...]]:
    saved = checkpoints(folder)
    found = saved.load()
    assert found is not None
    saved.restore(learning, *found)
    return learning, found[0].evaluations


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_step": 3, "replay_capacity": 30, "actor_delay": 2},
        {"variant": "ddpg"},
        {"variant": "sac_v1", "temperature": 0.2},
        {"critic": "batch_norm", "critic_layer_norm": False},
        {"critics": 5, "critic_dropout": 0.1, "head": "mixture"},
        {"normalise_obs": True},
    ],
    ids=lambda changes: "-".join(changes) or "sac",
)
def test_where_the_world_goes_on_as_it_would_have_the_run_is_bit_for_bit_the_same(tmp_path, changes):
    """The ladder has no state beyond its episode: here nothing but the checkpoint decides."""
    whole = ladder(120, **changes)
    lines = run_until(whole, 120)
    cut = ladder(120, **changes)
    before = run_until(cut, 60)
    checkpoints(tmp_path).save(cut, before, 1)
    again, evaluations = restored(tmp_path, ladder(120, episode=12, exam_episode=3, **changes))
    assert evaluations == before and len(before) == 1
    assert (again.env_steps, again.episodes, again.state.updates) == (60, 12, cut.state.updates)
    evaluations += run_until(again, 120)
    ours, theirs = (state_tensors(run.state, run.generators) for run in (again, whole))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert again.replay.total == whole.replay.total
    kept = (whole.replay.oldest, whole.replay.total)
    assert torch.equal(again.replay.rows(*kept), whole.replay.rows(*kept))
    assert [(e.env_steps, e.returns, e.losses) for e in evaluations] == [
        (e.env_steps, e.returns, e.losses) for e in lines
    ]


def test_times_go_on_where_they_were(tmp_path):
    cut = ladder(120)
    before = run_until(cut, 60)
    cut.wall_s = 1000.0
    cut.spent.update = 500.0
    checkpoints(tmp_path).save(cut, before, 1)
    again, _ = restored(tmp_path, ladder(120, episode=12))
    (evaluation,) = run_until(again, 120)
    assert 1000.0 < evaluation.wall_s < 1100.0
    assert 500.0 < evaluation.spent["update"] < 600.0


def test_an_arm_whose_observation_has_changed_since_does_not_go_on(tmp_path):
    cut = ladder(120)
    cut.world.contract = contract()
    checkpoints(tmp_path).save(cut, run_until(cut, 60), 1)
    same = ladder(120, episode=12)
    same.world.contract = contract()
    restored(tmp_path, same)
    other = ladder(120, episode=12)
    first, *others = contract().observation
    larger = msgspec.structs.replace(first, scale=tuple(5.0 * scale for scale in first.scale))
    other.world.contract = msgspec.structs.replace(contract(), observation=(larger, *others))
    checkpoints(tmp_path / "older").save(ladder(120), (), 1)
    for folder, reason in ((tmp_path, first.name), (tmp_path / "older", "kept none")):
        with pytest.raises(CheckpointError) as refused:
            restored(folder, other)
        assert "cannot go on" in refused.value.message and reason in refused.value.reason
        assert refused.value.command.startswith("rm -r ")


def test_an_evaluation_that_was_stopped_in_the_middle_comes_first(tmp_path):
    cut = ladder(120)
    cut.run(Hooks(should_stop=lambda: cut.env_steps == 60 and len(cut._exam.asked) > 7))
    assert (cut.env_steps, cut.evaluated_at) == (60, 0)
    checkpoints(tmp_path).save(cut, (), 1)
    again, _ = restored(tmp_path, ladder(120, episode=12))
    asked = len(again.world.asked)
    found: list[Evaluation] = []
    again.run(Hooks(should_stop=lambda: bool(found), on_evaluation=found.append))
    assert [evaluation.env_steps for evaluation in found] == [60]
    assert len(again.world.asked) == asked and "critic_loss" in found[0].losses


def test_updates_that_were_stopped_in_the_middle_come_first_and_then_the_evaluation_they_belong_to(tmp_path):
    whole, cut = (ladder(59, updates_per_step=4) for _ in range(2))
    lines: list[Evaluation] = []
    whole.run(Hooks(on_evaluation=lines.append))
    cut.run(Hooks(should_stop=lambda: cut.state.updates == whole.state.updates - 3))
    assert (cut.env_steps, cut.evaluated_at) == (59, 0)
    checkpoints(tmp_path).save(cut, (), 1)
    again, _ = restored(tmp_path, ladder(59, episode=12, updates_per_step=4))
    found: list[Evaluation] = []
    again.run(Hooks(on_evaluation=found.append))
    assert [(e.updates, e.returns, e.losses) for e in found] == [(e.updates, e.returns, e.losses) for e in lines]
    assert not again.world.asked, "nothing else was left to do"


def test_the_worlds_generators_are_restored_and_its_episodes_are_new_ones(tmp_path):
    def pendulum(env_steps: int) -> GymWorld:
        return GymWorld(make_env("Pendulum-v1"), Streams.of(7, env_steps).world)

    def learning(world: GymWorld) -> SyncLearning:
        return SyncLearning(learn_config(start_steps=50), Plan(100, 100, 1), world, pendulum(0), None, CPU)

    cut = learning(pendulum(0))
    run_until(cut, 30)
    checkpoints(tmp_path).save(cut, (), 1)
    again, _ = restored(tmp_path, learning(pendulum(30)))
    np.testing.assert_array_equal(again.world.random_action(), cut.world.random_action())
    np.testing.assert_array_equal(again.world.noise(3), cut.world.noise(3))
    first = pendulum(0).reset()
    assert not np.array_equal(again.world.reset(), first), "not the first episode once more"
    np.testing.assert_array_equal(pendulum(30).reset(), pendulum(30).reset())


def test_going_on_changes_neither_the_held_out_episodes_nor_a_run_that_begins():
    begun, gone_on = Streams.of(3), Streams.of(3, 500)
    assert begun == Streams.of(3, 0)
    assert (gone_on.exam, gone_on.replay, gone_on.update) == (begun.exam, begun.replay, begun.update)
    seeds = {getattr(s.world, name) for s in (begun, gone_on) for name in ("episodes", "random_action", "noise")}
    assert len(seeds) == 6


def test_only_the_newest_is_kept_and_one_that_a_crash_left_beside_it_does_no_harm(tmp_path):
    learning = ladder(240)
    for steps in (60, 120):
        run_until(learning, steps)
        checkpoints(tmp_path).save(learning, (), 1)
    assert [path.name for path in checkpoints(tmp_path).paths()] == ["checkpoint-000000000120-000001"]
    (tmp_path / "checkpoint-000000000060-000001").mkdir()
    (tmp_path / ".checkpoint-000000000180-000001.99.tmp").mkdir()
    restored(tmp_path, learning)
    run_until(learning, 180)
    checkpoints(tmp_path).save(learning, (), 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-000000000180-000002", "replay"]


@pytest.mark.parametrize("name", [TENSORS_FILE, MANIFEST_FILE])
@pytest.mark.parametrize("spoil", ["cut", "gone"])
def test_a_damaged_checkpoint_is_refused_in_words(tmp_path, name, spoil):
    learning = ladder(60)
    run_until(learning, 60)
    checkpoints(tmp_path).save(learning, (), 1)
    path = checkpoints(tmp_path).paths()[0] / name
    path.write_bytes(path.read_bytes()[:-3]) if spoil == "cut" else path.unlink()
    with pytest.raises(CheckpointError, match="damaged") as caught:
        checkpoints(tmp_path).load()
    assert "begins the run anew" in caught.value.reason and caught.value.command.startswith("rm -r ")


def test_a_checkpoint_of_other_networks_or_another_device_is_refused(tmp_path):
    learning = ladder(60)
    run_until(learning, 30)
    checkpoints(tmp_path).save(learning, (), 1)
    with pytest.raises(CheckpointError, match="not those of this software"):
        restored(tmp_path, ladder(60, hidden=(9,)))
    other = ladder(60)
    other.device = torch.device("meta")
    with pytest.raises(CheckpointError, match="device was cpu, now meta"):
        restored(tmp_path, other)


def test_a_disk_that_refuses_leaves_the_checkpoint_before_untouched(tmp_path):
    learning = ladder(120)
    run_until(learning, 60)
    checkpoints(tmp_path).save(learning, (), 1)
    # Where the next one is to be renamed to, a folder that is not empty: as far as a test gets without a full disk.
    (tmp_path / "replay/rows-000000000000-000000000112.safetensors").mkdir()
    run_until(learning, 120)
    with pytest.raises(StorageError, match="could not be written"):
        checkpoints(tmp_path).save(learning, (), 1)
    again, _ = restored(tmp_path, ladder(120))
    assert again.env_steps == 60


# ---- the command --------------------------------------------------------------------------------------------------------

QUICK = "--env Pendulum-v1 --eval-episodes 1 --eval-every 250 --set learn.hidden=[8] --set learn.start_steps=100 "
QUICK += "--set learn.batch_size=16 --set learn.updates_per_step=0.5 --set learn.device=cpu --set learn.discount=0.9 --set learn.n_step=1"


def command(monkeypatch, capsys, text: str) -> tuple[int, str, str]:
    return run(monkeypatch, capsys, "train", *text.split())


def evaluations(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def wait_for_lines(folder: Path, process: subprocess.Popen[bytes], lines: int) -> None:
    """Until run ``a`` below ``folder`` has written down so many evaluations."""
    metrics, deadline_s = folder / "runs/a/metrics.jsonl", time.monotonic() + PATIENCE_S
    while not metrics.exists() or metrics.read_text().count("\n") < lines:
        assert process.poll() is None and time.monotonic() < deadline_s, (folder / "log").read_text()
        time.sleep(0.002)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of 1000 steps that a SIGTERM ended after its second evaluation; its folder."""
    folder = tmp_path_factory.mktemp("stopped")
    process = start(folder, f"train --sync {QUICK} --steps 1000 --seed 3 --run a".split())
    wait_for_lines(folder, process, 2)
    process.terminate()
    assert process.wait(PATIENCE_S) == 130, (folder / "log").read_text()
    return folder / "runs/a"


@pytest.fixture
def cut_run(stopped, monkeypatch, tmp_path):
    """A copy of it, below the folder that one stands in."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(stopped, tmp_path / "runs/a")


@CUT_RUN
def test_a_run_that_was_stopped_goes_on_to_its_end_with_its_own_settings(monkeypatch, capsys, cut_run):
    stopped = json.loads((cut_run / "summary.json").read_text())
    assert not stopped["finished"] and 500 <= stopped["steps"] < 1000
    # What was written down after the checkpoint, whole and half: it will happen again.
    with (cut_run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"env_steps": 750}) + "\n" + '{"env_st')
    code, out, err = command(monkeypatch, capsys, "--sync --resume --run a --json")
    assert code == 0, err
    assert (
        f"it goes on after {stopped['steps']:,} steps" in err and f"updates {stopped['backend'].split(':')[0]}" in err
    )
    summary = json.loads(out.splitlines()[-1])
    assert summary["finished"] and (summary["steps"], summary["seed"], summary["resumed"]) == (1000, 3, 1)
    lines = evaluations(cut_run)
    assert [line["env_steps"] for line in lines] == [250, 500, 750, 1000]
    assert [line["updates"] for line in lines] == [75, 200, 325, 450]
    assert all(a["wall_s"] < b["wall_s"] for a, b in pairwise(lines))
    assert not (cut_run / "checkpoints/replay").exists(), "nobody goes on with it any more"
    code, _, err = command(monkeypatch, capsys, "--sync --resume --run a")
    assert code == 2
    assert "is finished" in err and "cat runs/a/summary.json" in err


@CUT_RUN
def test_the_same_command_with_resume_goes_on_too(monkeypatch, capsys, cut_run):
    again = f"--sync {QUICK} --set learn.threads=1 --steps 1000 --seed 3 --run a"
    code, _, err = command(monkeypatch, capsys, again)
    assert code == 2
    assert "exists already" in err and "robotsac train --sync --resume --run a" in err
    code, _, err = command(monkeypatch, capsys, f"{again} --resume")
    assert code == 0, err


@CUT_RUN
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "--set learn.critic_lr=0.5 --steps 2000",
            ["learn.critic_lr was 0.001, now 0.5", "--steps was 1000, now 2000"],
        ),
        ("--seed 4", ["learn.seed was 3, now 4"]),
        ("--set collect.noise_hold_s=0.2", ["collect.noise_hold_s was 0.0, now 0.2"]),
        ("--config gym", ["learn.batch_size was 16, now 256", "learn.hidden was [8], now [256, 256]"]),
        ("--env Ant-v4", ["it learns in Pendulum-v1, not in Ant-v4"]),
        ("--robot arm0-sim", ["it learns in Pendulum-v1, not in the arm arm0-sim"]),
        ("--set lern.critic_lr=0.5", ["lern", "did you mean 'learn'"]),
    ],
)
def test_a_run_does_not_go_on_as_another_one(monkeypatch, capsys, cut_run, text, words):
    monkeypatch.setenv("ROBOTSAC_CONFIG_DIR", str(ROOT / "configs"))
    before = (cut_run / "metrics.jsonl").read_bytes()
    code, _, err = command(monkeypatch, capsys, f"--sync --resume --run a {text}")
    assert code == 2
    for word in words:
        assert word in err, err
    assert (cut_run / "metrics.jsonl").read_bytes() == before


@CUT_RUN
def test_a_run_whose_settings_were_edited_or_whose_folder_is_in_use_does_not_go_on(monkeypatch, capsys, cut_run):
    lock = FileLock(cut_run / "sync.lock")
    assert lock.acquire()
    code, _, err = command(monkeypatch, capsys, "--sync --resume --run a")
    lock.release()
    assert code == 2 and "at work in it" in err
    config = cut_run / "config.json"
    config.write_text(config.read_text().replace('"batch_size": 16', '"batch_size": 17'))
    code, _, err = command(monkeypatch, capsys, "--sync --resume --run a")
    assert code == 8 and "other settings" in err


@CUT_RUN
def test_a_run_that_was_cut_before_its_first_checkpoint_begins_anew(monkeypatch, capsys, cut_run):
    for path in (cut_run / "checkpoints").glob("checkpoint-*"):
        path.rename(path.with_name("." + path.name))
    code, _, err = command(monkeypatch, capsys, "--sync --resume --run a")
    assert code == 0 and "begins anew" in err
    assert [line["env_steps"] for line in evaluations(cut_run)] == [250, 500, 750, 1000]


def test_a_run_that_is_not_there_is_refused_and_leaves_nothing_behind(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(monkeypatch, capsys, "--sync --resume --run nope --env Pendulum-v1")
    assert code == 2
    assert "no run to resume" in err and "robotsac train --sync --env Pendulum-v1 --run nope" in err
    assert not list(tmp_path.iterdir())


def test_a_run_that_diverges_says_so_in_its_summary_and_does_not_go_on(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    wild = "--set learn.critic_lr=1e30 --set learn.actor_lr=1e30 --set learn.critic_layer_norm=false"
    code, _, err = command(monkeypatch, capsys, f"--sync {QUICK} {wild} --steps 1000 --run a")
    assert code == 1 and "diverged" in err
    # What it says can be pasted: the step size that was too large, a tenth of it at most, and a folder that is free.
    words = shlex.split(err.split("try: ")[1].splitlines()[0])
    assert words[:3] == ["robotsac", "train", "--sync"]
    assert "learn.critic_lr=0.001" in words and "learn.actor_lr=1e30" in words and "learn.critic_lr=1e30" not in words
    assert words.count("--run") == 1 and words[words.index("--run") + 1] == "a-2"
    summary = json.loads((tmp_path / "runs/a/summary.json").read_text())
    assert not summary["finished"] and summary["diverged"]
    assert "training has diverged" in summary["error"]["message"] and summary["steps"] < 1000
    code, _, err = command(monkeypatch, capsys, "--sync --resume --run a")
    assert code == 2 and "has diverged" in err
    code, _, err = command(monkeypatch, capsys, f"--sync {QUICK} --steps 1000 --run a")
    assert code == 2 and "--run a-2" in err and "--resume" not in err, "where it goes on, it would be refused again"


@pytest.mark.parametrize(
    ("learn", "option"),
    [
        ({"critic_lr": 1e-3, "actor_lr": 3e-3}, "actor_lr=0.0003"),
        ({"critic_lr": 1.0, "actor_lr": 3e-3}, "critic_lr=0.001"),
        ({"temperature_lr": 0.1}, "temperature_lr=0.001"),
        ({"temperature_lr": 0.1, "temperature": 0.2}, "critic_lr=0.0001"),
        ({"temperature_lr": 0.1, "variant": "ddpg"}, "critic_lr=0.0001"),
    ],
)
def test_of_step_sizes_the_largest_that_acts_is_the_one_to_make_smaller(learn, option):
    assert smaller_step(LearnConfig.model_validate(learn)) == f"--set learn.{option}"


def test_an_arm_goes_on_too_and_its_policy_is_published(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBOTSAC_CONFIG_DIR", str(ROOT / "configs"))
    small = "--set learn.hidden=[8] --set learn.start_steps=60 --set learn.batch_size=16 --set learn.device=cpu"
    text = f"--sync --robot arm0-sim {small} --steps 300 --eval-every 100 --eval-episodes 1 --run a"
    metrics, ended = tmp_path / "runs/a/metrics.jsonl", threading.Event()

    def interrupt() -> None:
        while not ended.wait(0.005):
            if metrics.exists() and metrics.read_text():
                signal.raise_signal(signal.SIGINT)
                return

    thread = threading.Thread(target=interrupt)
    thread.start()
    code, _, err = command(monkeypatch, capsys, text)
    ended.set()
    thread.join()
    assert code == 130, err
    code, _, err = command(monkeypatch, capsys, "--sync --resume --run a --set collect.noise_hold_s=0.9")
    assert code == 2 and "collect.noise_hold_s was" in err, err
    code, _, err = command(monkeypatch, capsys, "--sync --resume --run a --robot arm0-sim")
    assert code == 0, err
    assert [line["env_steps"] for line in evaluations(tmp_path / "runs/a")] == [100, 200, 300]
    assert (tmp_path / "runs/a/policies/policy-v00000002.onnx").exists()


@pytest.mark.slow  # once, test_bench_learning kills one too
@pytest.mark.timeout(600)
def test_a_run_that_is_killed_loses_at_most_what_came_after_its_last_evaluation(tmp_path):
    """By SIGKILL, twice, as a power cut would: at no moment does it leave anything that cannot go on."""
    begin = f"train --sync {QUICK} --steps 2500 --run a --json".split()
    go_on = ["train", "--sync", "--resume", "--run", "a", "--json"]
    for arguments, lines in ((begin, 2), (go_on, 4)):
        process = start(tmp_path, arguments)
        wait_for_lines(tmp_path, process, lines)
        process.kill()
        process.wait()
    assert start(tmp_path, go_on).wait(PATIENCE_S) == 0, (tmp_path / "log").read_text()
    found = evaluations(tmp_path / "runs/a")
    assert [line["env_steps"] for line in found] == list(range(250, 2501, 250))
    assert [line["updates"] for line in found] == [125 * k - 50 for k in range(1, 11)]
    assert json.loads((tmp_path / "runs/a/summary.json").read_text())["resumed"] == 2


def start(folder: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "robotsac", *arguments],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
