"""What ``bench_learning.py`` makes of finished runs: figures, verdicts, lines, a picture, a table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from learning_runs import Run, State
from learning_tasks import Task, shortened

from robotsac.learner.bands import Band, Goal, plot_bands
from robotsac.learner.scores import Scores

NOTHING = "-"
"""In a table, where there is no figure."""


def report(tasks: Sequence[Task], runs: Sequence[Run], out: Path, command: str) -> dict[str, Any]:
    """Write lines and pictures of what is finished into ``out``; the figures, and the ``command`` that made them."""
    finished = [run for run in runs if run.state() is State.FINISHED]
    results: dict[str, Any] = {}
    for task in tasks:
        asked = {
            variant: [run for run in runs if run.task is task and run.variant == variant] for variant in task.variants
        }
        made = {variant: [run for run in of if run in finished] for variant, of in asked.items()}
        made = {variant: of for variant, of in made.items() if of}
        if made:
            write_lines(out / f"{task.name}.jsonl", made)
            draw(out / f"{task.name}.png", task, made)
        results[task.name] = figures(task, made, {variant: len(of) for variant, of in asked.items()})
    return {"command": command, "machines": machines(finished), "tasks": results}


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


def goals_of(task: Task) -> list[Goal]:
    """Those that it has, at their steps."""
    both = (("must", task.must, task.must_at), ("stretch", task.stretch, task.stretch_at))
    return [Goal(name, at or task.steps, value) for name, value, at in both if value is not None]


def figures(task: Task, by_variant: Mapping[str, Sequence[Run]], asked: Mapping[str, int]) -> dict[str, Any]:
    """What is known of one task; ``asked``: how many seeds of each variant there should be."""
    return {
        "arguments": [*task.arguments, *(f"--set {option}" for option in task.options)],
        "steps": task.steps,
        "eval_episodes": task.eval_episodes,
        "measure": task.measure,
        "goals": {goal.name: {"value": goal.value, "at": goal.env_steps} for goal in goals_of(task)},
        "variants": {
            variant: {**variant_figures(task, variant, runs), "asked": asked[variant]}
            for variant, runs in by_variant.items()
        },
    }


def variant_figures(task: Task, variant: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Over the seeds of one variant: the evaluations at the end and at the goals' steps, and the mean curve."""
    steps, values = curves(task, runs)
    at = {task.steps} | {int(goal.env_steps) for goal in goals_of(task)}
    scores = {int(step): Scores.of(values[:, k].tolist()) for k, step in enumerate(steps) if step in at}
    summaries = [run.summary() for run in runs]
    return {
        "options": list(task.variants[variant]),
        "seeds": [run.seed for run in runs],
        "n": len(runs),
        "at": {str(step): rounded(score) for step, score in sorted(scores.items())},
        "verdicts": {goal.name: verdict(goal, scores, task.seeds - len(runs)) for goal in goals_of(task)},
        "curve": {"env_steps": steps.astype(int).tolist(), "mean": np.round(values.mean(axis=0), 3).tolist()},
        "action_rate": mean_of([run.evaluations()[-1].get("action_rate") for run in runs]),
        "updates": [summary["updates"] for summary in summaries],
        "backend": [re.split("[:;]", summary.get("backend", ""))[0] for summary in summaries],
        "wall_s": [summary["wall_s"] for summary in summaries],
        "env_steps_per_s": [summary["env_steps_per_s"] for summary in summaries],
        "resumed": [summary.get("resumed", 0) for summary in summaries],
    }


def mean_of(values: Sequence[float | None]) -> float | None:
    """Rounded; ``None`` where not all are known."""
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 4) if known and len(known) == len(values) else None


def verdict(goal: Goal, scores: Mapping[int, Scores], seeds_short: int) -> dict[str, Any]:
    """Whether the mean over seeds has reached ``goal`` at its step; ``None`` where nobody looked at that step, or not in as
    many seeds as the task asks for."""
    score = scores.get(int(goal.env_steps))
    if score is None or seeds_short > 0:
        return {"met": None, "missed_by": None}
    short = goal.value - score.mean
    # Of what is printed with three digits: a goal that is missed by less is not missed by 0.
    return {"met": short <= 0, "missed_by": None if short <= 0 else float(f"{short:.3g}")}


def rounded(scores: Scores) -> dict[str, Any]:
    """For a file that people read."""
    each = [round(value, 3) for value in scores.each]
    sd = None if scores.sd is None else round(scores.sd, 3)
    return {"mean": round(scores.mean, 3), "sd": sd, "iqm": round(scores.iqm, 3), "each": each}


def curves(task: Task, runs: Sequence[Run]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Steps (k,), and what is measured (seeds, k); evaluations of finished runs stand at the same steps."""
    key = "return_mean" if task.measure == "return" else "success_rate"
    lines = [run.evaluations() for run in runs]
    steps = np.array([line["env_steps"] for line in lines[0]], dtype=np.float64)
    return steps, np.array([[line[key] for line in run] for run in lines], dtype=np.float64)


def draw(path: Path, task: Task, by_variant: Mapping[str, Sequence[Run]]) -> None:
    """Mean and range over seeds, a band per variant."""
    scale, label, limits = 1.0, "return per episode", None
    if task.measure == "success":
        scale, label, limits = 100.0, "success rate (%)", (0.0, 104.0)
    bands = []
    for variant, runs in by_variant.items():
        steps, values = curves(task, runs)
        bands.append(Band(variant, steps, scale * values))
    goals = [Goal(goal.name, goal.env_steps, scale * goal.value) for goal in goals_of(task)]
    note = (
        f"{seeds_in_words([len(runs) for runs in by_variant.values()])}, {task.eval_episodes} episodes per evaluation"
    )
    plot_bands(path, bands, task.title or task.name, note, label, goals, limits)


def seeds_in_words(counts: Sequence[int]) -> str:
    """What is drawn, of variants with ``counts`` seeds."""
    low, high = min(counts), max(counts)
    if high == 1:
        return "one seed"
    return f"mean and range over {low if low == high else f'{low} to {high}'} seeds"


def write_lines(path: Path, by_variant: Mapping[str, Sequence[Run]]) -> None:
    """Every evaluation, one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for variant, runs in by_variant.items():
            for run in runs:
                for line in run.evaluations():
                    file.write(json.dumps({"task": run.task.name, "variant": variant, **line}) + "\n")


def table(results: dict[str, Any]) -> str:
    """For people: a row per variant and step that counts; n is how many seeds are finished, of how many.

    Updates are those at the end, the mean over seeds. Below it stands what shortened names are short for, and which tasks
    have no finished run.
    """
    width = 2 + max(map(len, ("task", *map(shortened, results["tasks"]))))
    header = (
        f"{'task':<{width}}{'variant':<12}{'n':>6}{'steps':>11}{'updates':>11}{'mean':>11}{'sd':>10}{'iqm':>11}"
        f"  {'goal':<34}each seed"
    )
    rows, below = [], []
    for name, task in results["tasks"].items():
        shown = shortened(name)
        if not task["variants"]:
            below.append(f"{shown}: no finished run")
        elif shown != name:
            below.append(f"{shown}: {' '.join(task['arguments'])}")
        for variant, found in task["variants"].items():
            seeds = f"{found['n']}/{found['asked']}"
            for step, score in found["at"].items():
                goals = [_words(word, goal, found) for word, goal in task["goals"].items() if goal["at"] == int(step)]
                updates = f"{np.mean(found['updates']):,.0f}" if int(step) == task["steps"] else NOTHING
                sd = NOTHING if score["sd"] is None else f"{score['sd']:.2f}"
                each = " ".join(f"{value:.2f}" for value in score["each"])
                rows.append(
                    f"{shown:<{width}}{variant:<12}{seeds:>6}{int(step):>11,}{updates:>11}{score['mean']:>11.2f}{sd:>10}"
                    f"{score['iqm']:>11.2f}  {', '.join(goals):<34}{each}"
                )
    return "\n".join([header, *rows, *below] if rows else below)


def _words(name: str, goal: dict[str, Any], found: dict[str, Any]) -> str:
    said = found["verdicts"][name]
    if said["met"] is None:
        return f"{name} {goal['value']:g} needs more seeds"
    return f"{name} {goal['value']:g} " + ("met" if said["met"] else f"missed by {said['missed_by']:g}")
