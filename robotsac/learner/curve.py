"""The learning curve of a run, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotsac.errors import StorageError, path_command
from robotsac.learner.heading import draw_heading
from robotsac.learner.metrics import FILE_NAME, RECENT_EPISODES, read_lines
from robotsac.learner.run_folder import run_argument, run_name

PICTURE = "learning_curve.png"
WINDOWS_MIN = 3
"""Means are over at most this share of a short run's episodes, one third."""
LOW_PERCENT = 4.0
"""Half the height of a label: a lower one would stand on the axis."""
SUCCESS_COLOUR, RETURN_COLOUR, RANDOM_COLOUR, TEXT_COLOUR = "#1f6f8b", "#c8553d", "#e8e8e8", "#333333"


def plot_learning_curve(run_dir: Path, evaluation: tuple[int, int] | None = None) -> Path:
    """Success rate and return over robot time, from ``metrics.jsonl``.

    Args:
        run_dir: of the run.
        evaluation: successes and episodes of the evaluation after it, at least one, where there was one.

    Returns:
        Path of the PNG, ``learning_curve.png`` in ``run_dir``.

    Raises:
        StorageError: there is no finished episode to plot, or the picture cannot be written.
    """
    lines = [line for line in read_lines(run_dir / FILE_NAME) if line.get("kind") == "episode" and line["counts"]]
    if not lines:
        raise StorageError(
            f"run {run_name(run_dir)!r} has no finished episode yet",
            reason=f"nothing in {run_dir / FILE_NAME}",
            command=f"robotsac learn --run {run_argument(run_dir)} --resume",
        )
    path = run_dir / PICTURE
    # matplotlib takes a second to import and belongs to the learn extra only.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    _draw(figure.add_subplot(), lines, run_name(run_dir), evaluation)
    try:
        figure.savefig(path)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written", reason=str(error), command=path_command(error, run_dir)
        ) from error
    return path


def rolling_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean of each value and the up to ``window - 1`` before it, (k,) → (k,)."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _draw(axes: Any, lines: list[dict[str, Any]], name: str, evaluation: tuple[int, int] | None) -> None:
    """Fill ``axes`` (a matplotlib Axes)."""
    time_s = np.array([line["robot_time_s"] for line in lines], dtype=np.float64)
    success = np.array([line["success"] for line in lines], dtype=np.float64)
    # A return that overflowed was written as null.
    total = np.array([np.nan if line["return"] is None else line["return"] for line in lines], dtype=np.float64)
    window = min(max(len(lines) // WINDOWS_MIN, 1), RECENT_EPISODES)
    # A mean over a part of the window is noise that looks like learning.
    means = slice(window - 1, None)
    rate = 100.0 * rolling_mean(success, window)[means]
    right = axes.twinx()
    right.plot(time_s, total, ".", color=RETURN_COLOUR, markersize=4.5, alpha=0.5, markeredgewidth=0)
    returns = rolling_mean(np.nan_to_num(total), window)[means]
    right.plot(time_s[means], returns, color=RETURN_COLOUR, linewidth=1.4, alpha=0.9)
    axes.plot(time_s[means], rate, color=SUCCESS_COLOUR, linewidth=2.4)
    axes.fill_between(time_s[means], 0.0, rate, color=SUCCESS_COLOUR, alpha=0.10, linewidth=0)
    random_until_s = max((line["robot_time_s"] for line in lines if line["random"]), default=0.0)
    if random_until_s > 0:
        right.axvspan(0.0, random_until_s, color=RANDOM_COLOUR, zorder=0, linewidth=0)
        axes.text(
            random_until_s / 2, 97, "random actions", rotation=90, ha="center", va="top", fontsize=8, color="#888888"
        )
    end_s = float(time_s[-1])
    _mark_end(axes, end_s, float(rate[-1]), evaluation)
    note = f"{len(lines)} episode{'s' if len(lines) != 1 else ''} (dots: their returns), lines: means over {window}"
    draw_heading(axes, f"Learning curve of {name}", note)
    axes.set_xlabel("robot time under control (s)", color=TEXT_COLOUR)
    axes.set_ylabel("success rate (%)", color=SUCCESS_COLOUR)
    right.set_ylabel("return of an episode", color=RETURN_COLOUR)
    axes.set_xlim(0.0, end_s * (1.09 if evaluation is None else 1.19))
    axes.set_ylim(0.0, 104.0)
    _style(axes, right)


def _mark_end(axes: Any, end_s: float, rate: float, evaluation: tuple[int, int] | None) -> None:
    """Where the training ended, and behind it what the evaluation counted."""
    look = {"color": SUCCESS_COLOUR, "clip_on": False}
    axes.plot([end_s], [rate], "o", markersize=6, **look)
    if evaluation is None:
        # Above the axis, not on it.
        low = rate < LOW_PERCENT
        _label(axes, f"{rate:.0f} %", (end_s, rate), (8, 3 if low else 0), ha="left", va="bottom" if low else "center")
        return
    successes, episodes = evaluation
    evaluated, evaluated_s = 100.0 * successes / episodes, end_s * 1.10
    axes.plot([evaluated_s], [evaluated], "D", markersize=7, markerfacecolor="white", markeredgewidth=1.8, **look)
    words = f"evaluation\n{evaluated:.0f} %\n({successes}/{episodes})"
    below = evaluated > 50
    _label(axes, words, (evaluated_s, evaluated), (0, -9 if below else 9), ha="center", va="top" if below else "bottom")


def _label(axes: Any, text: str, at: tuple[float, float], offset: tuple[int, int], *, ha: str, va: str) -> None:
    axes.annotate(
        text,
        at,
        xytext=offset,
        textcoords="offset points",
        ha=ha,
        va=va,
        fontsize=9,
        color=SUCCESS_COLOUR,
        fontweight="bold",
        annotation_clip=False,
    )


def _style(axes: Any, right: Any) -> None:
    axes.set_zorder(right.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in (axes, right):
        for edge in ("top", "left", "right"):
            side.spines[edge].set_visible(False)
        side.spines["bottom"].set_color("#999999")
        side.tick_params(length=0)
    axes.tick_params(axis="x", colors=TEXT_COLOUR)
    axes.tick_params(axis="y", colors=SUCCESS_COLOUR)
    right.tick_params(axis="y", colors=RETURN_COLOUR)
