"""What of the spool is on its way to the learner: a window of unacknowledged batches, sent again from the durable mark.

Go-back-N, per boot, oldest boot first. Each batch names the record before it (``prev_seq``), so the learner can tell a
lost batch from records that were never meant for it. The spool is the memory; nothing here has to survive a restart.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from robotsac.config.schema import LinkConfig
from robotsac.link.messages import BOOTS_MAX, BootOffer
from robotsac.link.ports import SpoolPort
from robotsac.records import Records, record_dtype

NS_PER_MS = 1_000_000
# An acknowledgement that is lost in a crash only costs a resend, so several are written to the disk together.
ACK_FLUSH_NS = 200 * NS_PER_MS
# A learner that is slow is not asked more often than this many times the configured wait.
RESEND_FACTOR_MAX = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one boot to send; nothing for this learner lies between ``prev_seq`` and the first."""

    boot: str
    contract_digest: str
    prev_seq: int
    records: Records


@dataclass(slots=True)
class Track:
    """How far one boot is. ``floor``: below it all is in another run's replay; ``flying``: (last seq, sent at)."""

    boot: str
    contract_digest: str
    batch_records: int
    last_seq: int
    durable: int
    floor: int
    cursor: int = -1
    prev: int = -1
    sent_max: int = -1
    factor: int = 1
    rewound_ns: int = 0
    partial_since_ns: int | None = None
    flying: deque[tuple[int, int]] = field(default_factory=deque)

    @property
    def waiting(self) -> int:
        """Records (as numbered) that the learner does not have yet."""
        return max(0, self.last_seq - max(self.durable, self.floor))

    def rewind(self) -> None:
        """Go back to the durable mark; what is in flight counts as lost."""
        self.prev, self.cursor = self.durable, max(self.durable, self.floor)
        self.flying.clear()


class Outbox:
    """The window over the spool.

    Args:
        spool: where the records are.
        boot: the present boot; the only one that still grows.
        config: batch size and age, window, resend time.

    Attributes:
        resends: how often a window was sent again.
        refused: boots the learner cannot take, and why; ``refused_records``: how many wait in them.
    """

    def __init__(self, spool: SpoolPort, boot: str, config: LinkConfig) -> None:
        self._spool = spool
        self._boot = boot
        self._config = config
        self._tracks: dict[str, Track] = {}
        self._acks: dict[str, int] = {}
        self._acks_flushed_ns = 0
        self._offered: frozenset[str] = frozenset()
        self._run_id = ""
        self.resends = 0
        self.refused: dict[str, str] = {}
        self.refused_records = 0

    def offers(self) -> tuple[BootOffer, ...]:
        """The boots for a HELLO: those with records waiting, oldest first, then those kept; at most ``BOOTS_MAX``."""
        infos = [info for info in self._spool.boots() if info.first_seq <= info.last_seq or info.boot == self._boot]
        infos.sort(key=lambda info: (info.boot != self._boot, info.unacked == 0))
        infos = infos[:BOOTS_MAX]
        self._offered = frozenset(info.boot for info in infos)
        return tuple(BootOffer(i.boot, i.contract_digest, i.first_seq, i.last_seq, i.acked_seq) for i in infos)

    def start(self, run_id: str, durable: dict[str, int], refused: dict[str, str], block_max_bytes: int) -> None:
        """Begin from what the learner says it has; no batch is larger than ``block_max_bytes``.

        A boot acknowledged further than that was either taken by another run, whose records are not given twice, or
        this run has lost its disk: then what the spool still keeps is sent again.
        """
        self.flush()
        self._run_id, self.refused, self._tracks = run_id, refused, {}
        infos = self._spool.boots()
        self.refused_records = sum(info.unacked for info in infos if info.boot in refused)
        for info in infos:
            if info.boot in refused or info.boot not in self._offered:
                continue
            mark = durable.get(info.boot, -1)
            same_run = info.acked_run in ("", run_id)
            if mark < info.acked_seq and same_run:
                self._spool.unack(info.boot, mark)
            elif mark > info.acked_seq:
                self._spool.ack(info.boot, min(mark, info.last_seq), run_id)
            floor = mark if same_run else max(mark, info.acked_seq)
            itemsize = record_dtype(info.contract.obs_dim, info.contract.act_dim).itemsize
            size = max(
                1, min(self._config.batch_records, min(block_max_bytes, self._config.message_max_bytes) // itemsize)
            )
            track = Track(info.boot, info.contract_digest, size, info.last_seq, mark, floor, sent_max=mark)
            track.rewind()
            if track.waiting or info.boot == self._boot:
                self._tracks[info.boot] = track

    def grew(self, last_seq: int) -> None:
        """The present boot's spool reaches to ``last_seq`` now."""
        if track := self._tracks.get(self._boot):
            track.last_seq = last_seq

    def next_batch(self, now_ns: int) -> Batch | None:
        """What to send now; ``None`` when the window is full or nothing is due. Call :meth:`sent` once it is sent."""
        if sum(len(track.flying) for track in self._tracks.values()) >= self._config.window_batches:
            return None
        for track in self._tracks.values():
            if not self._due(track, now_ns):
                continue
            records = self._spool.pending(track.boot, track.cursor, track.batch_records)
            if len(records):
                return Batch(track.boot, track.contract_digest, track.prev, records)
            # Pruned or damaged to the end: nothing there to wait for.
            track.cursor = track.floor = track.last_seq
        return None

    def sent(self, batch: Batch, now_ns: int) -> None:
        """``batch`` is on its way."""
        track = self._tracks[batch.boot]
        track.prev = track.cursor = int(batch.records["seq"][-1])
        track.sent_max = max(track.sent_max, track.cursor)
        track.flying.append((track.cursor, now_ns))
        track.partial_since_ns = None

    def acked(self, boot: str, durable_seq: int, rewind: bool, now_ns: int) -> bool:
        """The learner has everything of ``boot`` up to ``durable_seq``; with ``rewind`` it misses what came next.

        Returns:
            False when the learner claims a record it was never sent; nothing is done then.
        """
        track = self._tracks.get(boot)
        if track is None:
            return boot in self._offered  # delivered to the end already
        if durable_seq > track.sent_max:
            return False
        if durable_seq > track.durable:
            track.durable, track.factor = durable_seq, 1
            self._acks[boot] = durable_seq
            while track.flying and track.flying[0][0] <= durable_seq:
                track.flying.popleft()
            if track.cursor < durable_seq:
                track.cursor = track.prev = durable_seq
        # One rewind per round trip is enough: every batch behind the lost one asks for it.
        if rewind and track.flying and now_ns - track.rewound_ns > self._config.resend_ms * NS_PER_MS / 4:
            self._rewind(track, now_ns)
        if not track.waiting and boot != self._boot:
            del self._tracks[boot]
        return True

    def expire(self, now_ns: int) -> None:
        """Send again what has been on its way for too long."""
        for track in self._tracks.values():
            wait_ns = self._config.resend_ms * NS_PER_MS * track.factor
            if track.flying and now_ns - track.flying[0][1] > wait_ns:
                track.factor = min(2 * track.factor, RESEND_FACTOR_MAX)
                self._rewind(track, now_ns)

    def flush(self, now_ns: int | None = None) -> None:
        """Write the acknowledgements to the spool; with ``now_ns`` only when some time has passed since the last."""
        if now_ns is not None and now_ns - self._acks_flushed_ns < ACK_FLUSH_NS:
            return
        for boot in list(self._acks):
            self._spool.ack(boot, self._acks[boot], self._run_id)
            del self._acks[boot]
        self._acks_flushed_ns = now_ns or self._acks_flushed_ns

    @property
    def durable(self) -> int:
        """Highest durable ``seq`` of the present boot, -1 for none."""
        track = self._tracks.get(self._boot)
        return track.durable if track else -1

    @property
    def waiting(self) -> int:
        """Records that this learner can take and does not have yet."""
        return sum(track.waiting for track in self._tracks.values())

    @property
    def waiting_older(self) -> int:
        """The same without the present boot."""
        return sum(track.waiting for track in self._tracks.values() if track.boot != self._boot)

    @property
    def more(self) -> bool:
        """Whether everything offered is delivered and further boots wait that did not fit into the HELLO."""
        return (
            self.waiting == 0
            and len(self._offered) >= BOOTS_MAX
            and any(info.unacked and info.boot not in self._offered for info in self._spool.boots())
        )

    def _due(self, track: Track, now_ns: int) -> bool:
        available = track.last_seq - track.cursor
        if available <= 0:
            return False
        if available >= track.batch_records or track.boot != self._boot:
            return True
        if track.partial_since_ns is None:
            track.partial_since_ns = now_ns
        return now_ns - track.partial_since_ns >= self._config.batch_ms * NS_PER_MS

    def _rewind(self, track: Track, now_ns: int) -> None:
        track.rewind()
        track.rewound_ns = now_ns
        self.resends += 1
