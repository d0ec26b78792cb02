"""The learner as processes: it learns, resumes, refuses, restarts what can be restarted, and ends in order."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learner_processes import Running, local, made_run, wait_for
from learner_world import contract
from small_disk import fill, small_disk

from robotsac.cli.learn import _line
from robotsac.config.schema import LearnerSettings, PolicyConfig
from robotsac.errors import ConfigError, RobotsacError, StorageError
from robotsac.learner.app import run_learn
from robotsac.learner.checkpoint import CheckpointFolder, Manifest
from robotsac.learner.metrics import read_lines
from robotsac.learner.run_folder import open_run
from robotsac.policy.accept import accept
from robotsac.policy.store import BundleStore

SHARED_RUN = pytest.mark.xdist_group("learner_app")
"""One worker makes the runs that these tests share."""


@dataclass(frozen=True)
class Ended:
    """A learner that has ended in order, and its run."""

    run_dir: Path
    chosen: LearnerSettings
    seen: list[dict[str, Any]]
    exit_code: int | None
    ending_s: float

    @property
    def last(self) -> dict[str, Any]:
        return self.seen[-1]

    def copy(self, run_dir: Path) -> Path:
        return shutil.copytree(self.run_dir, run_dir)

    def checkpoint(self) -> Manifest:
        manifest, _ = CheckpointFolder(self.run_dir / "checkpoints").load_latest() or pytest.fail("no checkpoint")
        return manifest

    def episodes(self) -> list[int]:
        return [line["row"] for line in read_lines(self.run_dir / "metrics.jsonl") if line["kind"] == "episode"]


def ended(learner: Running, chosen: LearnerSettings, begin_s: float) -> Ended:
    return Ended(learner.run_dir, chosen, learner.seen, learner.exit_code, time.monotonic() - begin_s)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run that has learned from 400 steps, with two checkpoints. Starting and ending one costs seconds: tests copy it."""
    run_dir, chosen = tmp_path_factory.mktemp("learned") / "pick", local(checkpoint_every_s=0.2)
    with Running(run_dir, chosen) as learner:
        wait_for("the log", (run_dir / "learner-settings.json").exists)
        learner.feed(400)
        learner.wait_until(updates=300, policy_version=1, episodes=15)
        wait_for("two checkpoints", lambda: len(CheckpointFolder(run_dir / "checkpoints").paths()) > 1)
        begin_s = time.monotonic()
    return ended(learner, chosen, begin_s)


@pytest.fixture(scope="module")
def resumed(learned: Ended, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The same run resumed, and given 200 steps more."""
    run_dir = learned.copy(tmp_path_factory.mktemp("resumed") / "pick")
    with Running(run_dir, learned.chosen, resume=True) as again:
        again.wait_until(records=400, updates=learned.last["updates"])
        again.feed(200, boot="b2")
        again.wait_until(updates=learned.last["updates"] + 150, policy_version=learned.last["policy_version"] + 1)
        begin_s = time.monotonic()
    return ended(again, learned.chosen, begin_s)


@SHARED_RUN
def test_a_run_learns_and_leaves_a_checkpoint_a_policy_and_a_picture(learned: Ended) -> None:
    assert learned.exit_code == 0
    assert learned.ending_s < 60  # bounded, also on a machine that is busy with something else
    last = learned.last
    assert last["run"] == "pick" and last["transitions"] == last["replay_size"]
    assert 0.3 < last["success_rate"] < 0.7  # every other episode of noisy_run
    assert learned.checkpoint().updates == last["updates"]
    store = BundleStore(learned.run_dir / "policies")
    entry = store.latest()
    assert entry is not None and entry.version == last["policy_version"]
    assert accept(store.read(entry), contract(), PolicyConfig()).info.updates == last["updates"]
    assert (learned.run_dir / "learning_curve.png").exists()


@SHARED_RUN
def test_a_run_that_exists_is_neither_begun_again_nor_resumed_with_other_settings(learned: Ended) -> None:
    with pytest.raises(ConfigError, match="exists already") as refused:
        run_learn(learned.chosen, learned.run_dir, resume=False)
    assert refused.value.command == f"robotsac learn --run {learned.run_dir} --resume"
    with pytest.raises(ConfigError, match="other settings"):
        run_learn(local(critic_lr=1.0), learned.run_dir, resume=True)


@SHARED_RUN
def test_a_resumed_run_goes_on_where_it_was(learned: Ended, resumed: Ended) -> None:
    assert resumed.exit_code == 0
    assert resumed.last["run_id"] == learned.last["run_id"]
    assert resumed.checkpoint().updates == resumed.last["updates"] > learned.last["updates"]
    once, twice = learned.episodes(), resumed.episodes()
    assert twice[: len(once)] == once and len(twice) == resumed.last["episodes"] > len(once)


@SHARED_RUN
def test_a_resumed_run_says_from_where_until_it_is_loaded_and_tells_robots_no_zeros(
    learned: Ended, resumed: Ended
) -> None:
    last, seen = learned.last, resumed.seen
    states = [status["state"] for status in seen]
    assert states[0] == "resuming" and "waiting for robot" not in states
    assert seen[0]["records"] == last["records"], "those in the log"
    for key in ("updates", "policy_version", "transitions"):
        assert min(status[key] for status in seen) == last[key], key
    shown = _line(seen[0])
    assert shown.startswith(f"pick resuming from {last['updates']:,} updates, {last['records']:,} records in the log")


@SHARED_RUN
def test_a_damaged_checkpoint_is_refused_by_name_and_without_it_the_run_goes_on_from_the_one_before(
    learned: Ended, tmp_path: Path
) -> None:
    run_dir, chosen = learned.copy(tmp_path / "run"), learned.chosen
    before, newest = CheckpointFolder(run_dir / "checkpoints").paths()
    with (newest / "tensors.safetensors").open("r+b") as file:
        file.truncate(1000)
    with Running(run_dir, chosen, resume=True) as refused:
        refused.wait_for_end()
    error = refused.seen[-1]["error"]
    assert refused.exit_code == 8
    assert error["message"] == f"checkpoint {newest} is damaged"
    assert error["reason"].endswith("without it, the run goes on from the one before")
    assert error["command"] == f"rm -r {newest}"
    subprocess.run(error["command"].split(), check=True)
    with Running(run_dir, chosen, resume=True) as again:
        updates = int(before.name.split("-")[1])
        again.wait_until(updates=updates + 1)
    assert again.seen[0]["updates"] == updates
    assert again.exit_code == 0


@pytest.mark.parametrize("resume", [False, True])
def test_a_port_in_use_is_told_before_anything_is_made(tmp_path: Path, resume: bool) -> None:
    run_dir, chosen = tmp_path / "run", local()
    if resume:
        made_run(run_dir, chosen)
    before = sorted(run_dir.glob("*"))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", int(chosen.link.address.rpartition(":")[2])))
        holder.listen()
        with Running(run_dir, chosen, resume=resume) as learner:
            learner.wait_for_end()
    (only,) = learner.seen
    assert only["error"]["message"] == f"{chosen.link.address} is in use"
    assert learner.exit_code == only["error"]["exit_code"] == 5
    assert sorted(path for path in run_dir.glob("*") if path.suffix != ".lock") == before
    assert run_dir.exists() == resume


def test_a_trainer_that_cannot_go_on_says_why(tmp_path: Path) -> None:
    with Running(tmp_path / "run", local(device="cuda:99")) as learner:
        wait_for("the log", (tmp_path / "run" / "learner-settings.json").exists)
        learner.feed(10)
        learner.wait_for_end()
    assert learner.exit_code == 2
    assert "cuda:99" in learner.seen[-1]["error"]["message"]


def test_who_the_run_is_survives_a_power_cut_as_its_records_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())), real(fd)))
    run_dir = tmp_path / "runs" / "pick"
    run_dir.mkdir(parents=True)
    open_run(local(), run_dir, resume=False)
    assert synced == [str(run_dir / "run.json"), str(run_dir), str(run_dir.parent)]


def test_resuming_what_is_no_run_is_refused_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run to resume") as refused:
        run_learn(local(), tmp_path / "run", resume=True)
    assert refused.value.command == f"robotsac learn --run {tmp_path / 'run'}"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_nearly_full_disk_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    run_dir = tmp_path / "run"
    if resume:
        made_run(run_dir, local())
    before = sorted(run_dir.glob("*"))
    monkeypatch.setattr("robotsac.learner.app.FREE_MIN_MB", 1e12)
    with pytest.raises(StorageError) as refused:
        run_learn(local(), run_dir, resume=resume)
    assert refused.value.message.startswith(f"disk of {run_dir}: ")
    assert refused.value.message.endswith(" MB free, 1000000000000 MB needed")
    assert refused.value.reason and refused.value.command == f"df -h {run_dir if resume else tmp_path}"
    assert refused.value.exit_code == 6
    assert sorted(run_dir.glob("*")) == before


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 8) as folder:
        yield folder


def test_a_disk_that_is_small_is_refused_at_the_start(tiny_disk: Path) -> None:
    with pytest.raises(StorageError, match=r"MB free, 64 MB needed"):
        run_learn(local(), tiny_disk / "run", resume=False)


def test_a_disk_that_fills_up_while_learning_ends_it_in_words(tiny_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robotsac.learner.app.FREE_MIN_MB", 1.0)
    run_dir = tiny_disk / "run"
    with Running(run_dir, local()) as learner:
        wait_for("the log", (run_dir / "learner-settings.json").exists)
        learner.feed(400)
        learner.wait_until(updates=100)
        fill(tiny_disk)
        learner.wait_for_end()
    assert learner.exit_code == 6
    error = learner.seen[-1]["error"]
    assert str(run_dir) in error["message"] and error["command"].startswith("df -h ")
    # The latter where not even the trainer's own words could be left behind.
    assert "No space left on device" in error["reason"] or "0 MB are free there" in error["reason"]


def test_the_supervisor_does_not_import_torch() -> None:
    code = "import sys, robotsac.learner.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_status_is_plain_data(tmp_path: Path) -> None:
    with Running(tmp_path / "run", local()) as learner:
        learner.wait_until(updates=0)
    assert np.isfinite([learner.seen[0][key] for key in ("elapsed_s", "updates_per_s", "success_rate")]).all()
    assert learner.seen[0]["state"] in ("starting", "waiting for robot")
    assert issubclass(RobotsacError, Exception) and learner.exit_code == 0
