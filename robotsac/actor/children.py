"""The collector's two child processes, actor and uplink, and the memory they share."""

from __future__ import annotations

import multiprocessing
import secrets
import shlex
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from robotsac.actor.actor import ERROR_FILE, ActorArgs, actor_main
from robotsac.actor.board import ACTOR_FIELDS, Phase, Stop
from robotsac.actor.uplink import uplink_main
from robotsac.actor.uplink_block import UPLINK_FIELDS, UplinkArgs
from robotsac.child_error import read_child_error
from robotsac.config import Config
from robotsac.contract import Contract
from robotsac.errors import AGAIN, ArmError, RobotsacError
from robotsac.records import record_dtype
from robotsac.shared import RecordRing, SharedBlock
from robotsac.signals import signals_held

POLL_S = 0.05
# Parking may take a long move; after that the actor is ended, and the servos' watchdog is what is left.
STOP_PATIENCE_S = 20.0
KILL_PATIENCE_S = 3.0
UPLINK_PATIENCE_S = 15.0
UPLINK_STARTS_MAX = 4


class Children:
    """Makes the shared memory, starts the processes, ends them in order: the arm first, then what records it.

    Args:
        config: resolved.
        folder: run folder.
        contract: of robot and task.
        seed: of exploration noise.
        steps: to collect; 0 = until told to stop.
        offline: do not wait for a learner.
    """

    def __init__(
        self, config: Config, folder: Path, contract: Contract, *, seed: int, steps: int, offline: bool
    ) -> None:
        self._config = config
        self._folder = folder
        self._contract = contract
        self._spawn = multiprocessing.get_context("spawn")
        self._boot = secrets.token_hex(8)
        dtype = record_dtype(contract.obs_dim, contract.act_dim)
        self._ring = RecordRing.create(dtype, config.collect.ring_records)
        self.actor_board = SharedBlock.create(ACTOR_FIELDS)
        self.uplink_board = SharedBlock.create(UPLINK_FIELDS)
        self._actor_args = ActorArgs(
            config=config,
            folder=folder,
            seed=seed,
            steps=steps,
            offline=offline,
            ring_name=self._ring.name,
            board_name=self.actor_board.name,
            uplink_board_name=self.uplink_board.name,
        )
        self._actor: BaseProcess | None = None
        self._uplink: BaseProcess | None = None
        self.uplink_starts = 0

    def start_actor(self) -> None:
        """It connects to the arm, torque off, and then waits for the uplink."""
        self._actor = self._spawn.Process(target=actor_main, args=(self._actor_args,), name="actor")
        with signals_held():
            self._actor.start()

    def actor_runs(self, wait_s: float = 0.0) -> bool:
        """Whether the actor is alive after at most ``wait_s``."""
        if self._actor is None:
            return False
        self._actor.join(wait_s)
        return self._actor.is_alive()

    def start_uplink_when_connected(self) -> None:
        """Once there is an arm to speak for; nobody is bothered about an arm that is not there."""
        connected = Phase.WAITING_FOR_LEARNER <= self.actor_board["phase"] <= Phase.HOLDING
        if self._uplink is None and connected:
            self._start_uplink()

    def uplink_died(self) -> bool:
        """Whether the uplink was started and is no longer there."""
        return self._uplink is not None and not self._uplink.is_alive()

    def restart_uplink(self) -> bool:
        """Start it again: what it had not stored is still in the ring. False when that was tried often enough, or
        when it ended because it could not go on."""
        if self.uplink_starts >= UPLINK_STARTS_MAX or self.uplink_board["error"]:
            return False
        self._start_uplink()
        return True

    def end_actor(self, while_waiting: Callable[[], None]) -> RobotsacError | None:
        """Ask it to park, wait, and in the end make it. Returns what it failed with."""
        actor = self._actor
        if actor is None:
            return None
        if self.actor_board["stop"] == Stop.NO:
            self.actor_board["stop"] = Stop.PARK
        deadline_s = time.monotonic() + STOP_PATIENCE_S
        while self.actor_runs(POLL_S) and time.monotonic() < deadline_s:
            while_waiting()
        _make_end(actor)
        if actor.exitcode == 0:
            return None
        return read_child_error(self._folder / ERROR_FILE) or ArmError(
            f"the actor process ended with exit code {actor.exitcode}",
            reason=self._torque_words(),
            # A folder that holds nothing yet is taken away again.
            command=f"ls -la {shlex.quote(str(self._folder))}" if self.uplink_starts else AGAIN,
        )

    def _torque_words(self) -> str:
        if self.actor_board["torque_off"]:
            return "torque was read back as off"
        if self.actor_board["phase"] < Phase.ENERGIZING:
            return "torque was never switched on"
        return "torque was not read back as off; treat the arm as powered until its watchdog or you have stopped it"

    def end_uplink(self) -> None:
        """Let it store and deliver what it can, and in the end make it go."""
        if self._uplink is not None:
            self.uplink_board["stop"] = 1
            self._uplink.join(UPLINK_PATIENCE_S)
            _make_end(self._uplink)

    def release(self) -> None:
        """Give the shared memory back."""
        for part in (self._ring, self.actor_board, self.uplink_board):
            part.close()
            part.unlink()

    def _start_uplink(self) -> None:
        config, folder = self._config, self._folder
        args = UplinkArgs(
            robot=config.robot.name,
            boot=self._boot,
            contract_json=self._contract.to_json(),
            link=config.link,
            spool=config.spool,
            spool_path=folder / "spool.db",
            policies=folder / "policies",
            ring_name=self._ring.name,
            ring_capacity=config.collect.ring_records,
            obs_dim=self._contract.obs_dim,
            act_dim=self._contract.act_dim,
            block_name=self.uplink_board.name,
            status_path=folder / "uplink-status.json",
            policy_size_max_bytes=config.policy.size_max_bytes,
        )
        self._uplink = self._spawn.Process(target=uplink_main, args=(args,), name="uplink")
        with signals_held():
            self._uplink.start()
        self.uplink_starts += 1


def _make_end(process: BaseProcess) -> None:
    for end in (process.terminate, process.kill):
        if process.is_alive():
            end()
            process.join(KILL_PATIENCE_S)
