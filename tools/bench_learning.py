"""How well and how fast it learns: task × variant × seeds, each a run of ``robotsac train --sync``.

    python tools/bench_learning.py pendulum reach --out runs/bench --jobs 2
    python tools/bench_learning.py halfcheetah --out runs/bench --device cuda --summary halfcheetah.json

Started again with the same ``--out`` it goes on: finished runs are kept, runs that were cut short begin anew. Returns are
undiscounted, of the policy without noise, and the last evaluation counts. For each task a picture and the evaluations of
all runs, one JSON line each, lie in ``--out``; ``--summary`` writes what is worth keeping into one small file.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from learning_runs import Machine, Run, State, run_all, runs_of
from learning_tasks import TASKS, Task

from robotsac.cli.console import StatusLine, print_error
from robotsac.errors import ConfigError, RobotsacError
from robotsac.learner.bands import Band, plot_bands
from robotsac.learner.scores import Scores

INTERRUPTED = 130


def main() -> None:
    """Parse, run, print."""
    arguments = parse(sys.argv[1:])
    tasks = [TASKS[name] for name in arguments.tasks]
    try:
        require_variants(tasks, arguments.variants)
        runs = runs_of(tasks, arguments.out, arguments.seeds, arguments.variants)
        failed: list[Run] = []
        interrupted = False
        if not arguments.no_run:
            machine = Machine(arguments.device, arguments.threads, arguments.jobs)
            with StatusLine(plain=arguments.json) as status:
                failed, interrupted = run_all(runs, machine, status.event, status.update)
        results = report(tasks, runs, arguments)
    except RobotsacError as error:
        print_error(error)
        sys.exit(error.exit_code)
    print(json.dumps(results) if arguments.json else table(results))
    sys.exit(INTERRUPTED if interrupted else 1 if failed else 0)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tasks", nargs="+", choices=sorted(TASKS), help="which to run")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs; the same one goes on")
    parser.add_argument("--variants", nargs="+", default=[], help="of the tasks' variants, only these")
    parser.add_argument("--seeds", type=int, help="how many, from 0 on; default: the task's")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--device", default="cpu", help="learn.device of all runs")
    parser.add_argument("--threads", type=int, default=1, help="learn.threads of all runs")
    parser.add_argument("--no-run", action="store_true", help="only report what is there")
    parser.add_argument("--summary", type=Path, help="write figures, seeds, settings and machine to this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args(words)
    for name in ("jobs", "threads", "seeds"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            parser.error(f"--{name} {value} is below 1")
    return arguments


def require_variants(tasks: Sequence[Task], wanted: Sequence[str]) -> None:
    """Refuse a name that no task has."""
    known = sorted({variant for task in tasks for variant in task.variants})
    if strange := sorted(set(wanted) - set(known)):
        raise ConfigError(f"no task here has a variant {strange[0]!r}", reason=f"there are {', '.join(known)}")


def report(tasks: Sequence[Task], runs: Sequence[Run], arguments: argparse.Namespace) -> dict[str, Any]:
    """Write lines, pictures and summary of what is finished; the figures."""
    finished = [run for run in runs if run.state() is State.FINISHED]
    results: dict[str, Any] = {}
    for task in tasks:
        by_variant = {
            variant: made
            for variant in task.variants
            if (made := [run for run in finished if run.task is task and run.variant == variant])
        }
        if by_variant:
            write_lines(arguments.out / f"{task.name}.jsonl", by_variant)
            draw(arguments.out / f"{task.name}.png", task, by_variant)
        results[task.name] = figures(task, by_variant)
    whole = {
        "command": shlex.join(["python", "tools/bench_learning.py", *sys.argv[1:]]),
        "machines": machines(finished),
        "tasks": results,
    }
    if arguments.summary is not None:
        arguments.summary.write_text(compact(whole), encoding="utf-8")
    return whole


def machines(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Where they were made, each kind once, with the names of those made there."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        made = run.machine()
        found.setdefault(json.dumps(made), {**made, "runs": []})["runs"].append(run.name)
    return list(found.values())


def compact(results: dict[str, Any]) -> str:
    """JSON for people: indented, each list of plain values on one line."""
    text = json.dumps(results, indent=1)
    return re.sub(r"\[\n[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def figures(task: Task, by_variant: dict[str, list[Run]]) -> dict[str, Any]:
    """What is known of one task."""
    goals = {
        name: {"value": value, "at": at or task.steps}
        for name, value, at in (("must", task.must, task.must_at), ("stretch", task.stretch, task.stretch_at))
        if value is not None
    }
    return {
        "arguments": [*task.arguments, *(f"--set {option}" for option in task.options)],
        "steps": task.steps,
        "eval_episodes": task.eval_episodes,
        "measure": task.measure,
        "goals": goals,
        "variants": {variant: variant_figures(task, variant, runs) for variant, runs in by_variant.items()},
    }


def variant_figures(task: Task, variant: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Over the seeds of one variant: the evaluations at the end and at the goals' steps, and the mean curve."""
    steps, values = curves(task, runs)
    at = {task.steps} | {goal or task.steps for goal in (task.must_at, task.stretch_at)}
    scores = {int(step): rounded(Scores.of(values[:, k].tolist())) for k, step in enumerate(steps) if step in at}
    return {
        "options": list(task.variants[variant]),
        "seeds": [run.seed for run in runs],
        "at": {str(step): score for step, score in sorted(scores.items())},
        "curve": {"env_steps": steps.astype(int).tolist(), "mean": np.round(values.mean(axis=0), 3).tolist()},
        "wall_s": [run.summary()["wall_s"] for run in runs],
        "env_steps_per_s": [run.summary()["env_steps_per_s"] for run in runs],
    }


def rounded(scores: Scores) -> dict[str, Any]:
    """For a file that people read."""
    each = [round(value, 3) for value in scores.each]
    return {"mean": round(scores.mean, 3), "sd": round(scores.sd, 3), "iqm": round(scores.iqm, 3), "each": each}


def curves(task: Task, runs: Sequence[Run]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Steps (k,), and what is measured (seeds, k); evaluations of finished runs stand at the same steps."""
    key = "return_mean" if task.measure == "return" else "success_rate"
    lines = [run.evaluations() for run in runs]
    steps = np.array([line["env_steps"] for line in lines[0]], dtype=np.float64)
    return steps, np.array([[line[key] for line in run] for run in lines], dtype=np.float64)


def draw(path: Path, task: Task, by_variant: dict[str, list[Run]]) -> None:
    """Mean and range over seeds, a band per variant."""
    scale, label, limits = 1.0, "return per episode (1)", None
    if task.measure == "success":
        scale, label, limits = 100.0, "success rate (%)", (0.0, 104.0)
    bands = []
    for variant, runs in by_variant.items():
        steps, values = curves(task, runs)
        bands.append(Band(variant, steps, scale * values))
    goals = {"must": task.must, "stretch": task.stretch}
    lines = {name: scale * value for name, value in goals.items() if value is not None}
    note = f"mean and range over seeds, {task.eval_episodes} episodes each"
    plot_bands(path, bands, task.name, note, label, lines, limits)


def write_lines(path: Path, by_variant: dict[str, list[Run]]) -> None:
    """Every evaluation, one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for variant, runs in by_variant.items():
            for run in runs:
                for line in run.evaluations():
                    file.write(json.dumps({"task": run.task.name, "variant": variant, **line}) + "\n")


def table(results: dict[str, Any]) -> str:
    """For people: a row per variant and step that counts."""
    rows = [f"{'task':<24}{'variant':<12}{'steps':>9}{'mean':>11}{'sd':>10}{'iqm':>11}  {'goal':<18}each seed"]
    for name, task in results["tasks"].items():
        if not task["variants"]:
            rows.append(f"{name:<24}no finished run")
        for variant, found in task["variants"].items():
            for step, score in found["at"].items():
                goals = [f"{word} {goal['value']:g}" for word, goal in task["goals"].items() if goal["at"] == int(step)]
                each = " ".join(f"{value:.2f}" for value in score["each"])
                rows.append(
                    f"{name:<24}{variant:<12}{int(step):>9,}{score['mean']:>11.2f}{score['sd']:>10.2f}"
                    f"{score['iqm']:>11.2f}  {', '.join(goals):<18}{each}"
                )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
