"""What a robot has learned after so many seconds of its own time, with ``learn`` beside it on the same machine.

    python tools/bench_realtime.py --seconds 80 --seeds 3 --out runs/realtime --json
    python tools/bench_realtime.py --seconds 60 --set learn.updates_per_step=4 --out runs/realtime-utd4

Each seed is one ``robotsac train``: learner, collector and, for arm0-twin, firmware and physics as processes of their own,
over sockets and the servo protocol, at the robot's own pace. Robot time is that of control steps: an arm on its way home
teaches nothing. It ends with the last episode that is sure to be over by then; the policy that is there then is evaluated on
the same robot, on goals that it has not seen.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from learning_machine import ROOT, Machine
from learning_queue import POLL_S, end
from tool_error import give_up, typed

from robotsac.child_error import read_logged_error
from robotsac.cli.console import print_error, tell
from robotsac.config import Config, load_config
from robotsac.errors import ConfigError, RobotsacError
from robotsac.signals import counted_signals

KEPT = (
    "steps",
    "updates",
    "updates_per_s",
    "env_steps_per_s",
    "overruns",
    "backend",
    "success_rate",
    "successes",
    "eval_episodes",
)
INTERRUPTED = 130
PATIENCE_S = 300.0
"""For all that takes no robot time: processes that start, ways home, a last checkpoint."""
PER_EPISODE_S = 10.0
"""An episode and the way home after it, at most, on average. Episodes are taken to last a second: one that ends early is short."""


def main() -> None:
    """Parse, train, print."""
    arguments = parse(sys.argv[1:])
    try:
        if (file := Path(arguments.robot)).is_file():
            arguments.robot = str(file.absolute())  # runs begin in another folder
        config = load_config(arguments.robot, [], arguments.set)
        steps = steps_within(arguments.seconds, config)
    except RobotsacError as error:
        give_up(error)
    runs: list[dict[str, Any]] = []
    failed: dict[int, dict[str, str | int]] = {}
    with counted_signals() as signals:
        for seed in range(arguments.seeds):
            if signals.count:
                break
            try:
                if (run := trained(arguments, config, steps, seed, lambda: signals.count > 0)) is None:
                    break
                runs.append(run)
            except RobotsacError as error:  # hours of others are not lost for it, and it is not hidden
                failed[seed] = error.to_dict()
                print_error(error)
    interrupted = signals.count > 0
    rates = [run["success_rate"] for run in runs]
    report = {
        "command": typed(),
        "machine": Machine(config.learn.device, config.learn.threads, config.learn.backend).described(),
        "settings": {name: value for name, value in vars(arguments).items() if name not in ("out", "json")},
        "success_rate": {"mean": round(statistics.mean(rates), 4), "min": min(rates), "seeds": rates}
        if rates
        else None,
        "runs": runs,
        "failed": failed,
        "interrupted": interrupted,
    }
    code = INTERRUPTED if interrupted else 1 if failed else 0
    if arguments.json:
        print(json.dumps(report))
        sys.exit(code)
    for run in runs:
        print(
            f"seed {run['seed']}  {run['successes']}/{run['eval_episodes']} reached after {run['robot_time_s']:.1f} s "
            f"of robot time, {run['updates']:,} updates, {run['updates_per_step']:.2f} per step"
        )
    if rates:
        without = f" without {len(failed)} that failed" if failed else ""
        print(f"mean {100 * statistics.mean(rates):.1f} %{without}" + (", cut short" if interrupted else ""))
    sys.exit(code)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--robot", default="arm0-twin", help="its name or its file; it runs in real time")
    parser.add_argument("--seconds", type=float, default=80.0, help="of robot time, that is of control steps")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--episodes", type=int, default=50, help="of the evaluation")
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="override one key; repeatable")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; each must be new")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(words)
    if any(option.replace(" ", "").startswith("learn.seed=") for option in arguments.set):
        parser.error("--set learn.seed would make all seeds the same; say how many with --seeds")
    for name in ("seconds", "seeds", "episodes"):
        if (value := getattr(arguments, name)) <= 0 or not math.isfinite(value):
            parser.error(f"--{name} {value} must be above 0")
    return arguments


def steps_within(seconds: float, config: Config) -> int:
    """For ``train --steps``: it goes on to the end of the episode that reaches them, and that is not after ``seconds``.

    Raises:
        ConfigError: not one episode has room.
    """
    rate_hz, episode_s = config.robot.control_rate_hz, config.task.episode_s
    steps = math.floor(seconds * rate_hz) - math.ceil(episode_s * rate_hz) + 1
    if steps <= config.learn.start_steps:
        raise ConfigError(
            f"{seconds:g} s of robot time are too few",
            reason=f"{config.learn.start_steps} steps are random, and the last episode of {episode_s:g} s is to be over",
            command=f"--seconds {math.ceil((config.learn.start_steps + 1) / rate_hz + episode_s)}",
        )
    return steps


def trained(
    arguments: argparse.Namespace, config: Config, steps: int, seed: int, stopped: Callable[[], bool]
) -> dict[str, Any] | None:
    """One run: what ``train`` says of it; ``None`` where it was stopped. Raises RobotsacError: what ``train`` raised, or it
    has not ended."""
    folder = arguments.out / f"seed-{seed}"
    options = [f"learn.seed={seed}", *arguments.set]
    words = ["train", "--robot", arguments.robot, "--steps", str(steps), "--episodes", str(arguments.episodes)]
    words += ["--run", str(folder.absolute()), "--json", *(word for option in options for word in ("--set", option))]
    tell(f"seed {seed}: robotsac {shlex.join(words)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    log, answer = (arguments.out / f"seed-{seed}.{kind}" for kind in ("log", "json"))
    look = f"tail {shlex.quote(str(log))}"
    patience_s = (
        PATIENCE_S + arguments.seconds + PER_EPISODE_S * (arguments.episodes + steps / config.robot.control_rate_hz)
    )
    with log.open("wb") as file, answer.open("wb") as out:
        # A session of its own: what ends it is asked for here, once, and it is given time to park the arm.
        process = subprocess.Popen(
            [sys.executable, "-m", "robotsac", *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=file,
            cwd=ROOT,
            start_new_session=True,
        )
        deadline_s = time.monotonic() + patience_s
        while process.poll() is None and not stopped() and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
        unfinished = process.returncode is None
        end([process] if unfinished else [])
    if unfinished and stopped():
        return None
    reason = "train's words are in its log"
    if unfinished:
        raise RobotsacError(f"seed {seed} has not ended after {patience_s:g} s", reason=reason, command=look)
    if code := process.returncode:
        raise read_logged_error(answer) or RobotsacError(
            f"seed {seed} ended with exit code {code}", reason=reason, command=look
        )
    said = json.loads(answer.read_text(encoding="utf-8").splitlines()[-1])
    learned = said["steps"] - config.learn.start_steps
    return {
        "seed": seed,
        "robot_time_s": round(said["steps"] / config.robot.control_rate_hz, 2),
        **{name: said[name] for name in KEPT},
        "updates_per_step": round(said["updates"] / learned, 3),
    }


if __name__ == "__main__":
    main()
