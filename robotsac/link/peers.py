"""The robots a learner knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# Robots that are gone are remembered for the status, beyond those connected at most this many.
GONE_MAX = 64


@dataclass(slots=True)
class Robot:
    """One robot as the learner sees it.

    Attributes:
        name, boot, session: from its HELLO.
        peer: ZeroMQ's name for its present connection.
        boots: boots this run takes records of.
        heard_ns, welcomed_ns: times of its last message and of its welcome.
        left: it said goodbye.
        records: new records taken from it by this process.
        duplicates: records it sent again.
        skipped: numbers missing between stored records of a boot (given to another run, or damaged).
        spooled_seq, unsent, policy_version: from its last heartbeat.
        policies: last word on a policy: version → (accepted, reason); the newest few.
        policy_refusals: policies it did not take.
    """

    name: str
    boot: str
    session: str
    peer: bytes
    boots: frozenset[str]
    versions: dict[str, str]
    heard_ns: int
    welcomed_ns: int
    left: bool = False
    records: int = 0
    duplicates: int = 0
    skipped: int = 0
    spooled_seq: int = -1
    unsent: int = 0
    policy_version: int = 0
    policies: dict[int, tuple[bool, str]] = field(default_factory=dict)
    policy_refusals: int = 0

    def note_policy(self, version: int, accepted: bool, reason: str) -> None:
        """Keep its verdict on a policy; a repeated one counts once."""
        if not accepted and self.policies.get(version, (True, ""))[0]:
            self.policy_refusals += 1
        self.policies.pop(version, None)
        self.policies[version] = (accepted, reason)
        while len(self.policies) > 8:
            self.policies.pop(next(iter(self.policies)))

    def take_over(self, earlier: Robot) -> None:
        """Carry the counts of the robot's earlier session on."""
        self.records, self.duplicates, self.skipped = earlier.records, earlier.duplicates, earlier.skipped
        self.policies, self.policy_refusals = earlier.policies, earlier.policy_refusals

    def status(self, now_ns: int, alive: bool) -> dict[str, Any]:
        """What a status file shows."""
        refused = [(version, reason) for version, (accepted, reason) in self.policies.items() if not accepted]
        return {
            "state": "up" if alive else "left" if self.left else "silent",
            "boot": self.boot,
            "age_ms": (now_ns - self.heard_ns) // 1_000_000,
            "connected_s": (now_ns - self.welcomed_ns) // 1_000_000_000,
            "records": self.records,
            "duplicates": self.duplicates,
            "skipped": self.skipped,
            "spooled_seq": self.spooled_seq,
            "unsent": self.unsent,
            "policy_version": self.policy_version,
            "policy_refusals": self.policy_refusals,
            "policy_refused_last": {"version": refused[-1][0], "reason": refused[-1][1]} if refused else None,
            "versions": self.versions,
        }


class Robots:
    """Robots by name and by session; alive is who was heard within ``dead_ns``."""

    def __init__(self, dead_ns: int) -> None:
        self._dead_ns = dead_ns
        self._by_name: dict[str, Robot] = {}

    def named(self, name: str) -> Robot | None:
        """The robot of this name."""
        return self._by_name.get(name)

    def of_session(self, session: str) -> Robot | None:
        """The robot that speaks in this session."""
        return next((robot for robot in self._by_name.values() if robot.session == session), None)

    def alive(self, now_ns: int) -> list[Robot]:
        """Those who were heard of lately."""
        return [robot for robot in self._by_name.values() if self.is_alive(robot, now_ns)]

    def is_alive(self, robot: Robot, now_ns: int) -> bool:
        """Whether ``robot`` was heard of lately and has not left."""
        return not robot.left and now_ns - robot.heard_ns <= self._dead_ns

    def add(self, robot: Robot, now_ns: int) -> None:
        """Take a robot in; the one of the same name goes, its counts stay. The longest gone are forgotten."""
        earlier = self._by_name.pop(robot.name, None)
        if earlier is not None:
            robot.take_over(earlier)
        self._by_name[robot.name] = robot
        gone = sorted((r for r in self._by_name.values() if not self.is_alive(r, now_ns)), key=lambda r: r.heard_ns)
        for forgotten in gone[: max(0, len(gone) - GONE_MAX)]:
            del self._by_name[forgotten.name]

    def status(self, now_ns: int) -> dict[str, Any]:
        """All of them, for a status file."""
        return {name: robot.status(now_ns, self.is_alive(robot, now_ns)) for name, robot in self._by_name.items()}
