"""What the operator sees of a running collector."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robotsac.actor.board import Phase
from robotsac.actor.uplink_block import LIMIT_NONE, LIMIT_NOTHING, LinkPhase
from robotsac.clock import NS_PER_S
from robotsac.errors import LinkError, RobotsacError
from robotsac.shared import SharedBlock

# How the robot's end of the link begins the line that says it is up.
LINK_UP = "welcome to run"
TOLD_MAX = 1000
NO_LINK = {
    LinkPhase.STARTING: "the uplink is opening the spool",
    LinkPhase.CONNECTING: "no learner answers yet",
    LinkPhase.UP: "",
    LinkPhase.DOWN: "the link is down",
    LinkPhase.REFUSED: "the learner refuses this robot",
}
"""Why an arm waits, as far as the link tells."""


@dataclass(frozen=True, slots=True)
class CollectStatus:
    """One look at the boards. Ages in s, rate in Hz, latency in µs; silences in s, 0 as long as there is nothing to tell."""

    robot: str
    elapsed_s: float
    phase: Phase
    steps: int
    episodes: int
    success_rate: float | None
    rate_hz: float
    overruns: int
    lost_rounds: int
    faults: int
    latency_us: int
    policy_version: int
    policy_age_s: float | None
    policy_rejected: int
    link: LinkPhase
    durable: int
    unsent: int
    learner_updates: int
    actor_silent_s: float = 0.0
    uplink_silent_s: float = 0.0
    limit_seq: int = LIMIT_NONE

    @classmethod
    def read(
        cls,
        robot: str,
        elapsed_s: float,
        actor: SharedBlock,
        uplink: SharedBlock,
        *,
        actor_silent_s: float = 0.0,
        uplink_silent_s: float = 0.0,
    ) -> CollectStatus:
        """From the two boards, and what is known about who does not write them any more."""
        recent = actor["recent_episodes"]
        since_ns = actor["policy_since_ns"]
        return cls(
            robot=robot,
            elapsed_s=elapsed_s,
            phase=Phase(actor["phase"]),
            steps=actor["steps"],
            episodes=actor["episodes"],
            success_rate=actor["recent_successes"] / recent if recent else None,
            rate_hz=0.0 if actor_silent_s else actor["rate_millihz"] / 1000,
            overruns=actor["overruns"],
            lost_rounds=actor["lost_rounds"],
            faults=actor["faults"],
            latency_us=actor["latency_us"],
            policy_version=actor["policy_version"],
            policy_age_s=(time.monotonic_ns() - since_ns) / NS_PER_S if since_ns else None,
            policy_rejected=actor["policy_rejected"],
            link=LinkPhase(uplink["link_state"]),
            durable=uplink["durable_seq"],
            unsent=uplink["unsent"],
            learner_updates=uplink["learner_updates"],
            actor_silent_s=actor_silent_s,
            uplink_silent_s=uplink_silent_s,
            limit_seq=uplink["limit_seq"],
        )

    @property
    def waits_for(self) -> str:
        """Why an arm that could move does not, in words; ``""`` when it moves, or is done."""
        if self.phase is Phase.WAITING_FOR_LEARNER:
            return NO_LINK[self.link]
        if self.phase is not Phase.HOLDING:
            return ""
        if self.link is not LinkPhase.UP:
            return NO_LINK[self.link]
        if self.limit_seq == LIMIT_NOTHING:
            return "the learner takes older records first"
        if self.learner_updates == 0:
            return "the learner has what it begins with and prepares its first update"
        return "the learner is behind, its credit is used up"

    def line(self) -> str:
        """One line for a terminal."""
        success = "–" if self.success_rate is None else f"{self.success_rate:4.0%}"
        policy = (
            "random actions"
            if self.policy_version == 0
            else f"policy v{self.policy_version} ({self.policy_age_s or 0:.1f} s)"
        )
        # Whether it is a learner that it waits for, the reason says.
        phase = "waiting" if self.phase is Phase.WAITING_FOR_LEARNER else self.phase.name.lower()
        parts = [
            f"{self.robot} {phase}" + (f" ({self.waits_for})" if self.waits_for else ""),
            f"{self.steps:,} steps",
            f"{self.rate_hz:.1f} Hz",
            f"overruns {self.overruns}",
            f"success {success}",
            policy,
            f"learner {self.learner_updates:,} updates",
            f"unsent {self.unsent:,}",
            f"link {self.link.name.lower()}",
        ]
        if self.lost_rounds:
            parts.insert(4, f"lost rounds {self.lost_rounds}")
        if self.policy_rejected:
            parts.append(f"policies refused {self.policy_rejected}")
        if self.uplink_silent_s:
            parts.append(f"uplink silent for {self.uplink_silent_s:.0f} s")
        if self.actor_silent_s:
            parts.insert(1, f"actor silent for {self.actor_silent_s:.0f} s")
        return "  ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "robot": self.robot,
            "phase": self.phase.name.lower(),
            "waits_for": self.waits_for,
            "elapsed_s": round(self.elapsed_s, 2),
            "steps": self.steps,
            "episodes": self.episodes,
            "success_rate": self.success_rate,
            "rate_hz": round(self.rate_hz, 2),
            "overruns": self.overruns,
            "lost_rounds": self.lost_rounds,
            "faults": self.faults,
            "latency_us": self.latency_us,
            "policy_version": self.policy_version,
            "policies_refused": self.policy_rejected,
            "link": self.link.name.lower(),
            "durable_seq": self.durable,
            "unsent": self.unsent,
            "learner_updates": self.learner_updates,
        }


class LinkWatch:
    """Reads the words that the uplink leaves in its status file.

    Args:
        path: ``uplink-status.json``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told: set[str] = set()
        self._pid: int | None = None
        self._mtime_ns = 0
        self._seen = 0
        self._last: dict[str, Any] = {}

    def news(self) -> Iterator[str]:
        """Events since the last call, in words; while the link is down, each once, however often it tries again.

        A refusal that ends the run is not among them: :meth:`error` tells it in full.
        """
        self._load()
        refusal = self._last.get("message") if self._last.get("exit_code") == LinkError.exit_code else None
        if self._last.get("pid") != self._pid:
            self._pid, self._seen = self._last.get("pid"), 0  # another uplink, which counts anew
        events = self._last.get("events", [])
        first = int(self._last.get("events_dropped", 0))
        new, self._seen = events[max(0, self._seen - first) :], first + len(events)
        for event in map(str, new):
            if event.startswith(LINK_UP) or len(self._told) >= TOLD_MAX:
                self._told.clear()
            if event not in self._told and not (refusal and refusal in event):
                self._told.add(event)
                yield event

    def error(self) -> RobotsacError | None:
        """What the uplink failed with, if it did."""
        self._load()
        if not self._last.get("message"):
            return None
        error = RobotsacError(
            str(self._last["message"]),
            reason=str(self._last.get("reason", "")),
            command=str(self._last.get("command", "")),
        )
        error.exit_code = int(self._last.get("exit_code", 1))
        return error

    def _load(self) -> None:
        try:
            mtime_ns = self._path.stat().st_mtime_ns
            if mtime_ns != self._mtime_ns:
                self._last = json.loads(self._path.read_text(encoding="utf-8"))
                self._mtime_ns = mtime_ns
        except (OSError, ValueError):
            return
