"""The flight recorder: the last seconds of bus ticks, kept in memory, written to disk when the guard stops the arm."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

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
        vector = ("<f8", (spec.n,))
        self._spec = spec
        self._folder = folder
        self._written = 0
        self._ring = np.zeros(
            max(1, ticks),
            dtype=[
                ("t_ns", "<i8"),
                ("flags", "<u4"),
                ("q", *vector),
                ("dq", *vector),
                ("tau_asked", *vector),
                ("tau_cmd", *vector),
                ("tau", *vector),
                ("temp_c", *vector),
            ],
        )

    def note(self, asked: Vector, state: JointState, flags: int) -> None:
        """One bus tick."""
        row = self._ring[self._written % len(self._ring)]
        row["t_ns"] = state.t_ns
        row["flags"] = flags
        row["q"] = state.q
        row["dq"] = state.dq
        row["tau_asked"] = asked
        row["tau_cmd"] = state.tau_cmd
        row["tau"] = state.tau
        row["temp_c"] = state.temp_c
        self._written += 1

    def ticks(self) -> np.ndarray:
        """The ring in order of time, oldest first: structured, (k,)."""
        if self._written <= len(self._ring):
            return self._ring[: self._written].copy()
        return np.roll(self._ring, -(self._written % len(self._ring)))

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
            ring = self.ticks()
            np.save(self._folder / f"{stem}.npy", ring)
            path.write_text(json.dumps(report, indent=2), encoding="utf-8")
        except OSError:
            return None
        return path
