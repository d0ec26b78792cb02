"""The learning benchmark: what it keeps and begins again, what it makes of finished runs, and its own settings."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robotsac.config import load_config, load_learner_settings
from robotsac.errors import ConfigError
from robotsac.learner.scores import Scores, interquartile_mean
from robotsac.lock import FileLock

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import bench_learning
    import learning_runs
    import learning_tasks

    return bench_learning, learning_runs, learning_tasks


@pytest.fixture
def task(tools):
    """Two seeds of a hundred steps."""
    quick = ("learn.hidden=[8]", "learn.start_steps=50", "learn.batch_size=16")
    pendulum = tools[2].TASKS["pendulum"]
    return replace(pendulum, name="quick", options=quick, steps=100, eval_every=50, eval_episodes=1, seeds=2)


def make_finished(run, finals: list[float], success: list[float] | None = None) -> None:
    """A finished run with evaluations every 50 steps."""
    run.folder.mkdir(parents=True)
    (run.folder / "asked.json").write_text(json.dumps({"arguments": run.arguments(), "machine": {"cores": 2}}))
    lines = [
        {"env_steps": 50 * (k + 1), "return_mean": value, "success_rate": None if success is None else success[k]}
        for k, value in enumerate(finals)
    ]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run.folder / "summary.json").write_text(json.dumps({"finished": True, "wall_s": 10.0, "env_steps_per_s": 5.0}))


# ---- running ------------------------------------------------------------------------------------------------------------


def test_finished_runs_are_kept_and_cut_ones_begin_again(tools, task, tmp_path):
    _, learning_runs, _ = tools
    cut, finished = learning_runs.runs_of([task], tmp_path, None, [])
    make_finished(finished, [-900.0, -800.0])
    make_finished(cut, [123.0])
    (cut.folder / "summary.json").write_text(json.dumps({"finished": False}))
    before = (finished.folder / "metrics.jsonl").read_bytes()
    failed, interrupted = learning_runs.run_all([cut, finished], learning_runs.Machine(jobs=2), lambda line: None)
    assert not failed and not interrupted, (cut.folder / "log.txt").read_text()
    assert [line["env_steps"] for line in cut.evaluations()] == [50, 100]
    assert all(line["return_mean"] < 0 for line in cut.evaluations()), "nothing of the cut run is left"
    assert (finished.folder / "metrics.jsonl").read_bytes() == before
    assert cut.machine()["jobs"] == 2 and cut.machine()["torch"]
    assert {run.state() for run in (cut, finished)} == {learning_runs.State.FINISHED}


def test_a_run_that_fails_is_reported_and_not_taken_for_finished(tools, task, tmp_path):
    _, learning_runs, _ = tools
    wrong = replace(task, options=("learn.nonsense=1",), seeds=1)
    (run,) = learning_runs.runs_of([wrong], tmp_path, None, [])
    failed, interrupted = learning_runs.run_all([run], learning_runs.Machine(), lambda line: None)
    assert failed == [run] and not interrupted
    assert "nonsense" in (run.folder / "log.txt").read_text()
    assert run.state() is learning_runs.State.CUT


def test_a_run_with_other_settings_is_not_passed_off_as_this_one(tools, task, tmp_path):
    _, learning_runs, _ = tools
    make_finished(learning_runs.runs_of([task], tmp_path, 1, [])[0], [-900.0, -800.0])
    (other,) = learning_runs.runs_of([replace(task, steps=200)], tmp_path, 1, [])
    with pytest.raises(ConfigError, match="other settings"):
        other.state()


def test_a_folder_that_is_no_run_is_never_taken_away(tools, task, tmp_path):
    _, learning_runs, _ = tools
    (run,) = learning_runs.runs_of([task], tmp_path, 1, [])
    run.folder.mkdir(parents=True)
    (run.folder / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError):
        learning_runs.run_all([run], learning_runs.Machine(), lambda line: None)
    assert (run.folder / "mine.txt").exists()


def test_a_run_that_another_process_is_at_is_left_alone(tools, task, tmp_path):
    _, learning_runs, _ = tools
    (run,) = learning_runs.runs_of([task], tmp_path, 1, [])
    make_finished(run, [-900.0])
    (run.folder / "summary.json").unlink()
    lock = FileLock(run.folder / "sync.lock")
    assert lock.acquire()
    try:
        assert run.state() is learning_runs.State.RUNNING
        assert learning_runs.run_all([run], learning_runs.Machine(), lambda line: None) == ([], False)
    finally:
        lock.release()
    assert run.state() is learning_runs.State.CUT


# ---- figures ------------------------------------------------------------------------------------------------------------


def test_a_report_holds_the_figures_of_all_finished_seeds(tools, task, tmp_path, monkeypatch):
    bench, learning_runs, learning_tasks = tools
    two = replace(task, variants={"a": (), "b": ("learn.temperature=0.2",)}, must=-500.0, stretch=-400.0, stretch_at=50)
    monkeypatch.setitem(learning_tasks.TASKS, "quick", two)
    runs = learning_runs.runs_of([two], tmp_path, 3, [])
    for run in runs[:-1]:
        make_finished(run, [-10.0 * run.seed, -100.0 * run.seed - (50.0 if run.variant == "b" else 0.0)])
    arguments = bench.parse(["quick", "--out", str(tmp_path), "--summary", str(tmp_path / "s.json"), "--no-run"])
    results = bench.report([two], runs, arguments)
    found = results["tasks"]["quick"]["variants"]
    assert found["a"]["at"]["100"] == {"mean": -100.0, "sd": 100.0, "iqm": -100.0, "each": [-0.0, -100.0, -200.0]}
    assert found["a"]["at"]["50"]["mean"] == -10.0
    assert found["b"]["seeds"] == [0, 1], "one seed of it is not finished"
    assert found["b"]["at"]["100"]["mean"] == -100.0
    assert results["machines"] == [{"cores": 2, "runs": [run.name for run in runs[:-1]]}]
    text = (tmp_path / "s.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(results))
    assert '"each": [ -0.0, -100.0, -200.0 ]' in text
    lines = [json.loads(line) for line in (tmp_path / "quick.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 5 and {line["variant"] for line in lines} == {"a", "b"}
    assert (tmp_path / "quick.png").read_bytes().startswith(b"\x89PNG")
    rows = bench.table(results).splitlines()
    assert len(rows) == 1 + 2 * 2
    assert "must -500" in rows[2] and "-100.00" in rows[2]


def test_of_a_task_that_counts_successes_the_success_rate_is_reported(tools, task, tmp_path):
    bench, learning_runs, _ = tools
    reach = replace(task, measure="success")
    runs = learning_runs.runs_of([reach], tmp_path, 2, [])
    for run in runs:
        make_finished(run, [1.0, 2.0], [0.5, 1.0 - 0.1 * run.seed])
    found = bench.variant_figures(reach, "sac", runs)
    assert found["at"]["100"]["each"] == [1.0, 0.9]


def test_a_curve_is_one_number_per_evaluation(tools, task, tmp_path):
    bench, learning_runs, _ = tools
    runs = learning_runs.runs_of([task], tmp_path, 2, [])
    make_finished(runs[0], [-4.0, -2.0])
    make_finished(runs[1], [-2.0, -1.0])
    steps, values = bench.curves(task, runs)
    np.testing.assert_array_equal(steps, [50, 100])
    np.testing.assert_array_equal(values, [[-4, -2], [-2, -1]])


@pytest.mark.parametrize(
    ("values", "iqm"),
    [([3.0], 3.0), ([1.0, 3.0], 2.0), ([0.0, 10.0, 50.0], 15.0), ([-1e6, 4.0, 6.0, 1e6], 5.0)],
)
def test_the_interquartile_mean_is_that_of_the_middle_half(values, iqm):
    # Of three, the outer two count a quarter each: (0 + 4 · 10 + 50) / 6.
    assert interquartile_mean(values) == pytest.approx(iqm)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_interquartile_mean_lies_between_and_knows_no_order(values, random):
    mean = interquartile_mean(values)
    assert min(values) - 1e-6 <= mean <= max(values) + 1e-6
    shuffled = list(values)
    random.shuffle(shuffled)
    assert interquartile_mean(shuffled) == mean


def test_scores_of_one_seed_have_no_spread_and_of_none_there_are_no_scores():
    assert Scores.of([2.0]) == Scores(2.0, 0.0, 2.0, (2.0,))
    assert Scores.of([1.0, 2.0, 3.0]).sd == pytest.approx(1.0)
    with pytest.raises(ValueError):
        Scores.of([])


# ---- its own settings ---------------------------------------------------------------------------------------------------


def test_the_settings_of_every_task_and_variant_are_valid(tools):
    for task in tools[2].TASKS.values():
        for options in task.variants.values():
            every = [*task.options, *options]
            if "--robot" in task.arguments:
                load_config(task.arguments[1], overrides=every)
            else:
                assert task.arguments[2] == "--config"
                load_learner_settings([ROOT / task.arguments[3]], every)
        assert task.steps % task.eval_every == 0
        assert all(at % task.eval_every == 0 for at in (task.must_at, task.stretch_at)), "a goal is where one looks"


def test_a_wrong_word_on_the_command_line_is_refused():
    tool = [sys.executable, str(ROOT / "tools/bench_learning.py"), "pendulum", "--out", "x", "--variants", "nope"]
    done = subprocess.run(tool, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "'nope'" in done.stderr and "sac" in done.stderr
    assert "Traceback" not in done.stderr
