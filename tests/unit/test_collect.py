"""The collector as a whole: its own processes on the simulated arm, without a learner."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robotsac.actor.board import Phase
from robotsac.actor.collect import CollectOptions, collect, report_json
from robotsac.actor.status import CollectStatus
from robotsac.config import load_config
from robotsac.errors import LinkError, StorageError
from robotsac.lock import FileLock

QUICK = ["spool.free_min_mb=1", "collect.wait_for_learner_s=1.0"]


def test_the_rate_shows_in_the_first_episode_and_the_phases_come_in_order(tmp_path: Path) -> None:
    seen: list[CollectStatus] = []
    config = load_config("arm0-sim", overrides=["spool.free_min_mb=1", "task.episode_s=10"])
    options = CollectOptions(folder=tmp_path / "run", steps=0, offline=True, should_stop=lambda: enough(seen))
    report = collect(config, options, seen.append, lambda words: None)
    assert report.error is None and report.torque_off
    first = [status for status in seen if status.episodes == 0 and status.steps > 5]
    assert first, "the run was stopped within its first episode"
    assert all(status.rate_hz == pytest.approx(50.0, abs=0.5) for status in first)
    phases = [status.phase for status in seen]
    assert phases == sorted(phases) and {Phase.MOVING, Phase.ENDED} <= set(phases)
    body = json.loads(report_json(report))
    assert body["error"] is None and body["ended"] == "signal" and not body["interrupted"]
    assert (tmp_path / "run/spool.db").exists()


@pytest.mark.parametrize(("steps", "until_success", "ended"), [(40, None, "steps"), (0, 0.0, "success")])
def test_the_report_says_why_it_ended(tmp_path: Path, steps: int, until_success: float | None, ended: str) -> None:
    config = load_config("arm0-sim", overrides=["spool.free_min_mb=1", "task.episode_s=0.1", "task.hold_s=0.05"])
    options = CollectOptions(folder=tmp_path / "run", steps=steps, until_success=until_success, offline=True)
    body = json.loads(report_json(collect(config, options, lambda status: None, lambda words: None)))
    assert (body["ended"], body["interrupted"], body["error"]) == (ended, False, None)
    assert 0 < body["moving_seconds"] < body["seconds"]
    assert body["unsent"] == body["steps"] + body["episodes"]


def enough(seen: list[CollectStatus]) -> bool:
    return bool(seen) and seen[-1].steps > 30


def test_without_a_learner_the_reason_and_the_command_name_its_address(tmp_path: Path) -> None:
    config = load_config("arm0-sim", overrides=[*QUICK, "link.address='ipc://nobody'"])
    report = collect(config, CollectOptions(folder=tmp_path / "run"), lambda status: None, lambda words: None)
    assert isinstance(report.error, Exception) and report.error.exit_code == LinkError.exit_code
    body = json.loads(report_json(report))
    error = body["error"]
    assert error == report.error.to_dict()
    assert (body["ended"], body["moving_seconds"]) == ("error", 0.0)
    assert error["command"] == "robotsac learn --set link.address=ipc://nobody"
    assert (tmp_path / "run").is_dir(), "the arm was reached: what the uplink wrote stays"


def test_a_folder_in_use_is_refused_with_who_has_it(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "run/.lock")
    assert lock.acquire()
    try:
        with pytest.raises(StorageError, match="another collector uses") as caught:
            collect(load_config("arm0-sim"), CollectOptions(tmp_path / "run"), lambda status: None, lambda words: None)
    finally:
        lock.release()
    assert caught.value.command == f"fuser -v {tmp_path}/run/.lock"
    assert (tmp_path / "run").is_dir()
