"""``robotsac train``: learner and collector on this machine, then an evaluation. Made of the real commands."""

from __future__ import annotations

import json
import shlex
import socket
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from robotsac.actor.collect import CollectOptions, CollectReport, Ended, collect, writable
from robotsac.actor.evaluate import Evaluation
from robotsac.cli.collect import torque_words
from robotsac.cli.console import StatusLine, say, tell, typed_with
from robotsac.cli.evaluate import evaluate_bundle
from robotsac.cli.inspect import find_bundle
from robotsac.cli.learn import require_learner
from robotsac.cli.learner_process import LearnerProcess, learner_arguments
from robotsac.cli.options import run_folder
from robotsac.config import Config, SpoolConfig, load_config
from robotsac.errors import ConfigError, RobotsacError
from robotsac.signals import counted_signals
from robotsac.spool import Spool

HELD_OUT_SEED = 1_000_000
# What is suggested instead of too few steps: reach takes about so many, and other tasks some multiple of their start.
STEPS_MIN, USEFUL_FACTOR = 10_000, 10
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What ``train`` without ``--sync`` was asked for, besides the configuration; see ``robotsac train --help``."""

    robot: str
    run: str | None
    steps: int
    until_success: float | None
    episodes: int
    resume: bool


def run_train(asked: TrainOptions, files: list[Path], overrides: list[str], as_json: bool) -> int:
    """See ``robotsac train --help``. Returns the exit code.

    Raises:
        RobotsacError: what went wrong, here, next to the arm or in the learner.
    """
    robot, steps, episodes = asked.robot, asked.steps, asked.episodes
    folder = run_folder(asked.run, f"{Path(robot).stem}-{time.strftime('%Y%m%d-%H%M%S')}")
    address = f"tcp://127.0.0.1:{_free_port()}"
    config = load_config(robot, files, [*overrides, f"link.address={address!r}"])
    _require_enough(steps, config.learn.start_steps)
    require_learner(config.learn)
    done = _steps_to_resume(folder, steps) if asked.resume else _require_new(folder, robot)
    with writable(folder):
        (folder / "config.json").write_text(config.model_dump_json(indent=2), encoding="utf-8")
    learner = LearnerProcess(folder / "learner", learner_arguments(robot, files, overrides, address))
    # A signal while the learner writes its last checkpoint is nobody else's.
    with StatusLine(plain=as_json) as status, counted_signals() as signals:
        status.event(f"run folder {folder}" + (f": it goes on after about {done:,} steps" if asked.resume else ""))
        report = _collect(config, folder, steps - done, asked.until_success, learner, status)
    if learner.failed:
        raise learner.error()
    if report.error is not None:
        raise report.error
    if report.interrupted or signals.count:
        return _interrupted(folder, robot, done, report, as_json)
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
    return _finish(folder, config, done, report, result, as_json)


def _require_new(folder: Path, robot: str) -> int:
    """Refuse a folder that holds a run. Returns the steps it has: 0. Raises ConfigError."""
    if (folder / "learner").exists() or (folder / "robot").exists():
        raise ConfigError(
            f"run folder {folder} exists already",
            reason="without --resume, train begins a new run",
            command=f"{typed_with('--run', _argument(folder))} --resume",
        )
    if (folder / "run.json").exists():
        raise ConfigError(
            f"run folder {folder} exists already",
            reason="it is one of robotsac learn",
            command=f"robotsac train --robot {shlex.quote(robot)}",
        )
    return 0


def _steps_to_resume(folder: Path, steps: int) -> int:
    """How many of ``steps`` a run that was cut has done; an episode that was cut with it may be counted one short.

    Raises:
        ConfigError: there is no such run, or it has them all.
        StorageError: its records cannot be read.
    """
    if not (folder / "learner").exists():
        raise ConfigError(
            f"there is no run to resume in {folder}",
            reason="no learner has begun one there",
            command=typed_with("--run", _argument(folder)).replace(" --resume", ""),
        )
    done = _steps_done(folder / "robot" / "spool.db")
    if done >= steps:
        raise ConfigError(
            f"run {folder} has done {done:,} of {steps:,} steps",
            reason="with more --steps it goes on",
            command=typed_with("--steps", str(2 * done)),
        )
    return done


def _steps_done(spool: Path) -> int:
    """Steps in a robot's spool, sent or not: each has a record, and one more closes each episode."""
    if not spool.exists():
        return 0
    done = 0
    with Spool(spool, SpoolConfig()) as store:
        for boot in store.boots():
            last = store.pending(boot.boot, boot.last_seq - 1, 1)
            done += boot.last_seq + 1 - (int(last["episode"][-1]) if len(last) else 0)
    return done


def _interrupted(folder: Path, robot: str, done: int, report: CollectReport, as_json: bool) -> int:
    """Say how it was left and how it goes on. Returns the exit code."""
    go_on = typed_with("--run", _argument(folder))
    go_on += "" if "--resume" in go_on.split() else " --resume"
    if report.ended in (Ended.STEPS, Ended.SUCCESS):  # all that is missing is the evaluation
        go_on = f"robotsac eval --robot {shlex.quote(robot)} --policy {shlex.quote(str(folder))}"
    torque, steps = torque_words(report.energized, report.torque_off), done + report.status.steps
    tell(f"interrupted after {steps:,} steps; torque {torque}; it goes on with\n  {go_on}")
    if as_json:
        summary = {
            "run": str(folder),
            "steps": steps,
            "episodes": report.status.episodes,
            "torque_off": report.torque_off,
            "unsent": report.unsent,
            "interrupted": True,
            "command": go_on,
        }
        say(json.dumps(summary))
    return INTERRUPTED


def _argument(folder: Path) -> str:
    """What to type after ``--run``."""
    return folder.name if folder.parent == Path("runs") else str(folder)


def _require_enough(steps: int, start_steps: int) -> None:
    """Refuse before an arm moves what would be refused after it has. Raises ConfigError."""
    if steps <= start_steps:
        raise ConfigError(
            f"--steps {steps} is too few to learn anything from",
            reason=f"training begins after learn.start_steps {start_steps} steps",
            command=f"--steps {max(STEPS_MIN, USEFUL_FACTOR * start_steps)}",
        )


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

    options = CollectOptions(folder / "robot", steps, until_success, hint=False, should_stop=should_stop)
    learner.start()
    try:
        return collect(config, options, lambda s: status.update(s.line()), status.event)
    finally:
        status.update("the learner writes its last checkpoint and policy")
        learner.stop()


def _finish(
    folder: Path, config: Config, done: int, report: CollectReport, result: Evaluation | None, as_json: bool
) -> int:
    """Say what came of it, ``done`` steps of earlier lives included. Returns the exit code."""
    from robotsac.learner.curve import plot_learning_curve

    evaluation = (result.successes, result.episodes) if result is not None and result.episodes else None
    curve = plot_learning_curve(folder / "learner", evaluation)
    updates, updates_per_s = _learner_pace(folder / "learner")
    summary = {
        "robot": config.robot.name,
        "run": str(folder),
        "curve": str(curve),
        "steps": done + report.status.steps,
        "episodes": report.status.episodes,
        "collect_seconds": round(report.moving_seconds, 2),
        "env_steps_per_s": round(report.status.steps / report.moving_seconds, 2),
        "updates": updates,
        "updates_per_s": updates_per_s,
        "overruns": report.status.overruns,
        "torque_off": report.torque_off and (result is None or result.torque_off),
        "unsent": report.unsent,
        "interrupted": result is not None and result.interrupted,
    }
    code = INTERRUPTED if summary["interrupted"] else 0
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
        return code
    say(
        f"{summary['steps']:,} steps at {summary['env_steps_per_s']:.1f}/s, "
        f"{summary['updates']:,} updates at {summary['updates_per_s']:.1f}/s, "
        f"torque {'off, read back' if summary['torque_off'] else 'NOT read back as off'}"
    )
    say(f"learning curve {curve}")
    if result is not None:
        say(result.line())
    return code


def _learner_pace(folder: Path) -> tuple[int, float]:
    """Updates done, and the median of the rates that the trainer logged while it trained, 1/s."""
    from robotsac.learner.metrics import FILE_NAME, read_lines

    lines = [line for line in read_lines(folder / FILE_NAME) if line["kind"] == "train"]
    rates = [line["updates_per_s"] for line in lines if line.get("updates_per_s")]
    return max((line["updates"] for line in lines), default=0), statistics.median(rates) if rates else 0.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
