"""The robot's end of the link: says hello until it is welcome, keeps the window full, notices silence, fetches policies.

No I/O of its own: a transport takes frames, a clock tells the time, :meth:`RobotEnd.receive` is given what came in and
:meth:`RobotEnd.poll` is called often. So the same code runs over ZeroMQ and in simulated time.
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from typing import Any

from robotsac.clock import Clock
from robotsac.config.schema import LinkConfig
from robotsac.errors import ANOTHER_RUN
from robotsac.link import messages as m
from robotsac.link.outbox import NS_PER_MS, Outbox
from robotsac.link.policy_fetch import PolicyFetch
from robotsac.link.ports import RobotTransport
from robotsac.link.state import LIMIT_NONE, LIMIT_NOTHING, LinkState, Notice, RobotCard

HELLO_WAIT_NS, HELLO_WAIT_MAX_NS = 200 * NS_PER_MS, 2000 * NS_PER_MS
# No connection yet: ZeroMQ is dialling, asking it is cheap.
DIAL_WAIT_NS = 50 * NS_PER_MS
EVENTS_MAX = 50
REPORTS_MAX = 32


class RobotEnd:
    """The conversation with one learner, for ever.

    Args:
        card: who this is.
        config: times and sizes.
        outbox: the window over the spool.
        fetch: where policies go.
        transport: takes messages.
        clock: whose time.

    Attributes:
        state: how the link stands.
        notice: what the operator should know about it.
        events: (t_ns, words) of the last changes; events_total: how many there ever were.
        rejected: messages that were dropped, by kind of reason.
        beat: the learner's last progress.
        run_id: the run that welcomed this robot last.
        refused_for_good: asking again will not help until somebody changes something.
    """

    def __init__(
        self,
        card: RobotCard,
        config: LinkConfig,
        outbox: Outbox,
        fetch: PolicyFetch,
        transport: RobotTransport,
        clock: Clock,
    ) -> None:
        self._card = card
        self._config = config
        self._outbox = outbox
        self._fetch = fetch
        self._transport = transport
        self._clock = clock
        self.session = secrets.token_hex(16)
        self._learner = ""
        self._attempt = self._attempt_lost = 0
        self._hello_due_ns = 0
        self._hello_wait_ns = HELLO_WAIT_NS
        self._heard_ns = self._beat_sent_ns = clock.now_ns()
        self._first_refusal_ns: int | None = None
        self._spooled_seq = self._unsent = -1
        self._policy_version = 0
        self._credit = -1
        self._reports: deque[m.PolicyResult] = deque(maxlen=REPORTS_MAX)
        self.state = LinkState.STARTING
        self.notice = Notice()
        self.events: deque[tuple[int, str]] = deque(maxlen=EVENTS_MAX)
        self.events_total = 0
        self.rejected: Counter[str] = Counter()
        self.beat: m.LearnerBeat | None = None
        self.run_id = ""
        self.refused_for_good = False
        self.down_since_ns = clock.now_ns()

    @property
    def limit_seq(self) -> int:
        """Highest ``seq`` of the present boot that the learner wants; LIMIT_NONE, LIMIT_NOTHING.

        Without a learner there is no bound: the spool's own decides how much may pile up.
        """
        if self.state is not LinkState.UP or self._credit < 0:
            return LIMIT_NONE
        limit = self._outbox.durable + self._credit - self._outbox.waiting_older
        return limit if limit >= 0 else LIMIT_NOTHING

    def progress(self, spooled_seq: int, unsent: int, policy_version: int) -> None:
        """What this robot tells in its heartbeats; ``spooled_seq`` also makes new records known to the window."""
        self._spooled_seq, self._unsent, self._policy_version = spooled_seq, unsent, policy_version
        self._outbox.grew(spooled_seq)

    def report_policy(self, version: int, accepted: bool, reason: str) -> None:
        """Tell the learner what became of a policy, now or when the link is up again."""
        self._reports.append(m.PolicyResult(self.session, "", version, accepted, m.words(reason)))

    def bye(self, reason: str) -> None:
        """Leave in order, so that the learner need not wait for the silence. Raises StorageError."""
        if self.state is LinkState.UP:
            self._transport.send(m.encode(m.Bye(self.session, self._learner, m.words(reason))))
        self._outbox.flush()

    def status(self) -> dict[str, Any]:
        """What a status file shows."""
        return {
            "state": self.state.name.lower(),
            "message": self.notice.message,
            "reason": self.notice.reason,
            "command": self.notice.command,
            "run_id": self.run_id,
            "resends": self._outbox.resends,
            "rejected": dict(self.rejected),
            "refused_boots": self._outbox.refused,
            "policy_failure": self._fetch.failure,
        }

    def receive(self, frames: list[bytes]) -> None:
        """Take in one message. Raises StorageError when the spool cannot note an acknowledgement; nothing else."""
        try:
            message, block = m.decode_from_learner(frames)
        except m.OtherProtocolError as error:
            self.rejected["other protocol"] += 1
            if self.state is not LinkState.UP:
                self._refuse(Notice(error.message, "learner and robot run different versions", error.command), False)
            return
        except m.BadMessageError:
            self.rejected["unreadable"] += 1
            return
        if message.to != self.session:
            self.rejected["not for this session"] += 1
        elif isinstance(message, m.Welcome):
            self._welcome(message)
        elif isinstance(message, m.Refused):
            if self.state is not LinkState.UP and message.attempt > self._attempt_lost:
                self._refuse(Notice(message.message, message.reason, message.command), message.passing)
        elif isinstance(message, m.HelloWanted):
            if self.state is LinkState.UP:
                self._lose(LinkState.CONNECTING, f"the learner asks who this is: {message.reason}")
        elif message.session != self._learner or self.state is not LinkState.UP:
            self.rejected["from another learner session"] += 1
        else:
            self._heard_ns = self._clock.now_ns()
            self._from_learner(message, block)

    def poll(self) -> None:
        """Do what time demands. Raises StorageError when the spool cannot be read or written."""
        now_ns = self._clock.now_ns()
        if self.state is LinkState.UP and now_ns - self._heard_ns > self._config.dead_ms * NS_PER_MS:
            self._lose(
                LinkState.DOWN,
                f"connection to the learner lost: no sign of life for {(now_ns - self._heard_ns) // NS_PER_MS} ms",
            )
        if self.state is LinkState.UP and self._outbox.more:
            self._lose(LinkState.CONNECTING, "further boots to offer")
        if self.state is not LinkState.UP:
            self._dial(now_ns)
            return
        self._outbox.expire(now_ns)
        self._send_batches(now_ns)
        self._outbox.flush(now_ns)
        self._send_policy_messages(now_ns)
        if now_ns - self._beat_sent_ns >= self._config.heartbeat_ms * NS_PER_MS:
            self._beat_sent_ns = now_ns
            unsent = max(0, self._unsent)
            self._send(m.RobotBeat(self.session, self._learner, self._spooled_seq, unsent, self._policy_version))

    def _dial(self, now_ns: int) -> None:
        silent = now_ns - self._heard_ns > 2 * HELLO_WAIT_MAX_NS
        if self.state is LinkState.STARTING or (self.state is LinkState.REFUSED and silent):
            self.refused_for_good = False
            self._change(LinkState.CONNECTING, f"dialling {self._config.address}")
        if now_ns < self._hello_due_ns:
            return
        self._attempt += 1
        card = self._card
        hello = m.Hello(
            session=self.session,
            to="",
            attempt=self._attempt,
            robot=card.robot,
            boot=card.boot,
            boots=self._outbox.offers(),
            contract=card.contract.to_json(),
            contract_digest=card.contract.digest(),
            versions=card.versions,
        )
        if not self._send(hello):
            self._hello_due_ns = now_ns + DIAL_WAIT_NS
        else:
            self._hello_due_ns = now_ns + self._hello_wait_ns
            self._hello_wait_ns = min(2 * self._hello_wait_ns, HELLO_WAIT_MAX_NS)
        waited_ns = now_ns - self.down_since_ns
        if self.state is LinkState.CONNECTING and waited_ns > self._config.dead_ms * NS_PER_MS:
            self.notice = Notice(
                f"no learner answers at {self._config.address} for {waited_ns // (1000 * NS_PER_MS)} s",
                "records wait in the spool",
                self._config.learn_command(),
            )

    def _welcome(self, message: m.Welcome) -> None:
        # An answer to a call from before the link was lost may come from a learner that is no more.
        if self.state is LinkState.UP or not self._attempt_lost < message.attempt <= self._attempt:
            self.rejected["late answer"] += 1
            return
        self._outbox.start(message.run_id, message.durable, message.refused, message.block_max_bytes)
        self._outbox.grew(self._spooled_seq)
        self._learner, self.run_id, self._credit = message.session, message.run_id, message.credit
        self._heard_ns = self._clock.now_ns()
        self._hello_wait_ns, self._first_refusal_ns, self.refused_for_good = HELLO_WAIT_NS, None, False
        self._fetch.reset()
        self._fetch.announced(message.policy, self._heard_ns)
        self._change(LinkState.UP, f"welcome to run {message.run_id} at {self._config.address}")
        self.down_since_ns = 0
        if waiting := self._outbox.refused_records:
            why = "; ".join(sorted(set(message.refused.values())))
            self._tell(f"{waiting:,} records of earlier starts stay in the spool: {why}; another run could take them")

    def _from_learner(self, message: m.FromLearner, block: bytes) -> None:
        now_ns = self._clock.now_ns()
        if isinstance(message, m.Ack):
            self._credit = message.credit
            if not self._outbox.acked(message.boot, message.durable_seq, message.rewind, now_ns):
                self.rejected["acknowledges what was not sent"] += 1
        elif isinstance(message, m.LearnerBeat):
            self.beat, self._credit = message, message.credit
            self._fetch.announced(message.policy, now_ns)
        elif isinstance(message, m.Chunk):
            self._fetch.received(message, block, now_ns)
        elif isinstance(message, m.Bye):
            self._lose(LinkState.DOWN, f"the learner has ended: {message.reason}")

    def _send_batches(self, now_ns: int) -> None:
        while (batch := self._outbox.next_batch(now_ns)) is not None:
            block = batch.records.tobytes()
            data = m.Data(
                session=self.session,
                to=self._learner,
                boot=batch.boot,
                contract_digest=batch.contract_digest,
                prev_seq=batch.prev_seq,
                first_seq=int(batch.records["seq"][0]),
                last_seq=int(batch.records["seq"][-1]),
                count=len(batch.records),
                crc=m.block_crc(block),
            )
            if not self._send(data, block):
                return
            self._outbox.sent(batch, now_ns)

    def _send_policy_messages(self, now_ns: int) -> None:
        while self._fetch.refusals:
            self.report_policy(*self._refusal())
        if (request := self._fetch.request(now_ns)) and self._send(m.Fetch(self.session, self._learner, *request)):
            self._fetch.asked(now_ns)
        while self._reports and self._send(_to(self._reports[0], self._learner)):
            self._reports.popleft()

    def _refusal(self) -> tuple[int, bool, str]:
        version, reason = self._fetch.refusals.pop(0)
        return version, False, reason

    def _send(self, message: m.FromRobot, block: bytes = b"") -> bool:
        return self._transport.send(m.encode(message, block))

    def _lose(self, state: LinkState, why: str) -> None:
        self._learner, self._credit, self._attempt_lost = "", -1, self._attempt
        self._fetch.reset()
        self._hello_due_ns, self._hello_wait_ns = self._clock.now_ns(), HELLO_WAIT_NS
        self.down_since_ns = self._clock.now_ns()
        self._change(state, why)
        command = self._config.learn_command() if state is LinkState.DOWN else ""
        self.notice = Notice(why, "records wait in the spool", command)

    def _refuse(self, notice: Notice, passing: bool) -> None:
        now_ns = self._heard_ns = self._clock.now_ns()
        if self._first_refusal_ns is None:
            self._first_refusal_ns = now_ns
        # Passing: an earlier self may still count as alive over there; that is over within its dead time.
        patience_ns = 3 * self._config.dead_ms * NS_PER_MS if passing else 0
        self.refused_for_good = now_ns - self._first_refusal_ns >= patience_ns
        self._hello_due_ns = now_ns + HELLO_WAIT_MAX_NS if self.refused_for_good else self._hello_due_ns
        self._change(LinkState.REFUSED, f"refused: {notice.message}")
        # The learner does not know where this robot looks for one.
        another = notice.command == ANOTHER_RUN
        command = self._config.learn_command(ANOTHER_RUN) if another else notice.command
        self.notice = Notice(notice.message, notice.reason, command)

    def _tell(self, words: str) -> None:
        self.events.append((self._clock.now_ns(), words))
        self.events_total += 1

    def _change(self, state: LinkState, words: str) -> None:
        if state is not self.state:
            self._tell(words)
            self.state, self.notice = state, Notice()


def _to(report: m.PolicyResult, learner: str) -> m.PolicyResult:
    return m.PolicyResult(report.session, learner, report.version, report.accepted, report.reason)
