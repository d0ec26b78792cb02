"""The flight recorder: the last seconds of bus ticks, kept in memory, written to disk when the guard stops the arm."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robotsac.arm import ArmSpec, JointState, Vector
from robotsac.errors import GuardFault

FILES_MAX = 100
"""Faults kept on disk; the oldest go first."""

Tick = tuple[Vector, JointState, int]


class FlightRecorder:
    """A ring of bus ticks.

    Args:
        spec: of the arm.
        ticks: capacity.
        folder: where faults are written; ``None`` keeps them in memory only.
    """

    def __init__(self, spec: ArmSpec, ticks: int, folder: Path | None) -> None:
        self._spec = spec
        self._folder = folder
        # States are never written again, so the tick keeps references; arrays are made when somebody looks.
        self._ring: deque[Tick] = deque(maxlen=max(1, ticks))

    def note(self, asked: Vector, state: JointState, flags: int) -> None:
        """One bus tick: asked torque (n,), N·m, the state it brought, ``Flag`` bits."""
        self._ring.append((asked, state, flags))

    def snapshot(self) -> tuple[Tick, ...]:
        """What is in the ring now; the stop that follows would push it out. Takes microseconds."""
        return tuple(self._ring)

    def ticks(self, before: tuple[Tick, ...] = ()) -> NDArray[np.void]:
        """``before`` and what the ring holds since, in order of time, oldest first: structured, (k,)."""
        newest_ns = before[-1][1].t_ns if before else None
        since = [tick for tick in self._ring if newest_ns is None or tick[1].t_ns > newest_ns]
        noted = [*before, *since]
        columns = ("q", "dq", "tau_cmd", "tau", "temp_c")
        vectors = [(name, "<f8", (self._spec.n,)) for name in ("tau_asked", *columns)]
        rows = np.zeros(len(noted), dtype=[("t_ns", "<i8"), ("flags", "<u4"), *vectors])
        for row, (asked, state, flags) in zip(rows, noted, strict=True):
            row["t_ns"], row["flags"], row["tau_asked"] = state.t_ns, flags, asked
            for name in columns:
                row[name] = getattr(state, name)
        return rows

    def write(self, fault: GuardFault, t_ns: int, before: tuple[Tick, ...]) -> Path | None:
        """Write ``fault``, the ticks ``before`` it and those of the stop beside each other; the path, if that worked.

        Called once the arm is stopped: a slow disk must not stand between a fault and torque off. Never raises.
        """
        if self._folder is None:
            return None
        stem = f"fault-{os.getpid()}-{t_ns // 1_000_000:012d}-{fault.code.name.lower()}"
        path = self._folder / f"{stem}.json"
        report = {
            "message": fault.message,
            "detail": fault.detail,
            "code": fault.code.name,
            "joint": fault.joint,
            "value": repr(fault.value),
            "limit": repr(fault.limit),
            "unit": fault.unit,
            "t_ns": t_ns,
            "joint_names": list(self._spec.joint_names),
            "ticks": f"{stem}.npy",
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room()
            np.save(self._folder / f"{stem}.npy", self.ticks(before))
            path.write_text(json.dumps(report, indent=2), encoding="utf-8")
        except OSError:
            return None
        fault.recorded(path)
        return path

    def write_aside(self, fault: GuardFault, t_ns: int, before: tuple[Tick, ...]) -> None:
        """:meth:`write` in a thread of its own: the arm is held meanwhile, and its bus must not fall silent."""
        threading.Thread(target=self.write, args=(fault, t_ns, before), name="flight-recorder").start()

    def _make_room(self) -> None:
        assert self._folder is not None
        reports = sorted(self._folder.glob("fault-*.json"), key=lambda path: path.stat().st_mtime_ns)
        for old in reports[: max(0, len(reports) - FILES_MAX + 1)]:
            old.with_suffix(".npy").unlink(missing_ok=True)
            old.unlink(missing_ok=True)
