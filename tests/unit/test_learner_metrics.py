"""Metrics and the learning curve."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robotsac.errors import StorageError
from robotsac.learner.assembler import Episode
from robotsac.learner.curve import _draw, _mark_end, plot_learning_curve, rolling_mean
from robotsac.learner.heading import draw_heading
from robotsac.learner.metrics import FILE_NAME, RECENT_EPISODES, Metrics, Recent, read_lines
from robotsac.learner.rates import Rate
from robotsac.records import EpisodeEnd


def finished(number: int = 1, end: EpisodeEnd = EpisodeEnd.SUCCESS, **changed: object) -> Episode:
    made = Episode("r", "b", number, end, 50, -1.5, False, False, 3, True, 50 * number)
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def test_lines_say_when_in_robot_time(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, control_rate_hz=50)
    metrics.open()
    metrics.episode(finished(4), row=9, updates=120)
    metrics.train(row=9, updates=121, values={"alpha": 0.1, "critic_loss": float("nan")})
    metrics.close()
    metrics.close()
    episode, train = read_lines(tmp_path / FILE_NAME)
    assert (episode["kind"], episode["robot_time_s"], episode["success"], episode["end"]) == (
        "episode", 4.0, True, "SUCCESS"
    )  # fmt: skip
    assert (train["updates"], train["alpha"], train["critic_loss"]) == (121, 0.1, None)


def test_resuming_takes_back_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 50)
    metrics.open()
    for row in (1, 2, 3):
        metrics.episode(finished(row), row=row, updates=10 * row)
        metrics.train(row, 10 * row, {})
    metrics.close()
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b'{"kind":"train","row":1,"upd')  # cut off by a crash
    metrics = Metrics(tmp_path, 50)
    metrics.open(row=2, updates=15)
    metrics.episode(finished(3), row=3, updates=16)
    metrics.close()
    lines = read_lines(tmp_path / FILE_NAME)
    assert [(line["kind"], line["row"], line["updates"]) for line in lines] == [
        ("episode", 1, 10), ("train", 1, 10), ("episode", 3, 16)
    ]  # fmt: skip


def test_tensorboard_events_are_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    metrics = Metrics(tmp_path, 50)
    metrics.open()
    metrics.episode(finished(), 1, 1)
    metrics.close()
    assert any((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_recent_counts_what_says_something_about_the_policy() -> None:
    recent = Recent()
    assert (recent.success_rate, recent.mean_return) == (0.0, 0.0)
    recent.add(finished(1))
    recent.add(finished(2, EpisodeEnd.TIME_LIMIT, return_=-2.5))
    recent.add(finished(3, EpisodeEnd.OPERATOR))
    recent.add(finished(4, complete=False))
    assert (recent.success_rate, recent.mean_return, recent.episodes) == (0.5, -2.0, 4)
    for number in range(RECENT_EPISODES):
        recent.add(finished(number))
    assert recent.success_rate == 1.0


def test_a_return_that_is_no_number_does_not_spoil_the_mean() -> None:
    recent = Recent()
    for number, return_ in enumerate((2.0, float("nan"), float("inf"), 4.0)):
        recent.add(finished(number, return_=return_))
    assert (recent.success_rate, recent.mean_return) == (1.0, 1.5)


def test_a_full_disk_is_told_in_words_and_closing_still_closes(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).symlink_to("/dev/full")
    metrics = Metrics(tmp_path, 50)
    metrics.open()
    with pytest.raises(StorageError, match="No space left") as refused:
        for number in range(100):
            metrics.episode(finished(number), number, number)
            metrics.flush()
    assert (refused.value.exit_code, refused.value.command) == (6, f"df -h {tmp_path}")
    metrics.close()
    metrics.close()
    with pytest.raises(StorageError, match="not open"):
        metrics.episode(finished(), 1, 1)


@pytest.mark.parametrize("call", ["add_scalar", "flush"])
def test_a_full_disk_under_the_event_file_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter
    metrics = Metrics(tmp_path, 50)
    metrics.open()

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, call, full)
    with pytest.raises(StorageError, match="No space left"):
        metrics.train(1, 1, {"alpha": 0.1})
        metrics.flush()
    monkeypatch.undo()
    metrics.close()


def test_rolling_mean_is_over_what_there_is() -> None:
    assert rolling_mean(np.array([1.0, 0.0, 0.0, 1.0]), 2).tolist() == [1.0, 0.5, 0.0, 0.5]
    assert rolling_mean(np.array([4.0]), 20).tolist() == [4.0]


def test_rate_is_per_second_over_the_window() -> None:
    rate = Rate()
    assert rate.at(0.0, 0) == 0.0
    assert rate.at(2.0, 10) == 5.0
    assert rate.at(100.0, 10) == pytest.approx(0.0)


def test_the_learning_curve_is_a_picture(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 50)
    metrics.open()
    for number in range(1, 40):
        end = EpisodeEnd.SUCCESS if number > 20 else EpisodeEnd.TIME_LIMIT
        metrics.episode(finished(number, end, random=number < 5, return_=float(number)), number, number)
    metrics.episode(finished(40, return_=float("nan")), 40, 40)
    metrics.close()
    path = plot_learning_curve(tmp_path)
    assert path == tmp_path / "learning_curve.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


def drawn(tmp_path: Path, episodes: int, evaluation: tuple[int, int] | None = None) -> Any:
    """The axes of a curve over ``episodes`` episodes, the second half of them successful."""
    from matplotlib.figure import Figure

    metrics = Metrics(tmp_path, 50)
    metrics.open()
    for number in range(1, episodes + 1):
        metrics.episode(
            finished(number, EpisodeEnd.SUCCESS if 2 * number > episodes else EpisodeEnd.FAILURE), number, number
        )
    metrics.close()
    axes = Figure().add_subplot()
    _draw(axes, read_lines(tmp_path / "metrics.jsonl"), "run", evaluation)
    return axes


@pytest.mark.parametrize(("episodes", "window"), [(1, 1), (2, 1), (31, 10), (60, 20), (300, 20)])
def test_the_mean_begins_with_the_first_full_window(tmp_path: Path, episodes: int, window: int) -> None:
    """A mean over one episode, then two, looks like learning and is noise."""
    axes = drawn(tmp_path, episodes)
    rate = axes.lines[0]
    assert len(rate.get_xdata()) == episodes - window + 1
    assert rate.get_ydata()[-1] == 100.0
    assert f"means over {window}" in " ".join(text.get_text() for text in axes.texts)


@pytest.mark.parametrize("successes", [0, 25, 50])
def test_the_evaluation_stands_behind_the_curve(tmp_path: Path, successes: int) -> None:
    axes = drawn(tmp_path, 60, (successes, 50))
    (mark,) = [line for line in axes.lines if line.get_marker() == "D"]
    assert mark.get_ydata() == [2.0 * successes]
    assert axes.lines[0].get_xdata()[-1] < mark.get_xdata()[0] < axes.get_xlim()[1]
    assert f"({successes}/50)" in " ".join(text.get_text() for text in axes.texts)
    assert "(1)" not in axes.get_ylabel()


@pytest.mark.parametrize(
    "name", ["r", "arm0-twin-20261125-230054", "a long name of many words " * 12, "W" * 400, "ij" * 200, "$x_1$"]
)
def test_the_heading_never_overlaps_and_stays_in_the_picture(name: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.5), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw_heading(axes, f"Learning curve of {name}", "116 episodes (dots: their returns), lines: means over 38")
    canvas.draw()
    title = axes.get_title("left")
    box = next(child for child in axes.get_children() if getattr(child, "get_text", str)() == title).get_window_extent()
    note = axes.texts[0].get_window_extent()
    assert note.y1 <= box.y0
    assert axes.bbox.y1 <= note.y0 and axes.bbox.height > figure.bbox.height / 2
    assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    assert len(title.splitlines()) <= 3 and (title.endswith("…") or name in " ".join(title.split()))


def test_a_rate_of_nothing_stands_above_the_axis_not_on_it(tmp_path: Path) -> None:
    axes = drawn(tmp_path, 4)
    (label,) = [text for text in axes.texts if text.get_text().endswith("%")]
    assert (label.get_text(), label.get_va()) == ("100 %", "center")
    axes.clear()
    _mark_end(axes, 8.0, 0.0, None)
    assert (axes.texts[0].get_text(), axes.texts[0].get_va()) == ("0 %", "bottom")


def test_without_an_episode_there_is_no_curve(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no finished episode"):
        plot_learning_curve(tmp_path)
