"""The uplink: the robot's process between the control loop and the world.

It takes records out of the shared-memory ring, commits them to the spool, and only then takes them off the ring; sends
what is in the spool to the learner until that has it on its disk; and brings policies back. The control loop never waits
for any of it: if this process is killed, records wait in the ring, and its successor goes on where the ring's head stood.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib import metadata

from robotsac.actor.uplink_block import (
    LIMIT_NONE,
    LIMIT_NOTHING,
    UPLINK_FIELDS,
    LinkPhase,
    StatusFile,
    UplinkArgs,
    UplinkError,
    lost_words,
)
from robotsac.clock import NS_PER_S, MonotonicClock
from robotsac.contract import Contract
from robotsac.errors import LinkError, RobotsacError, StorageError
from robotsac.link.outbox import Outbox
from robotsac.link.policy_fetch import PolicyFetch
from robotsac.link.robot_end import RobotEnd
from robotsac.link.sockets import RobotSocket
from robotsac.link.state import RobotCard
from robotsac.policy.store import BundleStore
from robotsac.process import starter
from robotsac.records import record_dtype
from robotsac.shared import RecordRing, SharedBlock
from robotsac.signals import obey_supervisor
from robotsac.spool import Spool

__all__ = ["LIMIT_NONE", "LIMIT_NOTHING", "UPLINK_FIELDS", "LinkPhase", "UplinkArgs", "UplinkError", "uplink_main"]

NS_PER_MS = 1_000_000
# Records per transaction; a full ring takes a few rounds.
RECORDS_PER_ROUND = 2048
MESSAGES_PER_ROUND = 256
STORAGE_RETRY_NS = 250 * NS_PER_MS
ROOM_CHECK_NS = 500 * NS_PER_MS
STATUS_NS = 250 * NS_PER_MS
# Without a supervisor the actor may push a few more records; the ring counts as done when it stayed empty this long.
ORPHAN_QUIET_NS = 1000 * NS_PER_MS
# At the end, a link that is not up is given this long to come up.
LINK_GRACE_NS = 1000 * NS_PER_MS
# What a full ring takes on a full disk: once in the WAL, once in the database, with room for pages partly used.
BALLAST_FACTOR = 4
BALLAST_MIN_BYTES = 1_000_000


def uplink_main(args: UplinkArgs) -> None:
    """Run until told to stop; the target of the uplink process. Exits with 6 when records could not be stored."""
    told = obey_supervisor()
    try:
        uplink = Uplink(args, lambda: told.count > 0)
    except RobotsacError as error:
        status = StatusFile(args.status_path)
        status.fail(error)
        status.write({})
        raise SystemExit(error.exit_code) from error
    raise SystemExit(uplink.run())


class Uplink:
    """The process's loop.

    Args:
        args: see :class:`UplinkArgs`.
        terminated: whether this process was asked to end by a signal.
    """

    def __init__(self, args: UplinkArgs, terminated: Callable[[], bool] = lambda: False) -> None:
        self._args = args
        self._terminated = terminated
        self._parent = starter()
        self._dtype = record_dtype(args.obs_dim, args.act_dim)
        self._ring = RecordRing.attach(args.ring_name, self._dtype)
        self._block = SharedBlock.attach(args.block_name, UPLINK_FIELDS)
        self._status = StatusFile(args.status_path)
        self._contract = Contract.from_json(args.contract_json)
        ballast = BALLAST_FACTOR * args.ring_capacity * self._dtype.itemsize + BALLAST_MIN_BYTES
        self._spool = Spool(args.spool_path, args.spool, ballast)
        self._policies = BundleStore(args.policies)
        self._socket: RobotSocket | None = None
        self._outbox: Outbox | None = None
        self._end: RobotEnd | None = None
        self._spooled_seq = -1
        self._run_id = ""
        self._events_seen = 0
        self._commit_ns = self._room_ns = self._status_ns = self._retry_ns = 0
        self._stop_ns: int | None = None
        self._ring_busy_ns = 0
        self._rejected_seen = self._block["policy_rejected"]
        self._accepted_seen = self._block["policy_accepted"]

    def run(self) -> int:
        """Until stopped and done. Returns the exit code."""
        block = self._block
        block["error"], block["durable_seq"], block["spooled_seq"], block["limit_seq"] = 0, -1, -1, LIMIT_NONE
        block["link_state"], block["link_down_ns"] = LinkPhase.STARTING, time.monotonic_ns()
        wait_ms = max(1, min(int(self._args.spool.commit_ms), int(self._args.link.batch_ms)))
        while True:
            now_ns = time.monotonic_ns()
            if self._stop_ns is None and (block["stop"] or self._terminated() or self._orphan()):
                self._stop_ns = now_ns
            self._guarded(self._store, now_ns)
            self._guarded(self._talk, wait_ms)
            self._report_policies()
            self._publish(time.monotonic_ns())
            if self._stop_ns is not None and self._done(time.monotonic_ns()):
                return self._leave()

    # ---- the two halves of the work: each may meet a disk that refuses ----------------------------------------------

    def _guarded(self, work: Callable[[int], None], argument: int) -> None:
        try:
            work(argument)
        except StorageError as error:
            self._fail(UplinkError.STORAGE, error)
            self._retry_ns = time.monotonic_ns() + STORAGE_RETRY_NS
            time.sleep(self._args.spool.commit_ms / 1000)

    def _store(self, now_ns: int) -> None:
        """Ring → spool. The records leave the ring only after the commit."""
        if now_ns < self._retry_ns or now_ns - self._commit_ns < self._args.spool.commit_ms * NS_PER_MS:
            return
        self._commit_ns = now_ns
        if self._outbox is None:
            self._open()
        records = self._ring.peek(RECORDS_PER_ROUND)
        if len(records):
            self._ring_busy_ns = now_ns
            self._spool.append(self._args.boot, records)
            self._ring.advance(len(records))
            self._spooled_seq = int(records["seq"][-1])
        if now_ns - self._room_ns >= ROOM_CHECK_NS:
            self._room_ns = now_ns
            self._spool.check_room()

    def _talk(self, wait_ms: int) -> None:
        """Receive for at most ``wait_ms``, then send what is due."""
        end, socket = self._end, self._socket
        if end is None or socket is None:
            time.sleep(wait_ms / 1000)
            return
        if socket.wait(wait_ms):
            for _ in range(MESSAGES_PER_ROUND):
                frames = socket.receive()
                if frames is None:
                    break
                end.receive(frames)
        self._block["unsent"] = unsent = self._spool.unacked()
        end.progress(self._spooled_seq, unsent, self._block["policy_accepted"])
        end.poll()
        if end.refused_for_good:
            notice = end.notice
            self._fail(UplinkError.REFUSED, LinkError(notice.message, reason=notice.reason, command=notice.command))

    def _open(self) -> None:
        args = self._args
        self._spool.open()
        self._spool.begin_boot(args.boot, self._contract)
        self._spooled_seq = next(info.last_seq for info in self._spool.boots() if info.boot == args.boot)
        self._outbox = Outbox(self._spool, args.boot, args.link)
        try:
            self._socket = RobotSocket(args.link)
        except LinkError as error:
            self._fail(UplinkError.REFUSED, error)
            return
        versions = {name: metadata.version(name) for name in ("robotsac", "numpy", "pyzmq")}
        card = RobotCard(args.robot, args.boot, self._contract, versions | {"python": platform.python_version()})
        fetch = PolicyFetch(self._policies, args.policy_size_max_bytes, args.link)
        self._end = RobotEnd(card, args.link, self._outbox, fetch, self._socket, MonotonicClock())

    def _report_policies(self) -> None:
        """Pass the actor's verdicts on. Why a policy was refused is in ``policy-refused.txt``, if the actor left it."""
        accepted, rejected = self._block["policy_accepted"], self._block["policy_rejected"]
        if self._end is None or (accepted, rejected) == (self._accepted_seen, self._rejected_seen):
            return
        if rejected != self._rejected_seen:
            entry = self._policies.latest()
            self._end.report_policy(entry.version if entry else 0, False, self._refusal_words())
        if accepted != self._accepted_seen and accepted > 0:
            self._end.report_policy(accepted, True, "")
        self._accepted_seen, self._rejected_seen = accepted, rejected

    def _refusal_words(self) -> str:
        try:
            return self._args.status_path.with_name("policy-refused.txt").read_text(encoding="utf-8")[:1000]
        except (OSError, ValueError):
            return "the robot refused it"

    # ---- telling ----------------------------------------------------------------------------------------------------

    def _fail(self, kind: UplinkError, error: RobotsacError) -> None:
        self._status.fail(error)
        if self._block["error"] == UplinkError.NONE:
            self._block["error"] = kind
            self._status_ns = 0  # the words are there as soon as the number

    def _publish(self, now_ns: int) -> None:
        block, end, outbox = self._block, self._end, self._outbox
        block["spooled_seq"], block["beat_ns"] = self._spooled_seq, now_ns
        if outbox is not None and end is not None:
            if (beat := end.beat) is not None:
                block["learner_updates"], block["learner_version"] = beat.updates, beat.policy_version
                block["learner_transitions"] = beat.transitions
            block["durable_seq"], block["link_down_ns"] = max(block["durable_seq"], outbox.durable), end.down_since_ns
            if end.run_id and end.run_id != self._run_id:
                # Before the link is seen up: a robot must not start on the policy of another run.
                self._guarded(lambda _: self._policies.begin_run(end.run_id), 0)
                self._run_id = end.run_id
            # The limit first: who sees the link up must not see an old limit.
            block["limit_seq"] = end.limit_seq
            block["link_state"] = end.state
        if now_ns - self._status_ns >= STATUS_NS:
            self._status_ns = now_ns
            self._write_status()

    def _write_status(self) -> None:
        end, outbox = self._end, self._outbox
        facts: dict[str, object] = {"robot": self._args.robot, "boot": self._args.boot}
        if end is not None and outbox is not None:
            try:
                self._block["unsent"], self._block["refused"] = self._spool.unacked(), outbox.refused_records
                facts["spool"] = {
                    info.boot: [info.committed, info.acked, info.pruned]
                    for info in self._spool.boots()
                    if info.unacked or info.boot == self._args.boot
                }
            except StorageError as error:
                self._fail(UplinkError.STORAGE, error)
            new = end.events_total - self._events_seen
            for _, words in list(end.events)[-new:] if new else []:
                self._status.event(words)
            self._events_seen = end.events_total
            facts["link"] = end.status()
            if self._socket is not None:
                facts["connections"] = self._socket.events
            facts["damaged_records"] = self._spool.damaged
        self._status.write(facts)

    # ---- ending -----------------------------------------------------------------------------------------------------

    def _orphan(self) -> bool:
        return os.getppid() != self._parent

    def _done(self, now_ns: int) -> bool:
        since_ns = now_ns - (self._stop_ns or now_ns)
        if self._ring.fill:
            return since_ns > self._args.store_deadline_s * NS_PER_S
        if self._orphan():
            return now_ns - self._ring_busy_ns > ORPHAN_QUIET_NS
        end, outbox = self._end, self._outbox
        if end is None or outbox is None or since_ns > self._args.deliver_deadline_s * NS_PER_S:
            return True
        if end.state is LinkPhase.UP:
            return outbox.waiting == 0
        return end.state is LinkPhase.REFUSED or since_ns > LINK_GRACE_NS

    def _leave(self) -> int:
        lost = self._ring.fill
        if lost:
            last = self._status.error
            reason = str(last) if last is not None else "the disk did not take them in time"
            command = last.command if last is not None else ""
            self._fail(
                UplinkError.STORAGE,
                StorageError(lost_words(lost), reason=reason, command=command),
            )
        if self._end is not None:
            self._guarded(lambda _: self._leave_link(), 0)
        self._publish(time.monotonic_ns())
        self._write_status()
        self._spool.close()
        if self._socket is not None:
            self._socket.close()
        self._ring.close()
        self._block.close()
        return StorageError.exit_code if lost else 0

    def _leave_link(self) -> None:
        assert self._end is not None
        self._end.bye("the collector has ended")
        waiting = self._spool.unacked()
        if waiting:
            self._status.event(f"{waiting} records wait in the spool for the next learner")
