"""``robotsac train``: learner and collector on this machine, then an evaluation. Made of the real commands."""

from __future__ import annotations

import json
import shlex
import socket
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robotsac.actor.collect import CollectOptions, CollectReport, Ended, collect
from robotsac.actor.evaluate import Evaluation
from robotsac.actor.folder import CONFIG_FILE, writable
from robotsac.cli.collect import torque_words
from robotsac.cli.console import StatusLine, say, tell
from robotsac.cli.enough_steps import require_enough
from robotsac.cli.evaluate import evaluate_bundle
from robotsac.cli.inspect import find_bundle
from robotsac.cli.learn import require_learner
from robotsac.cli.learner_process import LearnerProcess, learner_arguments
from robotsac.cli.options import run_folder
from robotsac.cli.train_resume import Done, eval_command, require_new, require_resumable, typed_to_resume
from robotsac.config import Config, load_config
from robotsac.early_interrupt import EARLY
from robotsac.errors import RobotsacError
from robotsac.learner.run_folder import TRAINER_STATUS_FILE, read_json
from robotsac.signals import counted_signals

HELD_OUT_SEED = 1_000_000
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
    require_enough(steps, config.learn)
    require_learner(config.learn)
    EARLY.raise_if_seen()
    done = require_resumable(folder, robot, config, steps) if asked.resume else require_new(folder, robot)
    with writable(folder):
        (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2), encoding="utf-8")
    learner = LearnerProcess(folder / "learner", learner_arguments(robot, files, overrides, address))
    # Signals before and after those that collect() counts: while it starts, while the learner writes its last checkpoint.
    with StatusLine(plain=as_json) as status, counted_signals() as signals:
        status.event(
            f"run folder {folder}" + (f": it goes on after about {done.steps:,} steps" if asked.resume else "")
        )

        def should_stop() -> bool:
            if news := learner.watch():
                status.event(news)
            return learner.failed or signals.count > 0

        until, left = asked.until_success, steps - done.steps
        options = CollectOptions(folder / "robot", left, until, hint=False, should_stop=should_stop)
        report = _collect(config, options, learner, status)
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
    return _finish(folder, robot, config, done, report, result, as_json)


def _interrupted(folder: Path, robot: str, done: Done, report: CollectReport, as_json: bool) -> int:
    """Say how it was left and how it goes on. Returns the exit code."""
    whole = report.ended in (Ended.STEPS, Ended.SUCCESS)  # all that is missing is the evaluation
    go_on = eval_command(robot, folder) if whole else typed_to_resume(folder)
    torque, steps = torque_words(report.energized, report.torque_off), done.steps + report.status.steps
    tell(f"interrupted after {steps:,} steps; torque {torque}; it goes on with\n  {go_on}")
    if as_json:
        summary = {
            "run": str(folder),
            "steps": steps,
            "episodes": done.episodes + report.status.episodes,
            "torque_off": report.torque_off,
            "unsent": report.unsent,
            "interrupted": True,
            "command": go_on,
        }
        say(json.dumps(summary))
    return INTERRUPTED


def _collect(config: Config, options: CollectOptions, learner: LearnerProcess, status: StatusLine) -> CollectReport:
    learner.start()
    try:
        return collect(config, options, lambda s: status.update(s.line()), status.event)
    finally:
        status.update("the learner writes its last checkpoint and policy")
        learner.stop()


def _finish(
    folder: Path,
    robot: str,
    config: Config,
    done: Done,
    report: CollectReport,
    result: Evaluation | None,
    as_json: bool,
) -> int:
    """Write down and say what came of it. Returns the exit code."""
    from robotsac.learner.curve import plot_learning_curve

    whole = result if result is not None and not result.interrupted else None
    curve = plot_learning_curve(folder / "learner", (whole.successes, whole.episodes) if whole is not None else None)
    summary = _summary(folder, config, done, report, result) | {"curve": str(curve)}
    with writable(folder):
        (folder / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    if as_json:
        say(json.dumps(summary))
    else:
        say(
            f"{summary['steps']:,} steps at {summary['env_steps_per_s']:.1f}/s, "
            f"{summary['updates']:,} updates at {summary['updates_per_s']:.1f}/s, "
            f"torque {torque_words(True, summary['torque_off'])}"
        )
        say(f"learning curve {curve}")
        if whole is not None:
            say(whole.line())
        elif result is not None:
            again = eval_command(robot, folder)
            say(f"the evaluation was interrupted after {result.episodes} episodes; all of it: {again}")
    return INTERRUPTED if summary["interrupted"] else 0


def _summary(
    folder: Path, config: Config, done: Done, report: CollectReport, result: Evaluation | None
) -> dict[str, Any]:
    """For ``summary.json``; rates and overruns are those since it began or was resumed."""
    updates, updates_per_s = _learner_pace(folder / "learner")
    interrupted = result is not None and result.interrupted
    summary = {
        "robot": config.robot.name,
        "run": str(folder),
        "steps": done.steps + report.status.steps,
        "episodes": done.episodes + report.status.episodes,
        "steps_since_resumed": report.status.steps,
        "collect_seconds": round(report.moving_seconds, 2),
        "env_steps_per_s": round(report.status.steps / report.moving_seconds, 2),
        "updates": updates,
        "updates_per_s": updates_per_s,
        "backend": read_json(folder / "learner" / TRAINER_STATUS_FILE).get("backend"),
        "overruns": report.status.overruns,
        "torque_off": report.torque_off and (result is None or result.torque_off or not result.energized),
        "unsent": report.unsent,
        "interrupted": interrupted,
    }
    if result is not None and not interrupted:
        summary |= {
            "success_rate": result.success_rate,
            "successes": result.successes,
            "eval_episodes": result.episodes,
        }
    return summary


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
