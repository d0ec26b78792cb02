"""The learner as processes, for tests: in a thread of the test, or below a supervisor that the test may kill."""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from learner_world import batches, contract, noisy_run, settings

from robotsac.config.schema import LearnerSettings, LinkConfig
from robotsac.learner.app import run_learn
from robotsac.learner.replay_log import ReplayLog
from robotsac.learner.run_folder import open_run

DEADLINE_S = 120.0
"""Machines that run tests are slow and busy; every wait here ends as soon as what it waits for has happened."""


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
        self.events: list[str] = []
        self.exit_code: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(chosen, resume))

    def _run(self, chosen: LearnerSettings, resume: bool) -> None:
        self.exit_code = run_learn(
            chosen,
            self.run_dir,
            resume=resume,
            as_json=True,
            on_status=self.seen.append,
            on_event=self.events.append,
            stop=self._stop,
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
        feed(self.run_dir, steps, boot)


def feed(run_dir: Path, steps: int, boot: str = "b") -> None:
    """Records as ingest would write them."""
    with ReplayLog(run_dir / "replay.db") as log:
        log.bind(contract())
        for batch in batches(noisy_run(steps, seed=1), 32, boot=boot):
            log.append(batch.robot, batch.boot, batch.records)


def made_run(run_dir: Path, chosen: LearnerSettings, steps: int = 200) -> None:
    """A run that has records and no checkpoint, and whose learner is gone."""
    run_dir.mkdir()
    open_run(chosen, run_dir, resume=False)
    feed(run_dir, steps)


def child(name: str) -> Any:
    return next(c for c in multiprocessing.active_children() if c.name == f"robotsac-{name}")


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
    sys.exit(run_learn(chosen, Path(sys.argv[1]), resume=sys.argv[3] == "resume", on_status=tell))
"""


@contextlib.contextmanager
def supervisor(
    tmp_path: Path, chosen: LearnerSettings | None = None, *, resume: bool = False
) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "supervise.py"
    script.write_text(SUPERVISOR)
    how = "resume" if resume else "new"
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "run"), (chosen or local()).model_dump_json(), how],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """Ingest and trainer, in the order of their start, once both are there."""
    pids: list[int] = []
    while len(pids) < 2:
        pids = sorted(told(process)[1])
    return pids


def told(process: subprocess.Popen[str]) -> tuple[int, list[int]]:
    assert process.stdout is not None
    updates, *pids = (int(word) for word in process.stdout.readline().split())
    return updates, pids


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False
