"""A robot, a learner and a bad network in simulated time; the spool and the replay log are the real ones."""

from __future__ import annotations

import random
from collections import deque
from pathlib import Path

import numpy as np

from robotsac.clock import NS_PER_S, ManualClock
from robotsac.config.schema import LinkConfig, SpoolConfig
from robotsac.contract import SCHEMA, Channel, Contract
from robotsac.learner.replay_log import ReplayLog
from robotsac.link.learner_end import LearnerEnd
from robotsac.link.outbox import Outbox
from robotsac.link.policy_fetch import PolicyFetch, PolicyShelf
from robotsac.link.robot_end import RobotEnd
from robotsac.link.state import RobotCard
from robotsac.policy.store import BundleStore
from robotsac.records import Records, record_dtype
from robotsac.spool import Spool

MS = 1_000_000
OBS_DIM, ACT_DIM = 3, 2
DTYPE = record_dtype(OBS_DIM, ACT_DIM)
SPOOL = SpoolConfig(free_min_mb=0.001, keep_acked_mb=0.0)
LINK = LinkConfig(batch_records=8, window_batches=4)


def a_contract(task: str = "reach", obs_dim: int = OBS_DIM) -> Contract:
    """A small contract; ``task`` makes it another one."""
    return Contract(
        schema=SCHEMA,
        model_digest="0" * 64,
        task=task,
        task_parameters={"tolerance_m": "0.02"},
        joint_names=("shoulder", "elbow"),
        control_rate_hz=50,
        history_steps=0,
        observation=(Channel("q", obs_dim, "rad", (1.0,) * obs_dim),),
        action=(Channel("tau", ACT_DIM, "N·m", (1.0, 1.0)),),
    )


def some_records(first: int, count: int) -> Records:
    """Records ``first``, ``first + 1`` … that can be told apart."""
    records = np.zeros(count, DTYPE)
    records["seq"] = np.arange(first, first + count)
    records["t_ns"] = records["seq"] * 10
    records["obs"] = records["seq"][:, None] + np.arange(OBS_DIM)
    return records


class Wire:
    """One direction: loses, doubles, delays (and so reorders) what is sent."""

    def __init__(self, clock: ManualClock, rng: random.Random, peer: bytes = b"") -> None:
        self.clock, self.rng, self.peer = clock, rng, peer
        self.loss = self.double = 0.0
        self.delay_ms = 0.0  # in order; any delay above 0 reorders
        self.cut = False
        self._flying: list[tuple[int, list[bytes]]] = []
        self.log: deque[list[bytes]] = deque(maxlen=1000)

    def send(self, *args: bytes | list[bytes]) -> bool:
        frames = [bytes(frame) for frame in args[-1]]
        self.log.append(frames)
        for _ in range(1 + (self.rng.random() < self.double)):
            if not self.cut and self.rng.random() >= self.loss:
                delay_ns = int(self.rng.random() * self.delay_ms * MS)
                self._flying.append((self.clock.now_ns() + delay_ns, frames))
        return True

    def arrived(self) -> list[list[bytes]]:
        now_ns = self.clock.now_ns()
        here = sorted((f for f in self._flying if f[0] <= now_ns), key=lambda f: f[0])
        self._flying = [f for f in self._flying if f[0] > now_ns]
        return [frames for _, frames in here]


class World:
    """One robot and one learner; either can be killed and started again at any time."""

    def __init__(self, folder: Path, seed: int = 0, link: LinkConfig = LINK, spool: SpoolConfig = SPOOL) -> None:
        self.folder, self.link, self.spool_config = folder, link, spool
        self.rng = random.Random(seed)
        # Not zero: a time of zero must not be taken for "never".
        self.clock = ManualClock(5 * NS_PER_S)
        self.up, self.down = Wire(self.clock, self.rng), Wire(self.clock, self.rng)
        self.boots = 0
        self.produced: dict[str, int] = {}
        self.contract = a_contract()
        self.run = "run"
        self.start_robot(new_boot=True)
        self.start_learner()

    def start_robot(self, new_boot: bool = False) -> None:
        self.boots += new_boot
        self.boot = f"boot{self.boots}"
        self.spool = Spool(self.folder / "spool.db", self.spool_config, ballast_bytes=4096)
        self.spool.open()
        self.spool.begin_boot(self.boot, self.contract)
        self.produced.setdefault(self.boot, 0)
        self.robot_policies = BundleStore(self.folder / "robot-policies")
        self.outbox = Outbox(self.spool, self.boot, self.link)
        self.fetch = PolicyFetch(self.robot_policies, 1_000_000, self.link)
        card = RobotCard("arm0", self.boot, self.contract, {"robotsac": "test"})
        self.robot = RobotEnd(card, self.link, self.outbox, self.fetch, self.up, self.clock)
        self.robot.progress(self.produced[self.boot] - 1, 0, 0)

    def kill_robot(self, new_boot: bool = False) -> None:
        """SIGKILL: what is only in memory is gone."""
        self.spool.close()
        self.start_robot(new_boot)

    def start_learner(self) -> None:
        self.replay = ReplayLog(self.folder / f"{self.run}.db")
        self.replay.open()
        self.policies = BundleStore(self.folder / "policies")
        self.learner = LearnerEnd(self.replay, self.link, self.run, PolicyShelf(self.policies), self.down, self.clock)

    def kill_learner(self) -> None:
        """SIGKILL: what is staged is gone."""
        self.replay.close()
        self.start_learner()

    def produce(self, count: int) -> None:
        """The actor's records reach the spool."""
        first = self.produced[self.boot]
        if count:
            self.spool.append(self.boot, some_records(first, count))
            self.produced[self.boot] = first + count
        self.robot.progress(first + count - 1, 0, 0)

    def step(self, dt_ms: float = 10.0, commit: bool = True) -> None:
        """Both sides do one round, then time passes."""
        for frames in self.up.arrived():
            self.learner.receive(b"peer", frames)
        if commit:
            self.learner.commit()
        self.learner.poll()
        for frames in self.down.arrived():
            self.robot.receive(frames)
        self.robot.poll()
        self.clock.advance(int(dt_ms * MS))

    def run_for(self, seconds: float, dt_ms: float = 10.0) -> None:
        """Let simulated time pass."""
        for _ in range(int(seconds * 1000 / dt_ms)):
            self.step(dt_ms)

    def stored(self) -> dict[str, list[int]]:
        """What is in the replay log: seq numbers per boot, in order of storage."""
        seqs: dict[str, list[int]] = {}
        for batch in self.replay.read_after(0, 1_000_000):
            assert (batch.records["obs"][:, 0] == batch.records["seq"]).all(), "a record is not what was written"
            seqs.setdefault(batch.boot, []).extend(batch.records["seq"].tolist())
        return seqs

    def close(self) -> None:
        self.spool.close()
        self.replay.close()
