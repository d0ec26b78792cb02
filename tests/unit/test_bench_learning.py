"""The learning benchmark: what it keeps and begins again, what it makes of finished runs, and its own settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

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
    import learning_machine
    import learning_queue
    import learning_report
    import learning_runs
    import learning_tasks

    return SimpleNamespace(
        bench=bench_learning,
        machine=learning_machine,
        queue=learning_queue,
        report=learning_report,
        runs=learning_runs,
        tasks=learning_tasks,
    )


@pytest.fixture
def task(tools):
    """Two seeds of a thousand quick steps."""
    quick = ("learn.hidden=[8]", "learn.start_steps=50", "learn.batch_size=16")
    pendulum = tools.tasks.TASKS["pendulum"]
    return replace(pendulum, name="quick", options=quick, steps=1000, eval_every=50, eval_episodes=1, seeds=2)


def make_finished(run, finals: list[float], success: list[float] | None = None) -> None:
    """A finished run with evaluations every 50 steps."""
    run.folder.mkdir(parents=True)
    (run.folder / "asked.json").write_text(
        json.dumps({"arguments": run.arguments(), "settings": run.settings(), "machine": {"cores": 2}})
    )
    lines = [
        {"env_steps": 50 * (k + 1), "return_mean": value, "success_rate": None if success is None else success[k]}
        for k, value in enumerate(finals)
    ]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {"finished": True, "updates": 1000 + 2 * run.seed, "wall_s": 10.0, "env_steps_per_s": 5.0}
    (run.folder / "summary.json").write_text(json.dumps(summary))


# ---- running ------------------------------------------------------------------------------------------------------------


def test_finished_runs_are_kept_and_cut_ones_go_on(tools, task, tmp_path):
    cut, finished = tools.runs.runs_of([task], tmp_path, None, [])
    make_finished(finished, [-900.0, -800.0])
    before = (finished.folder / "metrics.jsonl").read_bytes()
    process = cut.start(tools.runs.Machine()).process
    while len(cut.evaluations()) < 2:  # the first one may be written down before there is a checkpoint
        assert process.poll() is None, (cut.folder / "log.txt").read_text()
        time.sleep(0.002)
    process.kill()
    process.wait()
    # Too late to be cut where the machine was slow to look: then nothing is left to do, and this test says so.
    assert cut.state() is tools.runs.State.CUT, "it was done before it could be cut"
    eager = tools.runs.Machine(jobs=2, backend="eager")
    failed, interrupted = tools.queue.run_all([cut, finished], eager, lambda line: None)
    log = (cut.folder / "log.txt").read_text()
    assert not failed and not interrupted, log
    assert [line["env_steps"] for line in cut.evaluations()] == list(range(50, 1001, 50))
    assert log.count("run folder") == 2, "what the first start said is still there"
    assert cut.summary()["backend"] == "eager"
    assert (finished.folder / "metrics.jsonl").read_bytes() == before
    assert cut.summary()["resumed"] == 1
    machine = cut.machine()
    assert machine["jobs"] == 1 and machine["torch"]
    assert [other["jobs"] for other in machine["resumed_on"]] == [2], "another machine, and it is told of"
    assert {run.state() for run in (cut, finished)} == {tools.runs.State.FINISHED}


def test_a_run_that_was_cut_before_it_wrote_its_settings_begins(tools, task, tmp_path):
    (run,) = tools.runs.runs_of([replace(task, steps=100)], tmp_path, 1, [])
    run.folder.mkdir(parents=True)
    asked = {"arguments": run.arguments(), "settings": run.settings(), "machine": {"cores": 7}}
    (run.folder / "asked.json").write_text(json.dumps(asked))
    assert run.state() is tools.runs.State.CUT
    assert tools.queue.run_all([run], tools.runs.Machine(), lambda line: None) == ([], False)
    assert run.summary()["resumed"] == 0 and "resumed_on" not in run.machine()


def test_a_run_that_fails_is_reported_and_not_taken_for_finished_and_its_log_is_kept(tools, task, tmp_path):
    wrong = replace(task, arguments=("--env", "Nonsense-v1", *tools.tasks.GYM), seeds=1)
    (run,) = tools.runs.runs_of([wrong], tmp_path, None, [])
    for times in (1, 2):
        failed, interrupted = tools.queue.run_all([run], tools.runs.Machine(), lambda line: None)
        assert failed == [run] and not interrupted
        assert (run.folder / "log.txt").read_text().count("there is no environment 'Nonsense-v1'") == 2 * times
        assert run.state() is tools.runs.State.CUT


def test_what_is_wrong_with_a_configuration_is_said_once_and_ends_that_variant_only(tools, task, tmp_path):
    wrong = replace(task, name="wrong", arguments=("--env", "Nonsense-v1", *tools.tasks.GYM), seeds=3)
    runs = tools.runs.runs_of([wrong, replace(task, steps=100, seeds=1)], tmp_path, None, [])
    said: list[str] = []
    failed, _ = tools.queue.run_all(runs, tools.runs.Machine(jobs=2), said.append)
    assert set(failed) == set(runs[:2]), "they were at it together, which no one could know"
    (error,) = [line for line in said if "what:" in line]
    what, why, command = error.splitlines()[1:]
    assert what == "   what: there is no environment 'Nonsense-v1'"
    assert why.startswith("    why: ") and command.startswith("    try: robotsac train")
    assert any(line.startswith("wrong/sac/seed 2: not started, it would fail as seed ") for line in said)
    assert [run.state() for run in runs[2:]] == [tools.runs.State.NEW, tools.runs.State.FINISHED]


def test_a_run_that_has_diverged_is_a_result_and_is_not_tried_until_it_does_not(tools, task, tmp_path):
    (run,) = tools.runs.runs_of([task], tmp_path, 1, [])
    make_finished(run, [-900.0])
    (run.folder / "summary.json").write_text(json.dumps({"finished": False, "diverged": True}))
    said: list[str] = []
    assert tools.queue.run_all([run], tools.runs.Machine(), said.append) == ([run], False)
    assert any("has diverged" in line for line in said)


def test_a_run_with_other_settings_is_not_passed_off_as_this_one(tools, task, tmp_path):
    make_finished(tools.runs.runs_of([task], tmp_path, 1, [])[0], [-900.0, -800.0])
    (other,) = tools.runs.runs_of([replace(task, steps=2000)], tmp_path, 1, [])
    with pytest.raises(ConfigError, match="other settings"):
        other.state()


def test_a_run_of_a_file_that_was_edited_since_is_not_passed_off_as_this_one(tools, task, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[learn]\ncritic_lr = 1e-3\n")
    mine = replace(task, arguments=("--env", "Pendulum-v1", "--config", str(file)))
    (run,) = tools.runs.runs_of([mine], tmp_path / "out", 1, [])
    make_finished(run, [-900.0, -800.0])
    assert run.state() is tools.runs.State.FINISHED
    file.write_text("# A remark is no change.\n[learn]\ncritic_lr = 1e-3\nthreads = 2\n")
    assert run.state() is tools.runs.State.FINISHED
    file.write_text("[learn]\ncritic_lr = 2e-3\n")
    with pytest.raises(ConfigError, match=r"learn\.critic_lr was 0\.001, now 0\.002"):
        run.state()


def test_an_older_run_is_known_by_what_it_wrote_down_itself(tools, task, tmp_path):
    (run,) = tools.runs.runs_of([task], tmp_path, 1, [])
    make_finished(run, [-900.0, -800.0])
    (run.folder / "asked.json").write_text(json.dumps({"arguments": run.arguments()}))
    learn = run.settings()["learn"]
    assert run.settings().keys() == {"learn", "collect"}
    learn.pop("n_step")  # a key that came later
    (run.folder / "config.json").write_text(json.dumps({"env": "Pendulum-v1", "learn": learn}))
    assert run.state() is tools.runs.State.FINISHED
    (run.folder / "config.json").write_text(json.dumps({"learn": {**learn, "polyak": 0.3}}))
    with pytest.raises(ConfigError, match=r"learn\.polyak was 0\.3, now 0\.005"):
        run.state()


def test_a_folder_that_is_no_run_is_never_taken_away(tools, task, tmp_path):
    (run,) = tools.runs.runs_of([task], tmp_path, 1, [])
    run.folder.mkdir(parents=True)
    (run.folder / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError):
        tools.queue.run_all([run], tools.runs.Machine(), lambda line: None)
    assert (run.folder / "mine.txt").exists()


def test_a_run_that_another_process_is_at_is_left_alone(tools, task, tmp_path):
    (run,) = tools.runs.runs_of([task], tmp_path, 1, [])
    make_finished(run, [-900.0])
    (run.folder / "summary.json").unlink()
    lock = FileLock(run.folder / "sync.lock")
    assert lock.acquire()
    try:
        assert run.state() is tools.runs.State.RUNNING
        assert tools.queue.run_all([run], tools.runs.Machine(), lambda line: None) == ([], False)
    finally:
        lock.release()
    assert run.state() is tools.runs.State.CUT


def test_how_things_stand_says_what_runs_and_what_waits_apart(tools, task, tmp_path):
    first, second, third = tools.runs.runs_of([task], tmp_path, 3, [])
    make_finished(first, [-900.0, -800.0])
    both = tools.queue._standing([first, second], 1, 3)
    assert both == "2 of 3 runs at work ·  quick/sac/seed 0: 100/1,000 ·  quick/sac/seed 1: 0/1,000 ·  1 waiting"
    assert tools.queue._standing([third], 0, 3) == "1 of 3 runs at work ·  quick/sac/seed 2: 0/1,000"


def test_a_signal_that_comes_when_all_is_done_has_cut_nothing(tools, task, tmp_path):
    (run,) = tools.runs.runs_of([replace(task, steps=100)], tmp_path, 1, [])

    def interrupt(line: str) -> None:
        if "return" in line:
            os.kill(os.getpid(), signal.SIGINT)

    assert tools.queue.run_all([run], tools.runs.Machine(), interrupt) == ([], False)


# ---- figures ------------------------------------------------------------------------------------------------------------


def test_a_report_holds_the_figures_of_all_finished_seeds(tools, task, tmp_path):
    two = replace(
        task, steps=100, variants={"a": (), "b": ("learn.temperature=0.2",)}, must=-500.0, stretch=-400.0, stretch_at=50
    )
    runs = tools.runs.runs_of([two], tmp_path, 3, [])
    for run in runs[:-1]:
        make_finished(run, [-10.0 * run.seed, -100.0 * run.seed - (50.0 if run.variant == "b" else 0.0)])
    results = tools.report.report([two], runs, tmp_path, "the command")
    found = results["tasks"]["quick"]["variants"]
    assert found["a"]["at"]["100"] == {"mean": -100.0, "sd": 100.0, "iqm": -100.0, "each": [-0.0, -100.0, -200.0]}
    assert found["a"]["at"]["50"]["mean"] == -10.0
    assert found["b"]["seeds"] == [0, 1], "one seed of it is not finished"
    assert found["b"]["at"]["100"]["mean"] == -100.0
    assert results["machines"] == [{"cores": 2, "runs": [run.name for run in runs[:-1]]}]
    text = tools.report.compact(results)
    assert json.loads(text) == json.loads(json.dumps(results))
    assert '"each": [ -0.0, -100.0, -200.0 ]' in text
    lines = [json.loads(line) for line in (tmp_path / "quick.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 5 and {line["variant"] for line in lines} == {"a", "b"}
    assert (tmp_path / "quick.png").read_bytes().startswith(b"\x89PNG")
    rows = tools.report.table(results).splitlines()
    assert len(rows) == 1 + 2 * 2
    assert "must -500 met" in rows[2] and "-100.00" in rows[2] and " 3/3 " in rows[2]
    assert "stretch -400 met" in rows[1] and " 2/3 " in rows[3]
    assert found["a"]["updates"] == [1000, 1002, 1004]
    end = rows[0].index("updates") + len("updates")
    assert [row[:end].split()[-1] for row in rows[1:]] == ["-", "1,002", "-", "1,001"]


def test_a_verdict_says_by_how_much_a_goal_was_missed(tools, task, tmp_path):
    near = replace(task, steps=100, must=-90.0, stretch=-99.0, stretch_at=50)
    runs = tools.runs.runs_of([near], tmp_path, 2, [])
    for run in runs:
        make_finished(run, [-100.0, -90.0 - 0.5 * run.seed])
    results = tools.report.report([near], runs, tmp_path, "")
    found = results["tasks"]["quick"]["variants"]["sac"]
    assert found["verdicts"] == {"must": {"met": False, "missed_by": 0.25}, "stretch": {"met": False, "missed_by": 1.0}}
    assert (found["n"], found["asked"], found["resumed"]) == (2, 2, [0, 0])
    rows = tools.report.table(results).splitlines()
    assert "stretch -99 missed by 1" in rows[1] and "must -90 missed by 0.25" in rows[2]
    unknown = {"met": None, "missed_by": None}
    assert tools.report.verdict(tools.report.goals_of(near)[0], {}, 0) == unknown
    # And on fewer seeds than the task asks for there is none, however good they are.
    three = replace(near, must=-1e6, seeds=3)
    lucky = tools.report.report([three], tools.runs.runs_of([three], tmp_path, 2, []), tmp_path, "")
    assert lucky["tasks"]["quick"]["variants"]["sac"]["verdicts"]["must"] == unknown
    assert "must -1e+06 needs more seeds" in tools.report.table(lucky)


def test_a_task_without_a_finished_run_has_no_row(tools, task, tmp_path):
    other = replace(task, name="other", steps=100)
    done, *missing = tools.runs.runs_of([other, task], tmp_path, 1, [])
    nothing = tools.report.report([task], missing, tmp_path, "")
    assert tools.report.table(nothing) == "quick: no finished run"
    make_finished(done, [-2.0, -1.0])
    both = tools.report.report([other, task], [done, *missing], tmp_path, "")
    header, row, below = tools.report.table(both).splitlines()
    assert header.startswith("task") and row.startswith("other") and below == "quick: no finished run"


def test_of_one_seed_no_spread_is_shown(tools, task, tmp_path):
    task = replace(task, steps=100)
    (run,) = tools.runs.runs_of([task], tmp_path, 1, [])
    make_finished(run, [-2.0, -1.0])
    results = tools.report.report([task], [run], tmp_path, "")
    assert results["tasks"]["quick"]["variants"]["sac"]["at"]["100"]["sd"] is None
    header, row = tools.report.table(results).splitlines()
    column = header.index("sd")
    assert row[column - 6 : column + 2] == "       -"


def test_of_a_task_that_counts_successes_the_success_rate_is_reported(tools, task, tmp_path):
    reach = replace(task, steps=100, measure="success")
    runs = tools.runs.runs_of([reach], tmp_path, 2, [])
    for run in runs:
        make_finished(run, [1.0, 2.0], [0.5, 1.0 - 0.1 * run.seed])
    found = tools.report.variant_figures(reach, "sac", runs)
    assert found["at"]["100"]["each"] == [1.0, 0.9]


def test_a_curve_is_one_number_per_evaluation(tools, task, tmp_path):
    task = replace(task, steps=100)
    runs = tools.runs.runs_of([task], tmp_path, 2, [])
    make_finished(runs[0], [-4.0, -2.0])
    make_finished(runs[1], [-2.0, -1.0])
    steps, values = tools.report.curves(task, runs)
    np.testing.assert_array_equal(steps, [50, 100])
    np.testing.assert_array_equal(values, [[-4, -2], [-2, -1]])


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([1], "one seed"),
        ([1, 1], "one seed"),
        ([3, 3], "mean and range over 3 seeds"),
        ([3, 1], "mean and range over 1 to 3 seeds"),
    ],
)
def test_a_picture_says_how_many_seeds_it_shows(tools, counts, words):
    assert tools.report.seeds_in_words(counts) == words


@pytest.mark.parametrize(("title", "shown"), [("", "quick"), ("Pendulum-v1 steps=100", "Pendulum-v1 steps=100")])
def test_a_pictures_title_is_the_tasks_or_else_its_name(tools, task, tmp_path, monkeypatch, title, shown):
    titles: list[str] = []
    monkeypatch.setattr(tools.report, "plot_bands", lambda path, bands, title, *rest: titles.append(title))
    task = replace(task, steps=100, title=title)
    (run,) = tools.runs.runs_of([task], tmp_path, 1, [])
    make_finished(run, [-2.0, -1.0])
    tools.report.draw(tmp_path / "p.png", task, {"sac": [run]})
    assert titles == [shown]


def test_a_pictures_pure_numbers_have_no_unit_that_reads_as_a_footnote(tools, task, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    labels: list[str] = []
    for axis in ("set_xlabel", "set_ylabel"):
        monkeypatch.setattr(Axes, axis, lambda self, label, **look: labels.append(label))
    task = replace(task, steps=100)
    runs = tools.runs.runs_of([task], tmp_path, 2, [])
    for run in runs:
        make_finished(run, [-2.0, -1.0])
    tools.report.draw(tmp_path / "p.png", task, {"sac": runs})
    assert labels == ["environment steps", "return per episode"]


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
    assert Scores.of([2.0]) == Scores(2.0, None, 2.0, (2.0,))
    assert Scores.of([1.0, 2.0, 3.0]).sd == pytest.approx(1.0)
    with pytest.raises(ValueError):
        Scores.of([])


# ---- its own settings ---------------------------------------------------------------------------------------------------


def test_the_settings_of_every_task_and_variant_are_valid(tools):
    for task in tools.tasks.TASKS.values():
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


# ---- the command --------------------------------------------------------------------------------------------------------


def bench(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    tool = [sys.executable, str(ROOT / "tools/bench_learning.py"), *words]
    return subprocess.run(tool, capture_output=True, text=True, timeout=240, cwd=cwd)


QUICK = ("--env", "Pendulum-v1", "--steps", "120", "--eval-every", "60", "--seeds", "1")
QUICK += ("--set", "learn.hidden=[8]", "--set", "learn.start_steps=50", "--set", "learn.batch_size=16")


def test_any_gymnasium_id_can_be_measured(tmp_path):
    done = bench(*QUICK, "--out", "out", "--summary", "new/folder/s.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "new/folder/s.json").read_text())
    ((name, task),) = summary["tasks"].items()
    assert name == "pendulum-v1-steps=120-learn.hidden=-8-learn.start_steps=50-learn.batch_size=16"
    assert task["variants"]["sac"]["curve"]["env_steps"] == [60, 120]
    assert task["variants"]["sac"]["updates"] == [70], "one each after the first 50 steps"
    assert "learn.hidden=[8]" in summary["command"] and not task["goals"]
    row, below = done.stdout.splitlines()[1:]
    assert " 1/1 " in row and row.startswith("pendulum-v1-steps=120…  sac ")
    assert below.startswith("pendulum-v1-steps=120…: --env Pendulum-v1 ") and "--set learn.start_steps=50" in below
    assert summary["machines"][0]["runs"] == [f"{name}/sac/seed 0"], "in full"
    (folder,) = (tmp_path / "out").glob("*/sac/seed-0")
    lock = FileLock(folder / "sync.lock")
    assert lock.acquire()
    (folder / "summary.json").unlink()
    done = bench(*QUICK, "--out", "out", cwd=tmp_path)
    lock.release()
    assert done.returncode == 1, "not all that was asked for is there"
    assert "sac/seed 0: running in another process, and not in these figures" in done.stderr


def test_machines_can_share_the_seeds_of_a_task(tools, task, tmp_path):
    shared = [run for first in (0, 2) for run in tools.runs.runs_of([task], tmp_path, 2, [], first)]
    alone = tools.runs.runs_of([task], tmp_path, 4, [])
    assert [(run.seed, run.folder) for run in shared] == [(run.seed, run.folder) for run in alone]
    rest = tools.runs.runs_of([replace(task, seeds=3)], tmp_path, None, [], 2)
    assert {run.seed for run in rest} == {2}, "not more than the task's"


def test_what_is_interrupted_says_how_it_goes_on_and_shows_no_result(tmp_path):
    tool = [sys.executable, str(ROOT / "tools/bench_learning.py"), *QUICK, "--out", "out"]
    with subprocess.Popen(tool, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        while not list(tmp_path.glob("out/*/sac/seed-0/log.txt")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "interrupted: the same command goes on with what was cut"
    assert out.endswith(": no finished run\n") and len(out.splitlines()) == 1


def test_what_is_interrupted_before_it_begins_ends_without_a_traceback(tools, tmp_path, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["bench_learning.py", "pendulum", "--out", str(tmp_path)])
    monkeypatch.setattr(tools.bench, "require_runnable", interrupt)
    with pytest.raises(SystemExit) as caught:
        tools.bench.main()
    assert caught.value.code == 130


def test_the_task_of_an_id_is_named_after_all_that_makes_it_another_one(tools):
    def named(*words: str) -> str:
        return tools.bench.task_of(tools.bench.parse(["--env", "Pendulum-v1", "--out", "out", *words])).name

    many = [word for k in range(9) for word in ("--set", f"learn.an_option_of_many={k}")]
    asked = ([], ["--steps", "600"], ["--set", "learn.n_step=3"], many, [*many, "--set", "learn.n_step=3"])
    names = [named(*words) for words in asked]
    assert len(set(names)) == len(names) and max(map(len, names)) == 100
    assert named("--steps", "100000") == named() == "pendulum-v1-steps=100000"


def test_the_title_of_an_ids_picture_is_broken_between_its_options_only(tools):
    from robotsac.learner.heading import TITLE_PT, _lines

    options = ["learn.start_steps=200", "learn.hidden=[32]", "learn.critic_layer_norm=true", "learn.critic_lr=1e-3"]
    words = [word for option in options for word in ("--set", option)]
    task = tools.bench.task_of(tools.bench.parse(["--env", "Pendulum-v1", "--out", "out", *words]))
    lines = _lines(task.title, TITLE_PT, "bold")
    assert len(lines) > 1 and " ".join(lines).split() == ["Pendulum-v1", "steps=100000", *options]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("halfcheetah-normalised", "halfcheetah-normalised"),
        ("w" * 32, "w" * 32),
        ("w" * 33, "w" * 31 + "…"),
        ("pendulum-v1-steps=600-learn.start_steps=200", "pendulum-v1-steps=600…"),
    ],
)
def test_a_long_name_is_shown_in_part(tools, name, shown):
    assert tools.tasks.shortened(name) == shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pendulum", "--steps", "10"), "--steps is for --env"),
        (("pendulum", "--set", "learn.threads=2"), "--set is for --env"),
        ((), "name a task"),
        (("pandulum",), "'pandulum'"),
        (("pendulum", "--backend", "nativ"), "invalid choice: 'nativ'"),
        (("--env", "Pendulum-v1", "--steps", "0"), "below 1"),
        (("pendulum", "--first-seed", "-1"), "below 0"),
        (("pendulum", "--first-seed", "10"), "leaves none of pendulum's seeds"),
        (("--env", "Pendulum-v1", "--set", "learn.nonsense=1"), "nonsense"),
        (("--env", "Pandulum-v1", "--summary", "new/s.json"), "--summary new/s.json --out out --env Pendulum-v1\n"),
        (("--env", "CartPole-v1"), "its actions are Discrete(2)"),
        (("--env", "Pendulum-v1", "--steps", "1500"), "--steps 1500 is too few to learn anything from"),
        (("pendulum", "--summary", "/dev/null/s/s.json"), "cannot be made"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(tmp_path, words, said):
    done = bench(*words, "--out", "out", cwd=tmp_path)
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not list(tmp_path.iterdir()), "no folder is left behind"


def test_a_tree_that_is_not_as_in_its_commit_is_marked(tools, tmp_path):
    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    assert tools.machine.commit(tmp_path / "nowhere") == ""
    git("init")
    (tmp_path / "code.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    clean = tools.machine.commit(tmp_path, ("code.py", "more"))
    assert len(clean) >= 7 and not clean.endswith("-dirty")
    (tmp_path / "note.txt").write_text("beside it")
    assert tools.machine.commit(tmp_path, ("code.py", "more")) == clean
    (tmp_path / "more").write_text("new, and not in it")
    assert tools.machine.commit(tmp_path, ("code.py", "more")) == clean + "-dirty"
