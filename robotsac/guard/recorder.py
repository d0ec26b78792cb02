"""The flight recorder: the last seconds of bus ticks, kept in memory, written to disk when the guard stops the arm."""

from __future__ import annotations

import json
import os
from collections import deque
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robotsac.arm import ArmSpec, JointState, Vector
from robotsac.errors import GuardFault

FILES_MAX = 100


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
        self._ring: deque[tuple[Vector, JointState, int]] = deque(maxlen=max(1, ticks))

    def note(self, asked: Vector, state: JointState, flags: int) -> None:
        """One bus tick: asked torque (n,), N·m, the state it brought, ``Flag`` bits."""
        self._ring.append((asked, state, flags))

    def ticks(self) -> NDArray[np.void]:
        """The ring in order of time, oldest first: structured, (k,)."""
        columns = ("q", "dq", "tau_cmd", "tau", "temp_c")
        vectors = [(name, "<f8", (self._spec.n,)) for name in ("tau_asked", *columns)]
        rows = np.zeros(len(self._ring), dtype=[("t_ns", "<i8"), ("flags", "<u4"), *vectors])
        for row, (asked, state, flags) in zip(rows, self._ring, strict=True):
            row["t_ns"], row["flags"], row["tau_asked"] = state.t_ns, flags, asked
            for name in columns:
                row[name] = getattr(state, name)
        return rows

    def write(self, fault: GuardFault, t_ns: int) -> Path | None:
        """Write ``fault`` and the ring beside each other. Never raises: a full disk must not stand between a fault and
        torque off."""
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
            if len(list(self._folder.glob("fault-*.json"))) >= FILES_MAX:
                return None
            np.save(self._folder / f"{stem}.npy", self.ticks())
            path.write_text(json.dumps(report, indent=2), encoding="utf-8")
        except OSError:
            return None
        return path
