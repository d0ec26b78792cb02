"""What the link needs from others: the spool and the policy folder on either side, the replay log, and transports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from robotsac.contract import Contract
from robotsac.policy.store import BundleEntry
from robotsac.records import Records
from robotsac.spool import BootInfo


class SpoolPort(Protocol):
    """The robot's spool (:class:`robotsac.spool.Spool`)."""

    def boots(self) -> list[BootInfo]: ...
    def pending(self, boot: str, after_seq: int, limit: int) -> Records: ...
    def ack(self, boot: str, durable_seq: int, run_id: str = "") -> None: ...
    def unack(self, boot: str, durable_seq: int) -> None: ...


class ReplayPort(Protocol):
    """The learner's durable replay log. ``append_many`` is one transaction, durable when it returns; it stores each
    (robot, boot, seq) once and tells how many records of each batch were new."""

    def bind(self, contract: Contract) -> None: ...
    def contract(self) -> Contract | None: ...
    def append_many(self, batches: Sequence[tuple[str, str, Records]]) -> list[int]: ...
    def durable_all(self, robot: str) -> dict[str, int]: ...
    def counts(self) -> Mapping[str, int]: ...


class PolicyFolder(Protocol):
    """A folder of policy bundles (:class:`robotsac.policy.store.BundleStore`)."""

    def publish(self, data: bytes, version: int) -> BundleEntry: ...
    def latest(self) -> BundleEntry | None: ...
    def read(self, entry: BundleEntry) -> bytes: ...


class RobotTransport(Protocol):
    """Takes a message for the learner; False when it could not be taken."""

    def send(self, frames: list[bytes]) -> bool: ...


class LearnerTransport(Protocol):
    """Takes a message for one peer; False when it could not be taken."""

    def send(self, peer: bytes, frames: list[bytes]) -> bool: ...
