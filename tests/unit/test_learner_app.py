"""The learner as processes: it learns, resumes, refuses, restarts what can be restarted, and ends in order."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from learner_processes import Running, local, made_run, wait_for
from learner_world import contract
from small_disk import fill, small_disk

from robotsac.cli.learn import _line
from robotsac.config.schema import PolicyConfig
from robotsac.errors import ConfigError, RobotsacError, StorageError
from robotsac.learner.app import run_learn
from robotsac.learner.checkpoint import CheckpointFolder
from robotsac.learner.metrics import read_lines
from robotsac.learner.run_folder import open_run
from robotsac.policy.accept import accept
from robotsac.policy.store import BundleStore


def test_a_run_learns_and_is_resumed_where_it_was(tmp_path: Path) -> None:
    run_dir, chosen = tmp_path / "pick", local()
    with Running(run_dir, chosen) as learner:
        wait_for("the log", (run_dir / "learner-settings.json").exists)
        learner.feed(400)
        learner.wait_until(updates=300, policy_version=1, episodes=15)
        begin = time.monotonic()
    assert time.monotonic() - begin < 60  # bounded, also on a machine that is busy with something else
    assert learner.exit_code == 0
    last = learner.seen[-1]
    assert last["run"] == "pick" and last["transitions"] == last["replay_size"]
    assert 0.3 < last["success_rate"] < 0.7  # every other episode of noisy_run
    manifest, _ = CheckpointFolder(run_dir / "checkpoints").load_latest() or pytest.fail("no checkpoint")
    assert manifest.updates == last["updates"]
    store = BundleStore(run_dir / "policies")
    entry = store.latest()
    assert entry is not None and entry.version == last["policy_version"]
    assert accept(store.read(entry), contract(), PolicyConfig()).info.updates == manifest.updates
    assert (run_dir / "learning_curve.png").exists()
    once = [line["row"] for line in read_lines(run_dir / "metrics.jsonl") if line["kind"] == "episode"]

    with pytest.raises(ConfigError, match="exists already") as refused:
        run_learn(chosen, run_dir, resume=False)
    assert refused.value.command == f"robotsac learn --run {run_dir} --resume"
    with pytest.raises(ConfigError, match="other settings"):
        run_learn(local(critic_lr=1.0), run_dir, resume=True)

    with Running(run_dir, chosen, resume=True) as again:
        again.wait_until(records=400)
        again.feed(200, boot="b2")
        again.wait_until(updates=manifest.updates + 150, policy_version=entry.version + 1)
    assert again.exit_code == 0
    assert again.seen[-1]["run_id"] == last["run_id"]
    twice = [line["row"] for line in read_lines(run_dir / "metrics.jsonl") if line["kind"] == "episode"]
    assert twice[: len(once)] == once and len(twice) == again.seen[-1]["episodes"]


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


def test_a_resumed_run_says_from_where_until_it_is_loaded_and_tells_robots_no_zeros(tmp_path: Path) -> None:
    run_dir, chosen = tmp_path / "run", local()
    with Running(run_dir, chosen) as learner:
        wait_for("the log", (run_dir / "learner-settings.json").exists)
        learner.feed(400)
        learner.wait_until(updates=200, policy_version=1)
    last = learner.seen[-1]
    with Running(run_dir, chosen, resume=True) as again:
        again.wait_until(updates=last["updates"])
        again.feed(200, boot="b2")
        again.wait_until(updates=last["updates"] + 1)
    states = [status["state"] for status in again.seen]
    assert states[0] == "resuming" and "waiting for robot" not in states
    assert again.seen[0]["records"] == last["records"], "those in the log"
    for key in ("updates", "policy_version", "transitions"):
        assert min(status[key] for status in again.seen) == last[key], key
    shown = _line(again.seen[0])
    assert shown.startswith(f"run resuming from {last['updates']:,} updates, {last['records']:,} records in the log")


def test_a_damaged_checkpoint_is_refused_by_name_and_without_it_the_run_goes_on_from_the_one_before(
    tmp_path: Path,
) -> None:
    run_dir, chosen = tmp_path / "run", local(checkpoint_every_s=0.2)
    checkpoints = CheckpointFolder(run_dir / "checkpoints")
    with Running(run_dir, chosen) as learner:
        wait_for("the log", (run_dir / "learner-settings.json").exists)
        learner.feed(400)
        wait_for("two checkpoints", lambda: len(checkpoints.paths()) > 1)
    before, newest = checkpoints.paths()
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
        with Running(run_dir, local()) as learner:
            wait_for("the run", (run_dir / "learner-settings.json").exists)
        assert learner.exit_code == 0
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
