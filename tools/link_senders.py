"""Processes that stand for many robots: each drives links of the project's own robot end over real sockets.

A robot here is a :class:`~robotsac.link.robot_end.RobotEnd` with its window and its socket. What is missing is what
belongs to a robot's own computer: the spool on disk (records are made up when they are asked for, in memory) and the
folder of policies (their bytes are fetched, checked and dropped). So one process drives many links at little cost.
"""

from __future__ import annotations

import enum
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Self

import numpy as np
import zmq

from robotsac.clock import NS_PER_S, MonotonicClock
from robotsac.config.schema import LinkConfig
from robotsac.contract import Contract
from robotsac.errors import StorageError
from robotsac.link.messages import sha256
from robotsac.link.outbox import Outbox
from robotsac.link.policy_fetch import PolicyFetch
from robotsac.link.robot_end import RobotEnd
from robotsac.link.sockets import RobotSocket
from robotsac.link.state import LinkState, RobotCard
from robotsac.policy.store import BundleEntry
from robotsac.records import EpisodeEnd, Flag, Records, record_dtype
from robotsac.shared import SharedBlock
from robotsac.spool import BootInfo

BOOT = "made-up"
EPISODE_RECORDS = 101
"""Of a made-up episode: 100 steps and the final record, 2 s at 50 Hz."""
TEMPLATE_EPISODES = 20
POLICY_BYTES_MAX = 16_000_000
PACED_SLEEP_S = 0.01
"""A paced sender looks this often, as a robot that makes a record every 10 ms would; acknowledgements wake it up only then."""
FLOOD_WAIT_MS = 20
PATIENCE_S = 60.0
FIELDS = ("order", "up", "made", "durable", "cpu_ns", "resends")
"""Of one sending process. ``order``: :class:`Order`, written by the one that started it. The rest is its own: links that
are up, records made and records acknowledged over all its links, its CPU time, windows sent again."""


class Order(enum.IntEnum):
    """What a sending process is to do."""

    QUIET = 0  # links stay up, no records
    STREAM = 1
    END = 2  # no further records; end once all are acknowledged


@dataclass(frozen=True, slots=True)
class SendArgs:
    """What a sending process is given.

    Args:
        link: configuration; its address must be of this host.
        robots: names, one link each.
        contract_json: of the robots.
        rate_hz: records per second and robot; 0 = as fast as they are acknowledged.
        block_name: of :data:`FIELDS`.
        yielding: take only the time that others leave, on the last core: it stands for other computers.
    """

    link: LinkConfig
    robots: tuple[str, ...]
    contract_json: bytes
    rate_hz: float
    block_name: str
    yielding: bool


class MadeUpSpool:
    """A spool without a disk: record ``seq`` is made when it is asked for, the same one each time.

    Args:
        contract: of the robot.
        seed: of the numbers.
    """

    def __init__(self, contract: Contract, seed: int) -> None:
        self._contract, self._digest = contract, contract.digest()
        self._template = made_up_records(contract, seed)
        self.last_seq = self.acked_seq = -1

    def boots(self) -> list[BootInfo]:
        """The one boot."""
        made, acked = self.last_seq + 1, self.acked_seq + 1
        return [BootInfo(BOOT, self._digest, self._contract, 0, self.last_seq, self.acked_seq, "", made, acked, 0)]

    def pending(self, boot: str, after_seq: int, limit: int) -> Records:
        """At most ``limit`` records above ``after_seq``."""
        first = after_seq + 1
        start = first % len(self._template)
        count = min(limit, self.last_seq - after_seq, len(self._template) - start)
        records = self._template[start : start + count].copy()
        seq = np.arange(first, first + count)
        records["seq"], records["episode"] = seq, 1 + seq // EPISODE_RECORDS
        return records

    def ack(self, boot: str, durable_seq: int, run_id: str = "") -> None:
        """Everything up to ``durable_seq`` is on the learner's disk."""
        self.acked_seq = max(self.acked_seq, durable_seq)

    def unack(self, boot: str, durable_seq: int) -> None:
        """The learner has lost what it had above ``durable_seq``."""
        self.acked_seq = durable_seq


def made_up_records(contract: Contract, seed: int) -> Records:
    """Whole episodes of plausible size, ``seq`` from 0 on; every one is cut short by its time limit."""
    rng = np.random.default_rng(seed)
    records = np.zeros(TEMPLATE_EPISODES * EPISODE_RECORDS, record_dtype(contract.obs_dim, contract.act_dim))
    records["seq"] = np.arange(len(records))
    records["episode"] = 1 + records["seq"] // EPISODE_RECORDS
    records["t_ns"] = records["seq"] * (NS_PER_S // contract.control_rate_hz)
    records["obs"] = rng.standard_normal(records["obs"].shape).clip(-3.0, 3.0)
    records["action_asked"] = rng.uniform(-1.0, 1.0, records["action_asked"].shape)
    records["action_applied"] = records["action_asked"]
    records["reward"] = rng.uniform(-1.0, 0.0, len(records))
    final = slice(EPISODE_RECORDS - 1, None, EPISODE_RECORDS)
    records["flags"][final], records["end"][final] = Flag.FINAL, EpisodeEnd.TIME_LIMIT
    return records


class DroppingFolder:
    """A folder of policies that keeps the name of the latest and none of the bytes."""

    def __init__(self) -> None:
        self._latest: BundleEntry | None = None

    def publish(self, data: bytes, version: int) -> BundleEntry:
        """Note it."""
        self._latest = BundleEntry(f"policy-{version}", version, sha256(data), len(data))
        return self._latest

    def latest(self) -> BundleEntry | None:
        """The last one noted."""
        return self._latest

    def read(self, entry: BundleEntry) -> bytes:
        """There is nothing to read. Raises StorageError."""
        raise StorageError(f"{entry.file} was not kept")


class Link:
    """One robot's: spool, window, end and socket."""

    def __init__(self, name: str, args: SendArgs, contract: Contract, seed: int) -> None:
        self.name = name
        self.spool = MadeUpSpool(contract, seed)
        self.outbox = Outbox(self.spool, BOOT, args.link)
        self.socket = RobotSocket(args.link)
        card = RobotCard(name, BOOT, contract, {"robotsac": "bench"})
        fetch = PolicyFetch(DroppingFolder(), POLICY_BYTES_MAX, args.link)
        self.end = RobotEnd(card, args.link, self.outbox, fetch, self.socket, MonotonicClock())

    def turn(self) -> None:
        """Take in what came, send what is due."""
        self.socket.wait(0)
        while (frames := self.socket.receive()) is not None:
            self.end.receive(frames)
        self.end.progress(self.spool.last_seq, self.outbox.waiting, 0)
        self.end.poll()

    def close(self) -> None:
        """Say goodbye."""
        self.end.bye("the benchmark is over")
        self.socket.close()


def send_main(args: SendArgs, result: Connection) -> None:
    """Obey the block until END and all is acknowledged; then tell how many records each robot made."""
    if args.yielding:
        os.nice(19)
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    block = SharedBlock.attach(args.block_name, FIELDS)
    contract = Contract.from_json(args.contract_json)
    links = [Link(name, args, contract, seed) for seed, name in enumerate(args.robots)]
    poller = zmq.Poller()
    for link in links:
        poller.register(link.socket.socket, zmq.POLLIN)
    ahead = 2 * args.link.window_batches * args.link.batch_records
    streamed_s, last_s, end_s = 0.0, time.monotonic(), float("inf")
    try:
        while (order := block["order"]) != Order.END or _waiting(links):
            if args.rate_hz:
                time.sleep(PACED_SLEEP_S)
            else:
                poller.poll(FLOOD_WAIT_MS)
            now_s = time.monotonic()
            streamed_s, last_s = streamed_s + (now_s - last_s) * (order == Order.STREAM), now_s
            end_s = min(end_s, now_s + PATIENCE_S) if order == Order.END else end_s
            if os.getppid() == 1 or now_s > end_s:
                break
            for link in links:
                if order == Order.STREAM:
                    made = int(streamed_s * args.rate_hz) if args.rate_hz else link.outbox.durable + 1 + ahead
                    link.spool.last_seq = max(link.spool.last_seq, made - 1)
                link.turn()
            _tell(block, links)
        result.send({link.name: link.spool.last_seq + 1 for link in links})
    finally:
        for link in links:
            link.close()
        block.close()


def _waiting(links: Sequence[Link]) -> int:
    return sum(link.outbox.waiting for link in links)


def _tell(block: SharedBlock, links: Sequence[Link]) -> None:
    block["up"] = sum(link.end.state is LinkState.UP for link in links)
    block["made"] = sum(link.spool.last_seq + 1 for link in links)
    block["durable"] = sum(link.outbox.durable + 1 for link in links)
    block["resends"] = sum(link.outbox.resends for link in links)
    block["cpu_ns"] = time.process_time_ns()


class Senders:
    """The sending processes, as the one sees them that started them. Use as a context manager.

    Args:
        link: configuration.
        robots: how many.
        processes: among how many processes.
        contract: of the robots.
        rate_hz, yielding: see :class:`SendArgs`.
    """

    def __init__(
        self, link: LinkConfig, robots: int, processes: int, contract: Contract, rate_hz: float, yielding: bool = False
    ) -> None:
        self.robots = robots
        names = tuple(f"robot{number:03d}" for number in range(robots))
        self._blocks = [SharedBlock.create(FIELDS) for _ in range(processes)]
        spawn = multiprocessing.get_context("spawn")
        self._results, self._processes = [], []
        for number, block in enumerate(self._blocks):
            ours, theirs = spawn.Pipe(duplex=False)
            share = names[number::processes]
            args = SendArgs(link, share, contract.to_json(), rate_hz, block.name, yielding)
            self._processes.append(spawn.Process(target=send_main, args=(args, theirs), daemon=True))
            self._results.append(ours)

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process, block in zip(self._processes, self._blocks, strict=True):
            if process.is_alive():
                process.kill()
            process.join()
            block.close()
            block.unlink()

    def order(self, order: Order) -> None:
        """Tell all of them."""
        for block in self._blocks:
            block["order"] = order

    def total(self, field: str) -> int:
        """Sum of a field over the processes."""
        return sum(block[field] for block in self._blocks)

    def finish(self) -> dict[str, int]:
        """Let them deliver everything and end. Records that each robot made.

        Raises:
            StorageError: one of them does not end.
        """
        self.order(Order.END)
        made: dict[str, int] = {}
        for result in self._results:
            if not result.poll(2 * PATIENCE_S):
                raise StorageError("a sending process does not end", reason="not everything was acknowledged")
            made |= result.recv()
        return made
