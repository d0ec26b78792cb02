"""How a policy bundle travels: the learner's shelf of bytes, and the robot's fetching of them, chunk by chunk."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from robotsac.config.schema import LinkConfig
from robotsac.errors import StorageError
from robotsac.link.messages import CHUNK_BYTES, Chunk, PolicyNotice, sha256
from robotsac.link.ports import PolicyFolder
from robotsac.policy.store import BundleEntry

NS_PER_MS = 1_000_000
# Policies the learner keeps in memory: a robot may finish the one it has begun while a newer one is announced.
SHELF_MAX = 3
# After a policy that could not be had or stored, before the next try.
RETRY_NS = 1000 * NS_PER_MS


class PolicyShelf:
    """The learner's side: the newest few bundles, by version.

    Args:
        folder: polled for the latest; ``None`` for a learner without policies.

    Attributes:
        unreadable: how often the latest bundle could not be read.
    """

    def __init__(self, folder: PolicyFolder | None) -> None:
        self._folder = folder
        self._shelf: OrderedDict[int, tuple[PolicyNotice, bytes]] = OrderedDict()
        self._failed: BundleEntry | None = None
        self.unreadable = 0

    def notice(self) -> PolicyNotice | None:
        """What to announce."""
        return next(reversed(self._shelf.values()))[0] if self._shelf else None

    def refresh(self, *, again: bool = True) -> bool:
        """Take the folder's latest bundle onto the shelf. Cheap where nothing has changed.

        Args:
            again: read one again that could not be read.

        Returns:
            Whether there is a new one.
        """
        entry = self._folder.latest() if self._folder else None
        newest = self.notice()
        if self._folder is None or entry is None or (newest is not None and newest.sha256 == entry.sha256):
            return False
        if entry == self._failed and not again:
            return False
        try:
            data = self._folder.read(entry)
        except StorageError:
            # Already replaced by a newer one, or damaged; the next look tells.
            self._failed = entry
            self.unreadable += 1
            return False
        self._shelf.pop(entry.version, None)
        self._shelf[entry.version] = (PolicyNotice(entry.version, entry.sha256, entry.size), data)
        while len(self._shelf) > SHELF_MAX:
            self._shelf.popitem(last=False)
        return True

    def chunk(self, version: int, offset: int, limit: int) -> tuple[str, bytes]:
        """sha256 of a policy and at most ``limit`` of its bytes from ``offset`` on; ``("", b"")`` when it is not here."""
        notice, data = self._shelf.get(version, (None, b""))
        if notice is None or offset >= len(data):
            return "", b""
        return notice.sha256, data[offset : offset + min(limit, CHUNK_BYTES)]


@dataclass(slots=True)
class _Download:
    notice: PolicyNotice
    data: bytearray = field(default_factory=bytearray)
    asked_ns: int | None = None


class PolicyFetch:
    """The robot's side: fetches what is announced, checks its hash, and writes it into the robot's folder.

    Whether the policy may drive this robot is not decided here but by who loads it.

    Args:
        folder: where bundles go.
        size_max: largest bundle that is fetched, bytes.
        config: time after which a request is repeated.

    Attributes:
        refusals: (version, reason) of bundles that were not even stored; taken away by who reports them.
        failure: words of the last failure, ``""`` after a success.
    """

    def __init__(self, folder: PolicyFolder, size_max: int, config: LinkConfig) -> None:
        self._folder = folder
        self._size_max = size_max
        self._chunk_max = min(CHUNK_BYTES, config.message_max_bytes)
        self._resend_ns = int(config.resend_ms * NS_PER_MS)
        self._download: _Download | None = None
        self._retry_ns = 0
        self._refused_sha256 = ""
        self.refusals: list[tuple[int, str]] = []
        self.failure = ""

    def announced(self, notice: PolicyNotice | None, now_ns: int) -> None:
        """The learner's newest. Starts a download unless one is under way or the bundle is there."""
        if notice is None or self._download is not None or now_ns < self._retry_ns or self._has(notice):
            return
        if notice.sha256 == self._refused_sha256:
            return
        if notice.size > self._size_max:
            self._refuse(notice, f"{notice.size} bytes, limit {self._size_max} bytes")
            return
        self._download = _Download(notice)

    def request(self, now_ns: int) -> tuple[int, int, int] | None:
        """(version, offset, limit) to ask for now, or ``None``. Asked again when no answer came for ``resend_ms``."""
        download = self._download
        if download is None:
            return None
        if download.asked_ns is not None and now_ns - download.asked_ns < self._resend_ns:
            return None
        return download.notice.version, len(download.data), self._chunk_max

    def asked(self, now_ns: int) -> None:
        """The request was sent."""
        if self._download is not None:
            self._download.asked_ns = now_ns

    def received(self, chunk: Chunk, block: bytes, now_ns: int) -> None:
        """A part arrived; stores the bundle when it was the last."""
        download = self._download
        if download is None or chunk.version != download.notice.version or chunk.offset != len(download.data):
            return  # an answer to an earlier request
        if chunk.sha256 != download.notice.sha256 or not 0 < len(block) <= self._chunk_max:
            self._give_up("the learner no longer has it", now_ns)
            return
        download.data += block
        download.asked_ns = None
        if len(download.data) >= download.notice.size:
            self._complete(download, now_ns)

    def reset(self) -> None:
        """The link was lost: what was half fetched is begun anew."""
        self._download = None

    def _complete(self, download: _Download, now_ns: int) -> None:
        notice, data = download.notice, bytes(download.data)
        self._download = None
        if len(data) != notice.size or sha256(data) != notice.sha256:
            why = "size or sha256 is not what was announced"
            self._give_up(why, now_ns)
            self.refusals.append((notice.version, why))
            return
        try:
            self._folder.publish(data, notice.version)
        except StorageError as error:
            self._give_up(str(error), now_ns)
            return
        self.failure = ""

    def _give_up(self, why: str, now_ns: int) -> None:
        self.failure = why
        self._download = None
        self._retry_ns = now_ns + RETRY_NS

    def _refuse(self, notice: PolicyNotice, why: str) -> None:
        self._refused_sha256 = notice.sha256
        self.refusals.append((notice.version, why))

    def _has(self, notice: PolicyNotice) -> bool:
        # Asked anew each time: when the robot joins another run, what it had is no longer its latest.
        entry = self._folder.latest()
        return entry is not None and entry.sha256 == notice.sha256
