"""A real uplink process and a real ingest process on this host, which a test may kill, stop and start again."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from link_world import ACT_DIM, DTYPE, OBS_DIM, a_contract

from robotsac.actor.uplink import UPLINK_FIELDS, LinkPhase, UplinkArgs, uplink_main
from robotsac.config.schema import LearnerSettings, LinkConfig, SpoolConfig
from robotsac.learner.board import LEARNER_FIELDS
from robotsac.learner.ingest import IngestArgs, ingest_main
from robotsac.learner.replay_log import ReplayLog
from robotsac.records import Records
from robotsac.shared import RecordRing, SharedBlock

SPAWN = multiprocessing.get_context("spawn")
PATIENCE_S = 120
RING = 512


def a_record(seq: int) -> np.void:
    record = np.zeros(1, DTYPE)
    record["seq"], record["t_ns"], record["obs"] = seq, seq * 10, seq
    return record[0]


def until(what: Callable[[], Any], why: str = "") -> Any:
    """Wait until ``what()`` is true; gives it."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s {why}"
        time.sleep(0.01)
    return found


def read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def kill(process: BaseProcess, how: int = signal.SIGKILL) -> None:
    assert process.pid is not None
    os.kill(process.pid, how)
    if how == signal.SIGKILL:
        process.join(PATIENCE_S)


class Learner:
    """Run folder, board and ingest process."""

    def __init__(self, folder: Path, link: LinkConfig | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.board = SharedBlock.create(LEARNER_FIELDS)
        if link is None:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
            link = LinkConfig(address=address, batch_records=8, message_max_bytes=100_000, resend_ms=500)
        self.link = link
        self.start()

    def start(self) -> None:
        args = IngestArgs(LearnerSettings(link=self.link), self.folder, "run-1", self.board.name)
        self.process = SPAWN.Process(target=ingest_main, args=(args,))
        self.process.start()

    def restart(self) -> None:
        kill(self.process)
        self.start()

    def status(self) -> dict[str, Any]:
        return read_json(self.folder / "ingest-status.json")

    def robot(self, name: str) -> dict[str, Any]:
        """What the status file shows of a robot; empty before it is known."""
        return dict(self.status().get("robots", {}).get(name, {}))

    def stored(self) -> dict[tuple[str, str], list[int]]:
        """Numbers in the replay log per (robot, boot), in order of storage."""
        found: dict[tuple[str, str], list[int]] = {}
        with ReplayLog(self.folder / "replay.db", read_only=True) as log:
            for batch in log.read_after(0, 1_000_000):
                assert (batch.records["obs"] == batch.records["seq"][:, None]).all()
                found.setdefault((batch.robot, batch.boot), []).extend(batch.records["seq"].tolist())
        return found

    def close(self) -> None:
        if self.process.is_alive():
            kill(self.process, signal.SIGCONT)
            self.process.terminate()
            self.process.join(PATIENCE_S)
        self.board.close()
        self.board.unlink()


class Robot:
    """Ring, block and uplink process; the test is the actor."""

    def __init__(
        self,
        folder: Path,
        link: LinkConfig,
        name: str = "arm0",
        boot: str = "boot1",
        task: str = "reach",
        spool: SpoolConfig | None = None,
        status: Path | None = None,
        store_deadline_s: float = 10.0,
        deliver_deadline_s: float = 60.0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name, self.boot = folder, name, boot
        self.ring = RecordRing.create(DTYPE, RING)
        self.block = SharedBlock.create(UPLINK_FIELDS)
        self.pushed = 0
        self.args = UplinkArgs(
            robot=name,
            boot=boot,
            contract_json=a_contract(task).to_json(),
            link=link,
            spool=spool or SpoolConfig(free_min_mb=0.001),
            spool_path=folder / "spool.db",
            policies=folder / "policies",
            ring_name=self.ring.name,
            ring_capacity=RING,
            obs_dim=OBS_DIM,
            act_dim=ACT_DIM,
            block_name=self.block.name,
            status_path=(status or folder) / "uplink-status.json",
            store_deadline_s=store_deadline_s,
            deliver_deadline_s=deliver_deadline_s,
        )
        self.start()

    def start(self) -> None:
        self.process = SPAWN.Process(target=uplink_main, args=(self.args,))
        self.process.start()

    def restart(self) -> None:
        kill(self.process)
        self.start()

    def push(self, count: int) -> None:
        """Records enter the ring; waits while it is full."""
        for seq in range(self.pushed, self.pushed + count):
            record = a_record(seq)
            until(lambda record=record: self.ring.push(record), "for room in the ring")
        self.pushed += count

    def phase(self) -> LinkPhase:
        return LinkPhase(self.block["link_state"])

    def until_up(self) -> None:
        until(lambda: self.phase() is LinkPhase.UP, "for the link")

    def until_delivered(self) -> None:
        until(lambda: self.block["durable_seq"] == self.pushed - 1, "for the learner to have everything")

    def stop(self) -> int | None:
        """Let it end in order. Gives the exit code."""
        self.block["stop"] = 1
        self.process.join(PATIENCE_S)
        return self.process.exitcode

    def status(self) -> dict[str, Any]:
        return read_json(self.args.status_path)

    def spooled(self) -> Records:
        """What is in the spool's file, read from outside."""
        with closing(sqlite3.connect(self.folder / "spool.db")) as connection:
            rows = connection.execute("SELECT record FROM records ORDER BY boot, seq").fetchall()
        return np.frombuffer(b"".join(row[0] for row in rows), DTYPE)

    def counts(self) -> tuple[int, int, int]:
        """committed, acked, pruned of this boot, from the spool's file."""
        with closing(sqlite3.connect(self.folder / "spool.db")) as connection:
            row = connection.execute(
                "SELECT committed, acked, pruned FROM boots WHERE boot = ?", (self.boot,)
            ).fetchone()
        return (int(row[0]), int(row[1]), int(row[2]))

    def close(self) -> None:
        if self.process.is_alive():
            kill(self.process)
        for part in (self.ring, self.block):
            part.close()
            part.unlink()
