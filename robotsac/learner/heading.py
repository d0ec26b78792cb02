"""What stands above a picture: a title and a note below it, which no length of name can push into each other."""

from __future__ import annotations

from typing import Any

TITLE_PT, NOTE_PT = 13.0, 9.0
TITLE_COLOUR, NOTE_COLOUR = "#333333", "#777777"
WIDTH_PT = 480.0
"""Room for a line: what a picture of 8 inches leaves beside its axes' numbers."""
LINES_MAX = 3
GAP_PT, NOTE_GAP_PT, LINE_HEIGHT = 10.0, 6.0, 1.25


def draw_heading(axes: Any, title: str, note: str) -> None:
    """Put ``title`` and, on lines of its own below it, ``note`` above ``axes`` (a matplotlib Axes).

    Lines that are too long go on below, wherever they must break; what is left after three ends in ``…``.
    """
    notes = _lines(note, NOTE_PT, "normal")
    axes.annotate(
        "\n".join(notes),
        (0.0, 1.0),
        xycoords="axes fraction",
        xytext=(0.0, GAP_PT),
        textcoords="offset points",
        va="bottom",
        fontsize=NOTE_PT,
        color=NOTE_COLOUR,
        linespacing=LINE_HEIGHT,
        parse_math=False,
        annotation_clip=False,
    )
    axes.set_title(
        "\n".join(_lines(title, TITLE_PT, "bold")),
        loc="left",
        fontsize=TITLE_PT,
        fontweight="bold",
        color=TITLE_COLOUR,
        pad=GAP_PT + len(notes) * LINE_HEIGHT * NOTE_PT + NOTE_GAP_PT,
        parse_math=False,
    )


def _lines(text: str, size_pt: float, weight: str) -> list[str]:
    """``text`` in lines that fit, at most ``LINES_MAX``."""
    lines: list[str] = []
    rest = " ".join(text.split())
    while rest:
        end = _fitting(rest, size_pt, weight)
        if end < len(rest) and len(lines) == LINES_MAX - 1:
            return [*lines, rest[: end - 1] + "…"]
        # A name of one word is broken where the line ends.
        at = rest.rfind(" ", 1, end + 1) if end < len(rest) else -1
        at = at if at > 0 else end
        lines.append(rest[:at])
        rest = rest[at:].lstrip()
    return lines or [""]


def _fitting(text: str, size_pt: float, weight: str) -> int:
    """How many of its first characters fit on a line, at least one."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    properties = FontProperties(size=size_pt, weight=weight)
    low, high = 1, min(len(text), int(WIDTH_PT))
    while low < high:
        middle = (low + high + 1) // 2
        path = TextPath((0.0, 0.0), text[:middle], prop=properties, usetex=False)
        wide = len(path.vertices) > 0 and path.get_extents().x1 > WIDTH_PT
        low, high = (low, middle - 1) if wide else (middle, high)
    return low
