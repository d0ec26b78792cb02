"""The collector's two child processes, actor and uplink, and the memory they share."""

from __future__ import annotations

import multiprocessing
import secrets
from collections.abc import Callable
from pathlib import Path

from robotsac.actor.actor import ActorArgs
from robotsac.actor.actor_child import ActorChild
from robotsac.actor.board import ACTOR_FIELDS, Phase
from robotsac.actor.uplink_block import UPLINK_FIELDS, UplinkArgs
from robotsac.actor.uplink_child import UplinkChild
from robotsac.config import Config
from robotsac.contract import Contract
from robotsac.errors import RobotsacError
from robotsac.records import record_dtype
from robotsac.shared import RecordRing, SharedBlock


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
        spawn = multiprocessing.get_context("spawn")
        self._ring = RecordRing.create(record_dtype(contract.obs_dim, contract.act_dim), config.collect.ring_records)
        self.actor_board = SharedBlock.create(ACTOR_FIELDS)
        self.uplink_board = SharedBlock.create(UPLINK_FIELDS)
        actor_args = ActorArgs(
            config=config,
            folder=folder,
            seed=seed,
            steps=steps,
            offline=offline,
            ring_name=self._ring.name,
            board_name=self.actor_board.name,
            uplink_board_name=self.uplink_board.name,
        )
        self.actor = ActorChild(spawn, actor_args, self.actor_board)
        uplink_args = self._uplink_args(config, folder, contract)
        self.uplink = UplinkChild(spawn, uplink_args, self.uplink_board, self._ring)

    def start_uplink_when_connected(self) -> None:
        """Once there is an arm to speak for; nobody is bothered about an arm that is not there."""
        connected = Phase.WAITING_FOR_LEARNER <= self.actor_board["phase"] <= Phase.HOLDING
        if not self.uplink.starts and connected:
            self.uplink.start()

    def end(self, while_waiting: Callable[[], None]) -> RobotsacError | None:
        """The arm first, then what records it. Returns what the actor failed with."""
        try:
            return self.actor.end(while_waiting)
        finally:
            self.uplink.end(while_waiting)

    def release(self) -> None:
        """Give the shared memory back."""
        for part in (self._ring, self.actor_board, self.uplink_board):
            part.close()
            part.unlink()

    def _uplink_args(self, config: Config, folder: Path, contract: Contract) -> UplinkArgs:
        return UplinkArgs(
            robot=config.robot.name,
            boot=secrets.token_hex(8),
            contract_json=contract.to_json(),
            link=config.link,
            spool=config.spool,
            spool_path=folder / "spool.db",
            policies=folder / "policies",
            ring_name=self._ring.name,
            ring_capacity=config.collect.ring_records,
            obs_dim=contract.obs_dim,
            act_dim=contract.act_dim,
            block_name=self.uplink_board.name,
            status_path=folder / "uplink-status.json",
            policy_size_max_bytes=config.policy.size_max_bytes,
        )
