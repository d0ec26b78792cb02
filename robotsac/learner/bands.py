"""Learning curves with bands: mean and range, over the episodes of one run or over the seeds of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotsac.errors import StorageError, path_command
from robotsac.learner.heading import draw_heading

COLOURS = ("#1f6f8b", "#c8553d", "#5b8c3e", "#8a5a9e", "#b08a2e", "#444444")
TEXT_COLOUR, GOAL_COLOUR = "#333333", "#999999"
LATE = 0.85
"""A goal beyond this share of the axis has its name to the left."""


@dataclass(frozen=True, slots=True)
class Band:
    """One curve.

    Attributes:
        name: of the variant.
        env_steps: (k,) where it was measured.
        values: (n, k) n seeds or episodes.
    """

    name: str
    env_steps: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a mean is to reach, and by how many steps."""

    name: str
    env_steps: float
    value: float


def plot_bands(
    path: Path,
    bands: Sequence[Band],
    title: str,
    note: str,
    label: str,
    goals: Sequence[Goal] = (),
    limits: tuple[float, float] | None = None,
) -> None:
    """Mean (line) and lowest to highest (band) of each, over environment steps.

    Args:
        path: of the PNG.
        bands: what to draw; more than six repeat their colours.
        title, note: above, one below the other.
        label: of the y axis.
        goals: each a marker at its step and a line from there on.
        limits: of the y axis; ``None`` = what there is.

    Raises:
        StorageError: the picture cannot be written.
    """
    # matplotlib takes a second to import and belongs to the learn extra only.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, band in enumerate(bands):
        _draw(axes, band, COLOURS[number % len(COLOURS)])
    end = max((float(band.env_steps[-1]) for band in bands), default=0.0)
    for goal in goals:
        above = any(other.env_steps == goal.env_steps and other.value > goal.value for other in goals)
        _draw_goal(axes, goal, max(end, goal.env_steps), below=above)
    _style(axes, title, note, label)
    if limits is not None:
        axes.set_ylim(*limits)
    if len(bands) > 1:
        axes.legend(frameon=False, fontsize=9)
    try:
        figure.savefig(path)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written", reason=str(error), command=path_command(error, path.parent)
        ) from error


def _draw_goal(axes: Any, goal: Goal, end: float, below: bool) -> None:
    """From its step to ``end``: two goals of one height stand beside each other, not on each other; ``below``: its name."""
    axes.plot([goal.env_steps, end], [goal.value] * 2, color=GOAL_COLOUR, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.plot([goal.env_steps], [goal.value], marker="v", color=GOAL_COLOUR, markersize=6, clip_on=False)
    late = goal.env_steps > LATE * end
    axes.annotate(
        goal.name,
        (goal.env_steps, goal.value),
        xytext=(-4 if late else 4, -6 if below else 5),
        va="top" if below else "bottom",
        textcoords="offset points",
        ha="right" if late else "left",
        fontsize=8,
        color=GOAL_COLOUR,
    )


def _draw(axes: Any, band: Band, colour: str) -> None:
    mean = band.values.mean(axis=0)
    low, high = band.values.min(axis=0), band.values.max(axis=0)
    axes.fill_between(band.env_steps, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(band.env_steps, mean, color=colour, linewidth=2.2, label=f"{band.name}, n = {len(band.values)}")
    axes.plot(band.env_steps[-1:], mean[-1:], "o", color=colour, markersize=5, clip_on=False)


def _style(axes: Any, title: str, note: str, label: str) -> None:
    draw_heading(axes, title, note)
    axes.set_xlabel("environment steps", color=TEXT_COLOUR)
    axes.set_ylabel(label, color=TEXT_COLOUR)
    axes.set_xlim(left=0.0)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    for edge in ("top", "left", "right"):
        axes.spines[edge].set_visible(False)
    axes.spines["bottom"].set_color("#999999")
    axes.tick_params(length=0, colors=TEXT_COLOUR)
