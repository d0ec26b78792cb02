"""``robotsac fault show``: what the flight recorder wrote when the guard stopped the arm."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from robotsac.cli.console import say
from robotsac.errors import ConfigError, DriverUnavailable, StorageError, path_command
from robotsac.records import Flag

TICKS_BYTES_MAX = 200_000_000
COLUMNS = {"q": "rad", "dq": "rad/s", "tau_asked": "N·m", "tau_cmd": "N·m", "tau": "N·m", "temp_c": "°C"}
TORQUES = {"tau_asked": "asked", "tau_cmd": "told", "tau": "measured"}
LABELS = {**TORQUES, "temp_c": ""}
NS_PER_MS = 1e6


class FaultReport(msgspec.Struct, frozen=True):
    """``fault-….json`` (``robotsac.guard.recorder``). ``ticks`` is the file of the bus ticks, beside it."""

    message: str
    code: str
    joint: int | None
    t_ns: int
    joint_names: list[str]
    ticks: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Recording:
    """A report and its bus ticks (k,), structured, oldest first, of before the fault and of the stop."""

    path: Path
    report: FaultReport
    ticks: NDArray[np.void]

    def before(self, count: int) -> NDArray[np.void]:
        """The last ``count`` ticks up to the fault."""
        return self.ticks[self.ticks["t_ns"] <= self.report.t_ns][-count:]


def show_fault(path: Path, count: int, joint: str | None, plot: Path | None, as_json: bool) -> int:
    """See ``robotsac fault show --help``. Returns the exit code.

    Raises:
        ConfigError: there is no such file or joint, or it is no fault report.
        StorageError: a file cannot be read or written.
        DriverUnavailable: a plot without matplotlib.
    """
    recording = read_recording(_find(path))
    joints = _joints(recording.report, joint)
    if plot is not None:
        _plot(recording, joints, plot)
    if as_json:
        say(json.dumps(_as_dict(recording, count, joints)))
        return 0
    report = recording.report
    say(f"{report.message}{f' ({report.detail})' if report.detail and report.detail not in report.message else ''}")
    say(f"{recording.path}: {len(recording.ticks)} bus ticks, {_span_ms(recording) / 1000:.2f} s")
    console = Console(highlight=False)
    for index in joints:
        console.print(_table(recording.before(count), index, report))
    if plot is not None:
        say(f"plot {plot}")
    return 0


def read_recording(path: Path) -> Recording:
    """A report and the ticks beside it.

    Raises:
        ConfigError: not a fault report.
        StorageError: a file is missing or cannot be read.
    """
    try:
        report = msgspec.json.decode(path.read_bytes(), type=FaultReport)
        ticks_path = path.with_name(Path(report.ticks).name)
        if ticks_path.stat().st_size > TICKS_BYTES_MAX:
            raise ValueError(f"{ticks_path} is larger than {TICKS_BYTES_MAX} bytes")
        with ticks_path.open("rb") as file:
            ticks = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise StorageError(
            f"fault report {path} cannot be read", reason=str(error), command=path_command(error, path)
        ) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise _no_report(path, str(error)) from error
    names = ticks.dtype.names or ()
    shape = (len(report.joint_names),)
    if not {"t_ns", "flags"} <= set(names) or any(
        name not in names or ticks.dtype[name].shape != shape for name in COLUMNS
    ):
        raise _no_report(path, f"{ticks_path} does not hold the bus ticks of {len(report.joint_names)} joints")
    return Recording(path, report, ticks)


def _find(path: Path) -> Path:
    """The report that is meant: the file itself, or the newest of a folder of them or of a run. Raises ConfigError."""
    if path.exists() and not path.is_dir():
        return path
    folders = (path, path / "faults", path / "robot" / "faults")
    found = [file for folder in folders for file in folder.glob("fault-*.json")]
    reports = sorted(found, key=lambda file: file.stat().st_mtime_ns)
    if not reports:
        raise ConfigError(
            f"there is no fault report at {path}",
            reason="the guard writes fault-*.json into the run folder's faults/ when it stops an arm",
            command="find . -name 'fault-*.json'",
        )
    return reports[-1]


def _no_report(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"{path} is not a fault report", reason=reason, command="find . -name 'fault-*.json'")


def _joints(report: FaultReport, wanted: str | None) -> list[int]:
    """Indices to show."""
    names = report.joint_names
    if wanted is None:
        concerned = report.joint is not None and 0 <= report.joint < len(names)
        return [report.joint] if concerned and report.joint is not None else list(range(len(names)))
    if wanted in names:
        return [names.index(wanted)]
    if wanted.isdecimal() and int(wanted) < len(names):
        return [int(wanted)]
    raise ConfigError(
        f"there is no joint {wanted!r}", reason=f"joints 0 to {len(names) - 1}: {', '.join(names)}", command="--joint 0"
    )


def _table(ticks: NDArray[np.void], joint: int, report: FaultReport) -> Table:
    table = Table(title=f"joint {joint} ({report.joint_names[joint]})", title_justify="left", box=None, pad_edge=False)
    for head in ("ms", *(f"{LABELS.get(name, name)} {unit}".strip() for name, unit in COLUMNS.items())):
        table.add_column(head, justify="right")
    table.add_column("flags")
    for tick in ticks:
        numbers = [f"{tick[name][joint]:.3f}" if name != "temp_c" else f"{tick[name][joint]:.0f}" for name in COLUMNS]
        table.add_row(f"{(int(tick['t_ns']) - report.t_ns) / NS_PER_MS:.1f}", *numbers, ", ".join(_flags(tick)))
    return table


def _flags(tick: np.void) -> list[str]:
    """Names of the flags, as a person says them."""
    return [(flag.name or "").removeprefix("LIMIT_").lower() for flag in Flag(int(tick["flags"]))]


def _as_dict(recording: Recording, count: int, joints: list[int]) -> dict[str, Any]:
    report = recording.report
    ticks = [
        {
            "t_ms": round((int(tick["t_ns"]) - report.t_ns) / NS_PER_MS, 3),
            "flags": _flags(tick),
            # JSON has no NaN.
            **{name: [v if np.isfinite(v) else None for v in tick[name][joints].tolist()] for name in COLUMNS},
        }
        for tick in recording.before(count)
    ]
    names = [report.joint_names[joint] for joint in joints]
    return {"file": str(recording.path), **msgspec.to_builtins(report), "joints": names, "last_ticks": ticks}


def _span_ms(recording: Recording) -> float:
    t_ns = recording.ticks["t_ns"]
    return float(t_ns[-1] - t_ns[0]) / NS_PER_MS if len(t_ns) else 0.0


def _plot(recording: Recording, joints: list[int], path: Path) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DriverUnavailable(
            "a plot needs matplotlib", reason=str(error), command="pip install 'robotsac[learn]'"
        ) from error
    figure = Figure(figsize=(9.0, 6.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    _draw(figure, recording, joints)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise StorageError(f"{path} cannot be written", reason=str(error), command=path_command(error, path)) from error


def _draw(figure: Any, recording: Recording, joints: list[int]) -> None:
    """Position, velocity and torque over time, one below the other; the fault at 0."""
    report, ticks = recording.report, recording.ticks
    t_s = (ticks["t_ns"] - report.t_ns) / (1000 * NS_PER_MS)
    rows = figure.subplots(3, 1, sharex=True)
    for axes, name, label in zip(
        rows, ("q", "dq", "tau_cmd"), ("position (rad)", "velocity (rad/s)", "torque (N·m)"), strict=True
    ):
        alone = len(joints) == 1 and name == "tau_cmd"
        for joint in joints:
            for column in TORQUES if alone else (name,):
                text = TORQUES[column] if alone else report.joint_names[joint]
                axes.plot(t_s, ticks[column][:, joint], linewidth=1.2, label=text)
        axes.axvline(0.0, color="#c8553d", linewidth=1.0)
        axes.axvspan(0.0, max(float(t_s[-1]), 0.0) if len(t_s) else 0.0, color="#c8553d", alpha=0.08, linewidth=0)
        axes.set_ylabel(label)
        axes.grid(color="#dddddd", linewidth=0.8)
        if alone or len(joints) > 1:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    rows[-1].set_xlabel("time (s), 0 = the fault; shaded: the stop")
    figure.suptitle(report.message, x=0.01, ha="left", fontsize=11, fontweight="bold", wrap=True)
