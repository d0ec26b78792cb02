"""The actor process: environment, guard and policy at a fixed rate.

It touches neither disk nor network: records go into a shared-memory ring, policies come from a folder that a thread of
its own watches, and what it is told to do is an integer in a shared block. However it ends, it ends with torque off.
"""

from __future__ import annotations

import os
import shlex
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from robotsac.actor.board import ACTOR_FIELDS, Phase, Stop
from robotsac.actor.episodes import EpisodeRunner, EpisodeSummary
from robotsac.actor.realtime import collect_garbage, freeze_garbage, make_realtime
from robotsac.actor.uplink_block import LIMIT_NONE, UPLINK_FIELDS, LinkPhase
from robotsac.child_error import write_child_error
from robotsac.clock import NS_PER_S
from robotsac.config import Config
from robotsac.env.arm_env import ArmEnv
from robotsac.errors import GuardFault, LinkError, RobotsacError, StorageError
from robotsac.guard import GuardState
from robotsac.policy.slot import PolicySlot
from robotsac.policy.store import BundleStore
from robotsac.process import starter
from robotsac.records import EpisodeEnd, record_dtype
from robotsac.shared import RecordRing, SharedBlock
from robotsac.signals import obey_supervisor

RECENT_EPISODES = 50
# Share of the newest step in the mean period that the rate is made of.
RATE_SMOOTHING = 0.05
ERROR_FILE = "actor-error.json"
# Deadline misses within so many seconds before collection gives up: one is a hiccup, many are a broken set-up.
DEADLINE_FAULTS_MAX = 20
DEADLINE_WINDOW_S = 600.0


@dataclass(frozen=True)
class ActorArgs:
    """What the supervisor hands over. ``steps`` 0 means until stopped; ``offline`` does not wait for a learner."""

    config: Config
    folder: Path
    seed: int
    steps: int
    offline: bool
    ring_name: str
    board_name: str
    uplink_board_name: str


def actor_main(args: ActorArgs) -> None:
    """Entry point of the process. Leaves its error file behind when something went wrong."""
    board = SharedBlock.attach(args.board_name, ACTOR_FIELDS)
    obey_supervisor(lambda: board.__setitem__("stop", Stop.NOW))
    actor = Actor(args, board)
    try:
        actor.run()
    except RobotsacError as error:
        write_child_error(args.folder / ERROR_FILE, error)
        raise SystemExit(error.exit_code) from None


class StepRate:
    """Steps per second within episodes, smoothed; known from the first step on. The way to the next start does not count."""

    def __init__(self) -> None:
        self._last_ns = 0
        self._period_ns = 0.0

    def begin(self, now_ns: int) -> None:
        """An episode begins at ``now_ns``, the arm's time."""
        self._last_ns = now_ns

    def step(self, now_ns: int) -> float:
        """A step is done at ``now_ns``, the arm's time. Returns the rate, Hz."""
        share = RATE_SMOOTHING if self._period_ns else 1.0
        self._period_ns += share * (now_ns - self._last_ns - self._period_ns)
        self._last_ns = now_ns
        return NS_PER_S / self._period_ns if self._period_ns else 0.0


class Actor:
    """One run of the process; see module docstring."""

    def __init__(self, args: ActorArgs, board: SharedBlock) -> None:
        self._args = args
        self._board = board
        self._uplink = SharedBlock.attach(args.uplink_board_name, UPLINK_FIELDS)
        self._parent = starter()
        self._recent: deque[bool] = deque(maxlen=RECENT_EPISODES)
        self._deadline_faults: deque[float] = deque()

    def run(self) -> None:
        """Connect, wait for the learner, move, stop. Raises what the supervisor must show."""
        args, board = self._args, self._board
        env = ArmEnv(args.config, args.folder / "faults")
        contract = env.contract
        ring = RecordRing.attach(args.ring_name, record_dtype(contract.obs_dim, contract.act_dim))
        store, refusals = BundleStore(args.folder / "policies"), args.folder / "policy-refused.txt"
        slot = PolicySlot(store, contract, args.config.policy, refusals)
        hold = args.config.collect
        runner = EpisodeRunner(
            env,
            slot,
            ring.push,
            seed=args.seed,
            random_hold_s=hold.random_hold_s,
            noise_hold_s=hold.noise_hold_s,
        )
        try:
            self._enter(Phase.CONNECTING)
            env.arm.connect()
            self._wait_for_learner()
            slot.start()
            self._make_realtime(env)
            self._enter(Phase.ENERGIZING)
            if not self._stopping():
                board["energized"] = 1
                env.start()
                self._collect(env, runner, slot)
        finally:
            if board["stop"] != Stop.NOW and env.guard.state in (GuardState.HOLD, GuardState.ACTIVE):
                self._enter(Phase.PARKING)
                env.guard.park(self._stopping_now)
            self._enter(Phase.STOPPING)
            env.close()
            board["torque_off"] = int(env.arm.torque_is_off())
            self._enter(Phase.ENDED)
            # Last: it waits for a thread, and a bus that waits trips the servos' watchdog.
            slot.stop()
        env.guard.require_off()

    def _collect(self, env: ArmEnv, runner: EpisodeRunner, slot: PolicySlot) -> None:
        board = self._board
        board["moving_since_ns"] = board["beat_ns"] = time.monotonic_ns()
        rate, clock = StepRate(), env.arm.clock

        def on_begin() -> None:
            self._enter(Phase.MOVING)
            rate.begin(clock.now_ns())

        def on_step() -> None:
            board["steps"] += 1
            board["rate_millihz"] = int(1000 * rate.step(clock.now_ns()))
            policy = slot.current
            if policy is not None and board["policy_version"] != policy.version:
                board["policy_version"] = policy.version
                board["policy_since_ns"] = time.monotonic_ns()
            board["beat_ns"] = time.monotonic_ns()

        while not self._stopping() and not self._done():
            self._wait_for_credit(env, runner)
            if self._stopping():
                break
            self._enter(Phase.HOMING)
            try:
                summary = runner.run(self._stopping, on_step, on_begin=on_begin)
            except GuardFault as fault:
                self._weigh(fault)
                continue
            self._note(env, runner, slot, summary)
            if runner.overflowed:
                raise StorageError(
                    "collection stopped: the uplink no longer takes records",
                    reason="the shared-memory ring is full; every record in it is kept and stored by the uplink",
                    command=f"df -h {shlex.quote(str(self._args.folder))}",
                )
            collect_garbage()

    def _note(self, env: ArmEnv, runner: EpisodeRunner, slot: PolicySlot, summary: EpisodeSummary) -> None:
        board, counters = self._board, env.guard.counters
        if summary.end in (EpisodeEnd.SUCCESS, EpisodeEnd.FAILURE, EpisodeEnd.TIME_LIMIT):
            self._recent.append(summary.end is EpisodeEnd.SUCCESS)
        board["episodes"] = runner.episode
        board["recent_successes"] = sum(self._recent)
        board["recent_episodes"] = len(self._recent)
        board["reward_milli"] = int(summary.total_reward * 1000)
        board["overruns"] = counters.overruns
        board["lost_rounds"] = counters.lost_rounds
        board["faults"] = counters.faults
        board["policy_rejected"] = slot.counters.rejected
        if env.last_tick is not None:
            board["latency_us"] = int(runner.latency_us)
        self._uplink["policy_accepted"] = board["policy_version"]
        self._uplink["policy_rejected"] = slot.counters.rejected
        if summary.fault is not None:
            self._weigh(summary.fault)

    def _weigh(self, fault: GuardFault) -> None:
        """A latched fault ends collection; missed deadlines are forgiven while they are rare."""
        now_s, faults = time.monotonic(), self._deadline_faults
        faults.append(now_s)
        while now_s - faults[0] > DEADLINE_WINDOW_S:
            faults.popleft()
        if fault.latched or len(faults) > DEADLINE_FAULTS_MAX:
            raise fault

    def _wait_for_learner(self) -> None:
        """Torque off: wait until the link is up, or refused, or the deadline passes."""
        self._enter(Phase.WAITING_FOR_LEARNER)
        wait_s = self._args.config.collect.wait_for_learner_s
        deadline_ns = time.monotonic_ns() + int(wait_s * NS_PER_S)
        while not self._may_begin(self._uplink["link_state"]):
            self._check_uplink()
            if self._stopping():
                return
            if time.monotonic_ns() > deadline_ns:
                raise self._no_learner()
            time.sleep(0.02)

    def _may_begin(self, link_state: int) -> bool:
        """Offline, all that is waited for is the spool, whatever has become of a learner since it is open."""
        return link_state != LinkPhase.STARTING if self._args.offline else link_state == LinkPhase.UP

    def _no_learner(self) -> LinkError:
        config = self._args.config
        return LinkError(
            f"no learner answered at {config.link.address} within {config.collect.wait_for_learner_s:g} s",
            reason="nothing listens there, or it is another program; collect --offline records without one",
            command=config.link.learn_command(),
        )

    def _wait_for_credit(self, env: ArmEnv, runner: EpisodeRunner) -> None:
        """Hold the arm while the learner is too far behind, and stop when too much waits for an absent one.

        Without a learner an arm in real time goes on, since its time is what costs; one in its own time waits, since it
        would run away with an old policy. An offline run's first episode waits for nobody on an arm in real time.
        """
        guard, clock = env.guard, env.arm.clock
        if self._args.offline and clock.free_running and runner.episode == 0:
            return
        deadline_ns = time.monotonic_ns() + int(self._args.config.collect.wait_for_learner_s * NS_PER_S)
        while not self._stopping():
            self._check_uplink()
            if self._uplink["link_state"] == LinkPhase.UP:
                limit = self._uplink["limit_seq"]
                if limit == LIMIT_NONE or runner.seq <= limit:
                    return
                deadline_ns = time.monotonic_ns() + int(self._args.config.collect.wait_for_learner_s * NS_PER_S)
            elif clock.free_running or self._args.offline:
                return
            elif time.monotonic_ns() > deadline_ns:
                raise self._no_learner()
            self._enter(Phase.HOLDING)
            if clock.free_running:
                guard.hold()
                guard.idle()
            else:
                clock.idle()

    def _check_uplink(self) -> None:
        """Raise what makes going on pointless."""
        if self._uplink["error"]:
            words = self._args.folder / "uplink-status.json"
            raise StorageError(
                "collection stopped by the uplink",
                reason="its words are in its status file",
                command=f"cat {shlex.quote(str(words))}",
            )
        limit = self._args.config.collect.offline_records_max
        if self._uplink["link_state"] != LinkPhase.UP and self._uplink["unsent"] > limit:
            raise LinkError(
                f"collection stopped: {self._uplink['unsent']} records wait for a learner, the limit is {limit}",
                reason="no learner has answered for a long time; the records are safe in the spool",
                command=self._args.config.link.learn_command(),
            )

    def _make_realtime(self, env: ArmEnv) -> None:
        if env.arm.clock.free_running:
            refused = make_realtime(self._args.config.collect.realtime_priority)
            if refused:
                (self._args.folder / "realtime.txt").write_text("not permitted: " + ", ".join(refused) + "\n")
        else:
            freeze_garbage()

    def _done(self) -> bool:
        return 0 < self._args.steps <= self._board["steps"]

    def _stopping(self) -> bool:
        """Asked at every control tick, whatever the arm does: the sign of life too."""
        self._board["beat_ns"] = time.monotonic_ns()
        return self._board["stop"] != Stop.NO or os.getppid() != self._parent

    def _stopping_now(self) -> bool:
        """While parking: whether even that must end, with torque off where the arm is."""
        self._board["beat_ns"] = time.monotonic_ns()
        return self._board["stop"] == Stop.NOW

    def _enter(self, phase: Phase) -> None:
        self._board["phase"] = phase
