"""``robotsac train``: learner and collector on this machine, then an evaluation. Made of the real commands."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from robotsac.actor.collect import CollectOptions, CollectReport, collect, writable
from robotsac.actor.evaluate import Evaluation
from robotsac.cli.console import StatusLine, say, tell
from robotsac.cli.evaluate import evaluate_bundle
from robotsac.cli.inspect import find_bundle
from robotsac.cli.learn import require_learner
from robotsac.cli.options import run_folder
from robotsac.config import Config, load_config
from robotsac.config.folders import find_config, find_robot
from robotsac.errors import ConfigError, RobotsacError
from robotsac.policy.store import BundleStore

LEARNER_STARTS_MAX = 4
LEARNER_PATIENCE_S = 40.0
HELD_OUT_SEED = 1_000_000
# What is suggested instead of too few steps: reach takes about so many, and other tasks some multiple of their start.
STEPS_MIN, USEFUL_FACTOR = 10_000, 10
INTERRUPTED = 130


def run_train(
    robot: str,
    run: str | None,
    steps: int,
    until_success: float | None,
    episodes: int,
    files: list[Path],
    overrides: list[str],
    as_json: bool,
) -> int:
    """See ``robotsac train --help``. Returns the exit code.

    Raises:
        RobotsacError: what went wrong, here, next to the arm or in the learner.
    """
    folder = run_folder(run, f"{Path(robot).stem}-{time.strftime('%Y%m%d-%H%M%S')}")
    address = f"tcp://127.0.0.1:{_free_port()}"
    config = load_config(robot, files, [*overrides, f"link.address={address!r}"])
    _require_enough(steps, config.learn.start_steps)
    require_learner(config.learn)
    if (folder / "learner").exists() or (folder / "robot").exists() or (folder / "run.json").exists():
        raise ConfigError(
            f"run folder {folder} exists already",
            reason="train always begins a new run",
            command=f"robotsac train --robot {shlex.quote(robot)}",
        )
    with writable(folder):
        (folder / "config.json").write_text(config.model_dump_json(indent=2), encoding="utf-8")
    learner = LearnerProcess(folder / "learner", _learner_arguments(robot, files, overrides, address))
    with StatusLine(plain=as_json) as status:
        status.event(f"run folder {folder}")
        report = _collect(config, folder, steps, until_success, learner, status)
    if learner.failed:
        raise learner.error()
    if report.error is not None:
        raise report.error
    if report.interrupted:
        tell(f"interrupted; torque {'off, read back' if report.torque_off else 'NOT read back as off'}")
        return INTERRUPTED
    if not learner.has_policy():
        raise RobotsacError(
            f"{report.status.steps} steps were too few to learn anything from",
            reason=f"training begins after {config.learn.start_steps} steps",
            command=f"robotsac train --robot {shlex.quote(robot)} --steps 10000",
        )
    result = None
    if episodes:
        faults = folder / "robot" / "faults"
        result = evaluate_bundle(config, find_bundle(folder), episodes, HELD_OUT_SEED, as_json, faults)
    return _finish(folder, config, report, result, as_json)


def _require_enough(steps: int, start_steps: int) -> None:
    """Refuse before an arm moves what would be refused after it has. Raises ConfigError."""
    if steps <= start_steps:
        raise ConfigError(
            f"--steps {steps} is too few to learn anything from",
            reason=f"training begins after learn.start_steps {start_steps} steps",
            command=f"--steps {max(STEPS_MIN, USEFUL_FACTOR * start_steps)}",
        )


class LearnerProcess:
    """``robotsac learn`` as a process of its own, started again from its last checkpoint when it dies.

    Args:
        folder: its run folder.
        arguments: of the command, but for ``--resume``.
    """

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self._folder = folder
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._starts = 0
        self.failed = False

    def start(self) -> None:
        """Start it; its output goes to ``learner.log`` beside its folder."""
        resume = ["--resume"] if self._starts else []
        command = [sys.executable, "-m", "robotsac", "learn", "--run", str(self._folder.resolve()), *resume]
        command += ["--parent", str(os.getpid())]
        self._log = (self._folder.parent / "learner.log").open("ab")
        # A process group of its own: the terminal's Ctrl-C must not end learning before the arm has stopped.
        self._process = subprocess.Popen(
            [*command, *self._arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._starts += 1

    def watch(self) -> str:
        """What happened to it, in words, once; ``""`` while it is well. Starts it again, a bounded number of times."""
        if self._process is None or self.failed or (code := self._process.poll()) is None:
            return ""
        if code > 0 or self._starts >= LEARNER_STARTS_MAX:
            self.failed = True
            return f"the learner ended with exit code {code}"
        self._close_log()
        self.start()
        return f"the learner was ended by signal {-code}; started it again from its last checkpoint"

    def stop(self) -> None:
        """Ask it to write its last checkpoint and policy, and to end. Idempotent; bounded."""
        process = self._process
        if process is None:
            return
        for number, patience_s in ((signal.SIGTERM, LEARNER_PATIENCE_S), (signal.SIGKILL, 5.0)):
            if process.poll() is None:
                process.send_signal(number)
                try:
                    process.wait(patience_s)
                except subprocess.TimeoutExpired:
                    continue
        self._close_log()

    def has_policy(self) -> bool:
        """Whether it published one."""
        return BundleStore(self._folder / "policies").latest() is not None

    def error(self) -> RobotsacError:
        """Why it failed: what it said last, else where to look."""
        log = self._folder.parent / "learner.log"
        for line in reversed(log.read_text(encoding="utf-8", errors="replace").splitlines()):
            if line.startswith('{"error"'):
                said = json.loads(line)["error"]
                error = RobotsacError(f"learner: {said['message']}", reason=said["reason"], command=said["command"])
                error.exit_code = said["exit_code"]
                return error
        return RobotsacError(
            "the learner could not go on",
            reason="it left no error of its own",
            command=f"cat {shlex.quote(str(log))}",
        )

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None


def _collect(
    config: Config,
    folder: Path,
    steps: int,
    until_success: float | None,
    learner: LearnerProcess,
    status: StatusLine,
) -> CollectReport:
    def should_stop() -> bool:
        if news := learner.watch():
            status.event(news)
        return learner.failed

    options = CollectOptions(folder=folder / "robot", steps=steps, until_success=until_success, should_stop=should_stop)
    learner.start()
    try:
        return collect(config, options, lambda s: status.update(s.line()), status.event)
    finally:
        status.update("the learner writes its last checkpoint and policy")
        learner.stop()


def _finish(folder: Path, config: Config, report: CollectReport, result: Evaluation | None, as_json: bool) -> int:
    from robotsac.learner.curve import plot_learning_curve

    evaluation = (result.successes, result.episodes) if result is not None and result.episodes else None
    curve = plot_learning_curve(folder / "learner", evaluation)
    updates, updates_per_s = _learner_pace(folder / "learner")
    summary = {
        "robot": config.robot.name,
        "run": str(folder),
        "curve": str(curve),
        "steps": report.status.steps,
        "episodes": report.status.episodes,
        "collect_seconds": round(report.moving_seconds, 2),
        "env_steps_per_s": round(report.status.steps / report.moving_seconds, 2),
        "updates": updates,
        "updates_per_s": updates_per_s,
        "overruns": report.status.overruns,
        "torque_off": report.torque_off and (result is None or result.torque_off),
        "unsent": report.unsent,
    }
    if result is not None:
        summary |= {
            "success_rate": result.success_rate,
            "successes": result.successes,
            "eval_episodes": result.episodes,
        }
    with writable(folder):
        (folder / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    if as_json:
        say(json.dumps(summary))
        return 0
    say(
        f"{summary['steps']:,} steps at {summary['env_steps_per_s']:.1f}/s, "
        f"{summary['updates']:,} updates at {summary['updates_per_s']:.1f}/s, "
        f"torque {'off, read back' if summary['torque_off'] else 'NOT read back as off'}"
    )
    say(f"learning curve {curve}")
    if result is not None:
        say(result.line())
    return 0


def _learner_pace(folder: Path) -> tuple[int, float]:
    """Updates done, and the median of the rates that the trainer logged while it trained, 1/s."""
    from robotsac.learner.metrics import FILE_NAME, read_lines

    lines = [line for line in read_lines(folder / FILE_NAME) if line["kind"] == "train"]
    rates = [line["updates_per_s"] for line in lines if line.get("updates_per_s")]
    return max((line["updates"] for line in lines), default=0), statistics.median(rates) if rates else 0.0


def _learner_arguments(robot: str, files: list[Path], overrides: list[str], address: str) -> list[str]:
    arguments = ["--json"]
    for file in (find_robot(robot), *map(find_config, files)):
        arguments += ["--config", str(file)]
    for override in (*overrides, f"link.address={address!r}"):
        arguments += ["--set", override]
    return arguments


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
