"""The learner as processes: it learns, resumes, refuses, restarts what can be restarted, and ends in order."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learner_world import batches, contract, noisy_run, settings
from small_disk import fill, small_disk

from robotsac.config.schema import LearnerSettings, LinkConfig, PolicyConfig
from robotsac.errors import ConfigError, RobotsacError, StorageError
from robotsac.learner.app import run_learn
from robotsac.learner.checkpoint import CheckpointFolder
from robotsac.learner.metrics import read_lines
from robotsac.learner.replay_log import ReplayLog
from robotsac.learner.run_folder import open_run
from robotsac.policy.accept import accept
from robotsac.policy.store import BundleStore

HERE = Path(__file__).parent
DEADLINE_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def local(**learn: object) -> LearnerSettings:
    fast = {"publish_every_s": 0.2, "checkpoint_every_s": 0.5, "nice": 0, "slack_steps": 100_000}
    made = settings(**fast | learn)
    return made.model_copy(update={"link": LinkConfig(address=f"tcp://127.0.0.1:{free_port()}")})


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {DEADLINE_S} s"
        time.sleep(0.02)


class Running:
    """A learner in a thread of this process."""

    def __init__(self, run_dir: Path, chosen: LearnerSettings, *, resume: bool = False) -> None:
        self.run_dir = run_dir
        self.seen: list[dict[str, Any]] = []
        self.exit_code: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(chosen, resume))

    def _run(self, chosen: LearnerSettings, resume: bool) -> None:
        self.exit_code = run_learn(
            chosen, self.run_dir, resume=resume, as_json=True, on_status=self.seen.append, stop=self._stop
        )

    def __enter__(self) -> Running:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def wait_until(self, **least: int) -> None:
        def reached() -> bool:
            assert self._thread.is_alive(), self.seen[-1]
            return bool(self.seen) and all(self.seen[-1][key] >= value for key, value in least.items())

        wait_for(f"{least}", reached)

    def wait_for_end(self) -> None:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def feed(self, steps: int, boot: str = "b") -> None:
        """Records as ingest would write them."""
        with ReplayLog(self.run_dir / "replay.db") as log:
            log.bind(contract())
            for batch in batches(noisy_run(steps, seed=1), 32, boot=boot):
                log.append(batch.robot, batch.boot, batch.records)


def child(name: str) -> Any:
    return next(c for c in multiprocessing.active_children() if c.name == f"robotsac-{name}")


def test_a_run_learns_and_is_resumed_where_it_was(tmp_path: Path) -> None:
    run_dir, chosen = tmp_path / "pick", local()
    with Running(run_dir, chosen) as learner:
        wait_for("the log", (run_dir / "learner-settings.json").exists)
        learner.feed(400)
        learner.wait_until(updates=300, policy_version=1, episodes=15)
        begin = time.monotonic()
    assert time.monotonic() - begin < 5
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
        with Running(run_dir, chosen, resume=True) as second:
            second.wait_for_end()
        assert second.exit_code == 2
        assert "at work on run 'pick'" in second.seen[-1]["error"]["message"]
        again.feed(200, boot="b2")
        again.wait_until(updates=manifest.updates + 150, policy_version=entry.version + 1)
    assert again.exit_code == 0
    assert again.seen[-1]["run_id"] == last["run_id"]
    twice = [line["row"] for line in read_lines(run_dir / "metrics.jsonl") if line["kind"] == "episode"]
    assert twice[: len(once)] == once and len(twice) == again.seen[-1]["episodes"]


def test_ingest_is_restarted_and_a_dead_trainer_is_an_error(tmp_path: Path) -> None:
    with Running(tmp_path / "run", local()) as learner:
        learner.wait_until(updates=0)
        child("ingest").kill()
        learner.wait_until(ingest_restarts=1)
        child("trainer").kill()
        learner.wait_for_end()
    assert learner.exit_code == 1
    error = learner.seen[-1]["error"]
    assert error["message"] == "trainer was ended by signal 9"
    assert error["command"] == f"robotsac learn --run {tmp_path / 'run'} --resume"
    assert multiprocessing.active_children() == []


def test_a_status_that_cannot_be_written_does_not_look_like_a_hang_but_a_frozen_ingest_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robotsac.learner.children.INGEST_SILENCE_MAX_S", 6.0)
    status = tmp_path / "run" / "ingest-status.json"
    with Running(tmp_path / "run", local()) as learner:
        wait_for("ingest", status.exists)
        status.unlink()
        status.mkdir()  # as good as a full disk
        time.sleep(7.0)
        learner.wait_until(ingest_restarts=0)
        assert learner.seen[-1]["ingest_restarts"] == 0
        os.kill(child("ingest").pid, signal.SIGSTOP)
        learner.wait_until(ingest_restarts=1)
    assert learner.exit_code == 0


def test_a_port_in_use_is_told_in_ingests_words(tmp_path: Path) -> None:
    chosen = local()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", int(chosen.link.address.rpartition(":")[2])))
        holder.listen()
        with Running(tmp_path / "run", chosen) as learner:
            learner.wait_for_end()
    assert learner.exit_code not in (0, None)
    assert chosen.link.address in learner.seen[-1]["error"]["message"]


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


SUPERVISOR = """
import multiprocessing, sys, threading
from pathlib import Path
from robotsac.config.schema import LearnerSettings
from robotsac.learner.app import run_learn

def tell(status):
    pids = [child.pid for child in multiprocessing.active_children()]
    print(status["updates"], *pids, flush=True)

if __name__ == "__main__":
    chosen = LearnerSettings.model_validate_json(sys.argv[2])
    sys.exit(run_learn(chosen, Path(sys.argv[1]), resume=False, on_status=tell))
"""


@contextlib.contextmanager
def supervisor(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "supervise.py"
    script.write_text(SUPERVISOR)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "run"), local().model_dump_json()],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str]) -> tuple[int, list[int]]:
    assert process.stdout is not None
    updates, *pids = (int(word) for word in process.stdout.readline().split())
    return updates, pids


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_in_order_also_in_the_first_second(tmp_path: Path, how: signal.Signals) -> None:
    with supervisor(tmp_path) as process:
        _, pids = told(process)
        os.killpg(process.pid, how) if how is signal.SIGINT else process.send_signal(how)
        assert process.wait(DEADLINE_S) == 0
        wait_for("the end of the children", lambda: not any(alive(pid) for pid in pids))


def test_when_the_supervisor_is_killed_the_trainer_saves_and_all_end(tmp_path: Path) -> None:
    with supervisor(tmp_path) as process:
        told(process)
        with ReplayLog(tmp_path / "run" / "replay.db") as log:
            log.bind(contract())
            for batch in batches(noisy_run(400, seed=1), 32):
                log.append(batch.robot, batch.boot, batch.records)
        updates, pids = told(process)
        while updates < 50:
            updates, pids = told(process)
        process.kill()
        wait_for("the end of the children", lambda: not any(alive(pid) for pid in pids))
    manifest, _ = CheckpointFolder(tmp_path / "run" / "checkpoints").load_latest() or pytest.fail("no checkpoint")
    assert manifest.updates >= updates


def test_status_is_plain_data(tmp_path: Path) -> None:
    with Running(tmp_path / "run", local()) as learner:
        learner.wait_until(updates=0)
    assert np.isfinite([learner.seen[0][key] for key in ("elapsed_s", "updates_per_s", "success_rate")]).all()
    assert learner.seen[0]["state"] in ("starting", "waiting for robot")
    assert issubclass(RobotsacError, Exception) and learner.exit_code == 0
