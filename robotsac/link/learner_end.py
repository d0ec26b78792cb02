"""The learner's end of the link: welcomes robots, takes batches in order, acknowledges what the disk has.

No I/O of its own, like :mod:`robotsac.link.robot_end`: :meth:`LearnerEnd.receive` is given what came in and only stages
records; :meth:`LearnerEnd.commit` writes all that is staged in one transaction and acknowledges; :meth:`LearnerEnd.poll`
sends heartbeats. An acknowledgement is never sent for what is not durable.
"""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from robotsac.clock import Clock
from robotsac.config.schema import LinkConfig
from robotsac.link import messages as m
from robotsac.link.admission import objection
from robotsac.link.peers import Robot, Robots
from robotsac.link.policy_fetch import PolicyShelf
from robotsac.link.ports import LearnerTransport, ReplayPort
from robotsac.records import Records, record_dtype

NS_PER_MS = 1_000_000
ROW_RECORDS_MAX = 128
"""Batches of a robot that are committed together become rows of at most so many records: a row costs, a record hardly does.
The trainer reads some rows at a time, so there is a bound."""


@dataclass(slots=True)
class Progress:
    """What the learner tells in its heartbeats. ``credit_total``: records the run will take; -1 = no bound."""

    updates: int = 0
    transitions: int = 0
    policy_version: int = 0
    credit_total: int = -1


class LearnerEnd:
    """The conversation with all robots.

    Args:
        log: the durable replay log; its first robot's contract becomes the run's.
        config: times and sizes.
        run_id: name of the run.
        shelf: policies to announce.
        transport: takes messages.
        clock: whose time.

    Attributes:
        progress: set by the owner.
        rejected: messages that were dropped, by kind of reason.
        refusals: HELLOs that were refused, by kind of reason.
        last_refusal: in words.
        staged_bytes: records that wait for :meth:`commit`; the owner bounds it.
        records: in the log.
    """

    def __init__(
        self,
        log: ReplayPort,
        config: LinkConfig,
        run_id: str,
        shelf: PolicyShelf,
        transport: LearnerTransport,
        clock: Clock,
    ) -> None:
        self._log = log
        self._config = config
        self._run_id = run_id
        self._shelf = shelf
        self._transport = transport
        self._clock = clock
        self.session = secrets.token_hex(16)
        self.robots = Robots(int(config.dead_ms * NS_PER_MS))
        # (robot, boot) → highest seq durable, and highest seq staged.
        self._durable: dict[tuple[str, str], int] = {}
        self._staged_seq: dict[tuple[str, str], int] = {}
        self._staged: dict[tuple[str, str], list[Records]] = {}
        # Of the run's contract, which never changes: its digest, and how its records are laid out.
        self._layout: tuple[str, np.dtype[np.void]] | None = None
        # (robot, boot) → whether a batch was missing.
        self._owed: dict[tuple[str, str], bool] = {}
        self._beat_sent_ns = clock.now_ns()
        self.progress = Progress()
        self.rejected: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.last_refusal = ""
        self.staged_bytes = 0
        self.records = log.counts()["records"]

    def receive(self, peer: bytes, frames: list[bytes]) -> None:
        """Take in one message from ``peer``. Raises StorageError when the log cannot be bound; nothing else."""
        try:
            message, block = m.decode_from_robot(frames)
        except m.OtherProtocolError as error:
            # Its answer carries this side's number, by which the other side can say the same.
            self.rejected["other protocol"] += 1
            self._transport.send(peer, m.encode(m.HelloWanted(self.session, "", m.words(error.message))))
            return
        except m.BadMessageError:
            self.rejected["unreadable"] += 1
            return
        if isinstance(message, m.Hello):
            self._hello(peer, message)
            return
        robot = self.robots.of_session(message.session)
        if robot is None or message.to != self.session:
            self.rejected["unknown session"] += 1
            wanted = m.HelloWanted(self.session, message.session, "this learner does not know the session")
            self._transport.send(peer, m.encode(wanted))
            return
        robot.peer, robot.heard_ns, robot.left = peer, self._clock.now_ns(), False
        if isinstance(message, m.Data):
            self._data(robot, message, block)
        else:
            self._small(robot, message)

    def commit(self) -> int:
        """Write what is staged, in one transaction, then acknowledge.

        Returns:
            How many records were new.

        Raises:
            StorageError: the log could not be written; nothing is acknowledged.
        """
        new = 0
        if self._staged:
            rows = [(*key, row) for key, parts in self._staged.items() for row in _rows(parts)]
            stored = self._log.append_many(rows)
            for (name, boot, records), count in zip(rows, stored, strict=True):
                self._durable[name, boot] = max(self._durable.get((name, boot), -1), int(records["seq"][-1]))
                if robot := self.robots.named(name):
                    robot.records += count
            new = sum(stored)
            self.records += new
            self._staged, self._staged_seq, self.staged_bytes = {}, {}, 0
        for (name, boot), rewind in self._owed.items():
            if robot := self.robots.named(name):
                durable = self._durable.get((name, boot), -1)
                self._send(robot, m.Ack(self.session, robot.session, boot, durable, self.credit(), rewind))
        self._owed = {}
        return new

    def poll(self) -> None:
        """Send heartbeats when they are due, and at once when there is a new policy to announce."""
        now_ns = self._clock.now_ns()
        due = now_ns - self._beat_sent_ns >= self._config.heartbeat_ms * NS_PER_MS
        if not self._shelf.refresh(again=due) and not due:
            return
        self._beat_sent_ns = now_ns
        progress, credit, notice = self.progress, self.credit(), self._shelf.notice()
        for robot in self.robots.alive(now_ns):
            self._send(
                robot,
                m.LearnerBeat(
                    session=self.session,
                    to=robot.session,
                    updates=progress.updates,
                    transitions=progress.transitions,
                    policy_version=progress.policy_version,
                    credit=credit,
                    policy=notice,
                ),
            )

    def credit(self) -> int:
        """How many further records each robot may produce, -1 for no bound."""
        if self.progress.credit_total < 0:
            return -1
        robots = max(1, len(self.robots.alive(self._clock.now_ns())))
        return max(0, self.progress.credit_total - self.records) // robots

    def bye(self, reason: str) -> None:
        """Tell the robots that this learner ends."""
        for robot in self.robots.alive(self._clock.now_ns()):
            self._send(robot, m.Bye(self.session, robot.session, m.words(reason)))

    def status(self) -> dict[str, Any]:
        """What a status file shows."""
        return {
            "records": self.records,
            "credit": self.credit(),
            "robots": self.robots.status(self._clock.now_ns()),
            "rejected": dict(self.rejected),
            "refusals": dict(self.refusals),
            "last_refusal": self.last_refusal,
            "policy_unreadable": self._shelf.unreadable,
        }

    def _hello(self, peer: bytes, hello: m.Hello) -> None:
        now_ns = self._clock.now_ns()
        refusal = objection(hello, self.robots, self._log, self._config.robots_max, now_ns)
        if refusal is not None:
            self.refusals[refusal.kind] += 1
            self.last_refusal = str(refusal.error)
            self._transport.send(peer, m.encode(refusal.answer(self.session, hello)))
            return
        contract = self._log.contract()
        digest = contract.digest() if contract else ""
        stored = self._log.durable_all(hello.robot)
        self._durable.update({(hello.robot, boot): seq for boot, seq in stored.items()})
        taken = frozenset(offer.boot for offer in hello.boots if offer.contract_digest == digest) | {hello.boot}
        robot = Robot(hello.robot, hello.boot, hello.session, peer, taken, dict(hello.versions), now_ns, now_ns)
        self.robots.add(robot, now_ns)
        why = "they were recorded for another robot model or task than this run's"
        self._shelf.refresh()
        welcome = m.Welcome(
            session=self.session,
            to=hello.session,
            attempt=hello.attempt,
            run_id=m.words(self._run_id),
            durable={boot: stored.get(boot, -1) for boot in taken},
            refused={offer.boot: why for offer in hello.boots if offer.boot not in taken},
            credit=self.credit(),
            block_max_bytes=self._config.message_max_bytes,
            policy=self._shelf.notice(),
        )
        self._transport.send(peer, m.encode(welcome))

    def _data(self, robot: Robot, data: m.Data, block: bytes) -> None:
        records = self._checked(robot, data, block)
        if records is None:
            self.rejected["bad batch"] += 1
            return
        key = (robot.name, data.boot)
        have = max(self._durable.get(key, -1), self._staged_seq.get(key, -1))
        missing = data.prev_seq > have
        self._owed[key] = self._owed.get(key, False) or missing
        if missing:
            self.rejected["out of order"] += 1
            return
        fresh = records if data.first_seq > have else records[records["seq"].astype(np.int64) > have]
        robot.duplicates += len(records) - len(fresh)
        if len(fresh):
            robot.skipped += int(fresh["seq"][-1]) - max(have, data.prev_seq) - len(fresh)
            self._staged.setdefault(key, []).append(fresh)
            self._staged_seq[key] = int(fresh["seq"][-1])
            self.staged_bytes += fresh.nbytes

    def _checked(self, robot: Robot, data: m.Data, block: bytes) -> Records | None:
        """The records of a batch when everything about it fits, else ``None``."""
        if self._layout is None and (contract := self._log.contract()) is not None:
            self._layout = contract.digest(), record_dtype(contract.obs_dim, contract.act_dim)
        if self._layout is None or data.boot not in robot.boots or data.contract_digest != self._layout[0]:
            return None
        dtype = self._layout[1]
        if len(block) != data.count * dtype.itemsize:
            return None
        records = np.frombuffer(block, dtype)
        seq = records["seq"]
        in_order = bool((seq[1:] > seq[:-1]).all())
        ends = (data.prev_seq < data.first_seq, int(seq[0]) == data.first_seq, int(seq[-1]) == data.last_seq)
        return records if in_order and all(ends) else None

    def _small(self, robot: Robot, message: m.FromRobot) -> None:
        if isinstance(message, m.RobotBeat):
            robot.spooled_seq, robot.unsent = message.spooled_seq, message.unsent
            robot.policy_version = message.policy_version
        elif isinstance(message, m.Fetch):
            digest, block = self._shelf.chunk(message.version, message.offset, message.limit)
            crc = m.block_crc(block)
            chunk = m.Chunk(self.session, robot.session, message.version, digest, message.offset, crc)
            self._send(robot, chunk, block)
        elif isinstance(message, m.PolicyResult):
            robot.note_policy(message.version, message.accepted, message.reason)
        elif isinstance(message, m.Bye):
            robot.left = True

    def _send(self, robot: Robot, message: m.FromLearner, block: bytes = b"") -> bool:
        return self._transport.send(robot.peer, m.encode(message, block))


def _rows(parts: list[Records]) -> list[Records]:
    """Batches of one boot, in order, joined into few."""
    joined: list[list[Records]] = [[]]
    for part in parts:
        if joined[-1] and sum(map(len, joined[-1])) + len(part) > ROW_RECORDS_MAX:
            joined.append([])
        joined[-1].append(part)
    # By their bytes: numpy spends longer on the fields' names than on the records.
    return [
        few[0] if len(few) == 1 else np.frombuffer(b"".join(part.tobytes() for part in few), few[0].dtype)
        for few in joined
    ]
