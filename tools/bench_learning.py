"""How well and how fast it learns: task × variant × seeds, each a run of ``robotsac train --sync``.

    python tools/bench_learning.py pendulum reach --out runs/bench --jobs 2
    python tools/bench_learning.py halfcheetah --out runs/bench --device cuda --summary halfcheetah.json
    python tools/bench_learning.py --env Hopper-v4 --steps 300000 --set learn.n_step=3 --seeds 5 --out runs/bench

Started again with the same ``--out`` it goes on: finished runs are kept, runs that were cut short go on from their last
checkpoint. Returns are undiscounted, of the policy without noise, and the last evaluation counts. For each task a picture
and the evaluations of all runs, one JSON line each, lie in ``--out``; ``--summary`` writes what is worth keeping into one
small file. The exit code is 0 only when every run that was asked for is finished.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import get_args

from learning_machine import Machine, what_is_wrong
from learning_queue import run_all
from learning_report import compact, report, table
from learning_runs import Run, State, runs_of
from learning_tasks import GYM, TASKS, Task
from tool_error import give_up, typed

from robotsac.cli.console import StatusLine, tell
from robotsac.cli.gym_world import require_learnable
from robotsac.config.learn import LearnConfig
from robotsac.errors import ConfigError, RobotsacError, StorageError, path_command

INTERRUPTED = 130
NAME_CHARS, DIGEST_CHARS = 100, 8
ENV_STEPS, ENV_EVAL_EVERY, ENV_SEEDS = 100_000, 5000, 3
"""Of an ``--env`` that is no task: as HalfCheetah is measured."""


def main() -> None:
    """Parse, run, print."""
    arguments = parse(sys.argv[1:])
    tasks = [TASKS[name] for name in arguments.tasks]
    try:
        if arguments.env is not None:
            tasks.append(task_of(arguments))
        require_variants(tasks, arguments.variants)
        require_seeds(tasks, arguments)
        runs = runs_of(tasks, arguments.out, arguments.seeds, arguments.variants, arguments.first_seed)
        if not arguments.no_run:
            require_runnable(tasks, runs)
        if arguments.summary is not None:
            make_folder(arguments.summary.parent)
        failed, interrupted = ([], False) if arguments.no_run else run(runs, arguments)
        elsewhere = [run for run in runs if run.state() is State.RUNNING]
        results = report(tasks, runs, arguments.out, typed())
        if arguments.summary is not None:
            write_summary(arguments.summary, compact(results))
    except RobotsacError as error:
        give_up(error)
    except KeyboardInterrupt:  # while nothing ran yet, or no more
        sys.exit(INTERRUPTED)
    for other in elsewhere:
        tell(f"{other.label}: {State.RUNNING.value}, and not in these figures")
    print(json.dumps(results) if arguments.json else table(results))
    sys.exit(INTERRUPTED if interrupted else 1 if failed or elsewhere else 0)


def run(runs: Sequence[Run], arguments: argparse.Namespace) -> tuple[list[Run], bool]:
    """Make what is not finished; see :func:`~learning_queue.run_all`."""
    machine = Machine(arguments.device, arguments.threads, arguments.backend, arguments.jobs)
    with StatusLine(plain=arguments.json) as status:
        failed, interrupted = run_all(runs, machine, status.event, status.update)
    if interrupted:
        tell("interrupted: the same command goes on with what was cut")
    return failed, interrupted


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"which to run: {', '.join(sorted(TASKS))}")
    parser.add_argument("--env", help="besides, or instead: a gymnasium id, with SAC as published (configs/gym.toml)")
    parser.add_argument("--steps", type=int, help=f"with --env: control steps; default {ENV_STEPS:,}")
    parser.add_argument(
        "--eval-every", type=int, help=f"with --env: steps between evaluations; default {ENV_EVAL_EVERY:,}"
    )
    parser.add_argument("--set", action="append", metavar="K=V", help="with --env: override one key; repeatable")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs; the same one goes on")
    parser.add_argument("--variants", nargs="+", default=[], help="of the tasks' variants, only these")
    parser.add_argument("--seeds", type=int, help="how many, from --first-seed on; default: all of the task's")
    parser.add_argument("--first-seed", type=int, default=0, help="default 0; others let machines share a task's seeds")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--device", default="cpu", help="learn.device of all runs")
    parser.add_argument("--threads", type=int, default=1, help="learn.threads of all runs")
    backends = get_args(LearnConfig.model_fields["backend"].annotation)
    parser.add_argument("--backend", choices=backends, help="learn.backend of all runs")
    parser.add_argument("--no-run", action="store_true", help="only report what is there")
    parser.add_argument("--summary", type=Path, help="write figures, seeds, settings and machine to this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args(words)
    if strange := [name for name in arguments.tasks if name not in TASKS]:
        parser.error(f"there is no task {strange[0]!r}; there are {', '.join(sorted(TASKS))}")
    if not arguments.tasks and arguments.env is None:
        parser.error("name a task, or a gymnasium id with --env")
    for name in ("steps", "eval_every", "set"):
        if getattr(arguments, name) is not None and arguments.env is None:
            parser.error(f"--{name.replace('_', '-')} is for --env; a task has its own")
    for name in ("jobs", "threads", "seeds", "steps", "eval_every"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value} is below 1")
    if arguments.first_seed < 0:
        parser.error(f"--first-seed {arguments.first_seed} is below 0")
    if wrong := what_is_wrong(device=arguments.device, threads=arguments.threads):
        parser.error(wrong)
    return arguments


def task_of(arguments: argparse.Namespace) -> Task:
    """The task that ``--env`` and the options beside it make, without a goal; its name is made of them."""
    steps = arguments.steps or ENV_STEPS
    words = [arguments.env, f"steps={steps}", *(arguments.set or [])]
    return Task(
        name=folder_name("-".join(words)),
        title=" ".join(words),
        arguments=("--env", arguments.env, *GYM),
        options=tuple(arguments.set or ()),
        variants={"sac": ()},
        steps=steps,
        eval_every=min(arguments.eval_every or ENV_EVAL_EVERY, steps),
        eval_episodes=10,
        seeds=ENV_SEEDS,
    )


def folder_name(words: str) -> str:
    """Of ``words``; where they are too many, a digest tells them from others that begin alike."""
    name = re.sub(r"[^A-Za-z0-9._=]+", "-", words).strip("-").lower()
    if len(name) <= NAME_CHARS:
        return name
    digest = sha256(words.encode()).hexdigest()[:DIGEST_CHARS]
    return f"{name[: NAME_CHARS - 1 - DIGEST_CHARS]}-{digest}"


def require_variants(tasks: Sequence[Task], wanted: Sequence[str]) -> None:
    """Refuse a name that no task has."""
    known = sorted({variant for task in tasks for variant in task.variants})
    if strange := sorted(set(wanted) - set(known)):
        raise ConfigError(
            f"no task here has a variant {strange[0]!r}",
            reason=f"there are {', '.join(known)}",
            command=f"--variants {known[0]}",
        )


def require_seeds(tasks: Sequence[Task], arguments: argparse.Namespace) -> None:
    """Raises ConfigError: a task would have none."""
    for task in tasks:
        if arguments.seeds is None and arguments.first_seed >= task.seeds:
            raise ConfigError(
                f"--first-seed {arguments.first_seed} leaves none of {task.name}'s seeds",
                reason=f"they are 0 to {task.seeds - 1}",
                command="--seeds 1",
            )


def require_runnable(tasks: Sequence[Task], runs: Sequence[Run]) -> None:
    """Refuse now what would be refused in a run of its own. Raises ConfigError, DriverUnavailable."""
    for task in tasks:
        if task.env_id is not None:
            require_learnable(task.env_id)
    for asked in runs:
        asked.settings()


def make_folder(folder: Path) -> None:
    """Make it now: it would be a pity to find out after a day. Raises StorageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"folder {folder} cannot be made", reason=str(error), command=path_command(error, folder)
        ) from error


def write_summary(path: Path, text: str) -> None:
    """Raises StorageError: it cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} cannot be written", reason=str(error), command=path_command(error, path)) from error


if __name__ == "__main__":
    main()
