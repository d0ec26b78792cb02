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

    def boots(self) -> list[BootInfo]:
        """All boots it knows, oldest first. Raises StorageError."""
        ...

    def pending(self, boot: str, after_seq: int, limit: int) -> Records:
        """At most ``limit`` stored records of a boot above ``after_seq``, in order. Raises StorageError."""
        ...

    def ack(self, boot: str, durable_seq: int, run_id: str = "") -> None:
        """Learner run ``run_id`` has everything of ``boot`` up to ``durable_seq`` on its disk. Raises StorageError."""
        ...

    def unack(self, boot: str, durable_seq: int) -> None:
        """The learner has lost what it had above ``durable_seq``: it waits again. Raises StorageError."""
        ...


class ReplayPort(Protocol):
    """The learner's durable replay log. ``append_many`` is one transaction, durable when it returns; it stores each
    (robot, boot, seq) once and tells how many records of each batch were new."""

    def bind(self, contract: Contract) -> None:
        """Fix what the records mean, once. Raises StorageError; LinkError when it is bound to another contract."""
        ...

    def contract(self) -> Contract | None:
        """What the records mean; ``None`` before :meth:`bind`. Raises StorageError."""
        ...

    def append_many(self, batches: Sequence[tuple[str, str, Records]]) -> list[int]:
        """Store (robot, boot, records) batches: all or none. New records of each. Raises StorageError."""
        ...

    def durable_all(self, robot: str) -> dict[str, int]:
        """Highest stored ``seq`` of each boot of a robot. Raises StorageError."""
        ...

    def counts(self) -> Mapping[str, int]:
        """Totals, among them ``records``. Raises StorageError."""
        ...


class PolicyFolder(Protocol):
    """A folder of policy bundles (:class:`robotsac.policy.store.BundleStore`)."""

    def publish(self, data: bytes, version: int) -> BundleEntry:
        """Store a bundle and make it the latest. Raises StorageError."""
        ...

    def latest(self) -> BundleEntry | None:
        """The newest bundle of the present run; ``None`` when there is none. Never raises."""
        ...

    def read(self, entry: BundleEntry) -> bytes:
        """The bytes of a bundle, checked against its hash. Raises StorageError."""
        ...


class RobotTransport(Protocol):
    """The robot's way to the learner."""

    def send(self, frames: list[bytes]) -> bool:
        """Take a message; False when it could not be taken, now. It may still be lost. Never waits."""
        ...


class LearnerTransport(Protocol):
    """The learner's way to each robot."""

    def send(self, peer: bytes, frames: list[bytes]) -> bool:
        """Take a message for one peer; False when it could not be taken, now. It may still be lost. Never waits."""
        ...
