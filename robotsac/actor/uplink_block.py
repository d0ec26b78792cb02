"""What the uplink process is given, and what it tells: integers in shared memory, words in a status file."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robotsac.config.schema import LinkConfig, SpoolConfig
from robotsac.errors import RobotsacError
from robotsac.link.state import LIMIT_NONE, LIMIT_NOTHING
from robotsac.link.state import LinkState as LinkPhase

__all__ = [
    "LIMIT_NONE",
    "LIMIT_NOTHING",
    "UPLINK_FIELDS",
    "LinkPhase",
    "StatusFile",
    "UplinkArgs",
    "UplinkError",
    "lost_words",
]

UPLINK_FIELDS = (
    "limit_seq",
    "link_state",
    "durable_seq",
    "spooled_seq",
    "unsent",
    "refused",
    "learner_updates",
    "learner_version",
    "learner_transitions",
    "beat_ns",
    "stop",
    "error",
    "policy_accepted",
    "policy_rejected",
    "link_down_ns",
)
"""Written by the uplink, but for three.

``limit_seq``: highest ``seq`` of this boot that the learner wants; LIMIT_NONE (-1): no bound, also without a learner;
LIMIT_NOTHING (-2): not even seq 0. ``link_state``: :data:`LinkPhase`. ``durable_seq``: on the learner's disk, -1 none.
``spooled_seq``: on this disk, -1 none. ``unsent``: records of all boots that wait for a learner;
``refused``: those of them that this learner has said it does not take. ``learner_*``: from its
last heartbeat. ``beat_ns``: monotonic time of the last round. ``error``: :class:`UplinkError`, stays once set; words are
in the status file. ``link_down_ns``: monotonic time since when there is no link, 0 while it is up.

Written by the supervisor: ``stop``, 1 = store what is in the ring, deliver what can be delivered soon, exit.
Written by the actor: ``policy_accepted``, version of the last policy taken; ``policy_rejected``, how many were refused.
"""


class UplinkError(enum.IntEnum):
    """Why collection should stop."""

    NONE = 0
    STORAGE = 1
    REFUSED = 2


def lost_words(count: int) -> str:
    """What is said about ``count`` records that are in no spool and will not be."""
    return f"{count} records could not be stored and are lost"


@dataclass(frozen=True, slots=True)
class UplinkArgs:
    """What ``uplink_main`` needs.

    Args:
        robot: robot name.
        boot: id of this run of the collector, unique; ``seq`` counts within it.
        contract_json: the robot's contract, ``Contract.to_json()``.
        link, spool: configuration.
        spool_path: database file of the spool.
        policies: folder where fetched bundles go.
        ring_name, ring_capacity, obs_dim, act_dim: the ring of records.
        block_name: the :data:`UPLINK_FIELDS` block.
        status_path: JSON file for words.
        policy_size_max_bytes: larger bundles are not fetched.
        store_deadline_s: after ``stop``, how long to keep trying to store what is in the ring.
        deliver_deadline_s: after ``stop``, how long to wait for the learner to take what is in the spool.
    """

    robot: str
    boot: str
    contract_json: bytes
    link: LinkConfig
    spool: SpoolConfig
    spool_path: Path
    policies: Path
    ring_name: str
    ring_capacity: int
    obs_dim: int
    act_dim: int
    block_name: str
    status_path: Path
    policy_size_max_bytes: int = 16_000_000
    store_deadline_s: float = 10.0
    deliver_deadline_s: float = 5.0


_NUMBER = re.compile(r"\d+")


class StatusFile:
    """The status file: rewritten atomically when something in it changed.

    ``pid`` is the uplink that wrote it. Keys ``message``, ``reason``, ``command``, ``exit_code`` are there once the uplink has failed; ``events`` holds the
    last lines of what happened, ``events_dropped`` how many came before them.

    Args:
        path: the file.

    Attributes:
        error: why collection should stop, if it should.
    """

    EVENTS_MAX = 50

    def __init__(self, path: Path) -> None:
        self._path = path
        self._events: list[str] = []
        self._dropped = 0
        self.error: RobotsacError | None = None
        self._written = b""

    def event(self, words: str) -> None:
        """Note one line."""
        self._events.append(words)
        if len(self._events) > self.EVENTS_MAX:
            del self._events[0]
            self._dropped += 1

    def fail(self, error: RobotsacError) -> None:
        """Note why collection should stop; a later one replaces it."""
        # The same trouble with other numbers (MB left) is no news.
        if self.error is None or _NUMBER.sub("", str(self.error)) != _NUMBER.sub("", str(error)):
            self.event(str(error))
        self.error = error

    def write(self, facts: dict[str, Any]) -> None:
        """Write the file if it would differ from the last time. A disk that refuses is no reason to stop."""
        body: dict[str, Any] = {"pid": os.getpid(), "events": self._events, "events_dropped": self._dropped, **facts}
        if (error := self.error) is not None:
            body |= {"message": error.message, "reason": error.reason, "command": error.command}
            body["exit_code"] = error.exit_code
        data = json.dumps(body, indent=1, ensure_ascii=False).encode()
        if data == self._written:
            return
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(self._path)
            self._written = data
