"""The tree that every configuration file is read into.

Units are part of the key. Nothing is optional by accident: an unknown key is an error (see ``loading``). Driver and
simulator tables are opaque here: ``[robot.driver]`` belongs to the driver that it names, ``[robot.sim]`` to
``robotsac_sim``; both validate them with models of their own.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from robotsac.config.base import Finite, NotNegative, OpenTable, Positive, Table
from robotsac.config.learn import LearnConfig


class JointConfig(Table):
    """Limits and gains of one joint. Positions are soft limits; beyond ``hard_margin_rad`` more is a fault."""

    name: str
    q_min_rad: Finite
    q_max_rad: Finite
    hard_margin_rad: Positive = 0.12
    dq_max_rad_s: Positive
    tau_max_nm: Positive
    dtau_max_nm_s: Positive
    # Deceleration this joint can be trusted to reach against its largest inertia; sets the braking distance.
    ddq_brake_rad_s2: Positive
    # Gain of the one-sided velocity bound and of damping in a stop.
    damping_nm_s_rad: Positive
    hold_stiffness_nm_rad: Positive
    # Action 1.0 asks for this torque on top of gravity compensation and policy damping.
    action_scale_nm: Positive
    # Viscous damping that the guard adds under the policy, at bus rate. Without any, a policy at the control rate faces
    # a double integrator; with it, an action is close to a speed.
    policy_damping_nm_s_rad: NotNegative = 0.0
    temp_max_c: Positive = 70.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.q_min_rad >= self.q_max_rad:
            raise ValueError(f"q_min_rad {self.q_min_rad} must be below q_max_rad {self.q_max_rad}")
        if self.action_scale_nm > self.tau_max_nm:
            raise ValueError(f"action_scale_nm {self.action_scale_nm} must not exceed tau_max_nm {self.tau_max_nm}")
        return self


class DriverConfig(OpenTable):
    """``[robot.driver]``: the entry point in group ``robotsac.arms``, and its parameters."""

    name: str


class GuardConfig(Table):
    """``[robot.guard]``: how the guard counts, waits and stops."""

    gravity_compensation: bool = True
    # Failed bus rounds in a row before the arm is stopped.
    lost_rounds_max: Annotated[int, Field(ge=1, le=50)] = 5
    # Longest silence between two bus ticks before the arm is stopped.
    gap_max_ms: Positive = 50.0
    # After so long damping to rest is given up for torque off; a joint that has not come to rest by then never will.
    stop_timeout_s: Annotated[float, Field(gt=0, le=10)] = 1.5
    rest_dq_rad_s: Positive = 0.08
    # A velocity above dq_max by this factor is a fault.
    velocity_fault_factor: Annotated[float, Field(gt=1, le=5)] = 2.0
    # Kept in memory, about 2 kB a bus tick.
    flight_recorder_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    move_duration_s: Annotated[float, Field(gt=0, le=60)] = 1.5


class RobotConfig(Table):
    """``[robot]``: the arm, its driver, its limits."""

    # Its run folder has this name too.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=64)]
    driver: DriverConfig
    # MJCF file, relative to the file that names it.
    model: Path
    tip_site: str = "tip"
    bus_rate_hz: Annotated[int, Field(ge=1, le=2000)] = 250
    control_rate_hz: Annotated[int, Field(ge=1, le=1000)] = 50
    joints: Annotated[tuple[JointConfig, ...], Field(min_length=1)]
    home_rad: tuple[Finite, ...]
    park_rad: tuple[Finite, ...]
    guard: GuardConfig = GuardConfig()
    sim: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        n = len(self.joints)
        names = [joint.name for joint in self.joints]
        if len(set(names)) != n:
            raise ValueError(f"joint names must differ: {names}")
        if self.bus_rate_hz % self.control_rate_hz:
            raise ValueError(
                f"bus_rate_hz {self.bus_rate_hz} must be an integer multiple of control_rate_hz {self.control_rate_hz}"
            )
        for key, pose in (("home_rad", self.home_rad), ("park_rad", self.park_rad)):
            if len(pose) != n:
                raise ValueError(f"{key} has {len(pose)} values for {n} joints")
            for q, joint in zip(pose, self.joints, strict=True):
                if not joint.q_min_rad <= q <= joint.q_max_rad:
                    raise ValueError(
                        f"{key}: joint {joint.name} at {q} rad is outside [{joint.q_min_rad}, {joint.q_max_rad}] rad"
                    )
        return self

    def model_digest(self) -> str:
        """sha256 over what a policy must agree with: joints, limits, rates, gravity compensation and the MJCF's text.

        The driver is not part of it: a policy learned on the twin is meant to run on the arm.
        """
        shared = {
            "joints": [joint.model_dump() for joint in self.joints],
            "rates_hz": [self.bus_rate_hz, self.control_rate_hz],
            "gravity_compensation": self.guard.gravity_compensation,
            "tip_site": self.tip_site,
            "model": hashlib.sha256(self.model.read_bytes()).hexdigest(),
        }
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()


EndName = Literal["success", "failure", "time_limit", "fault"]
"""How an episode can end that another one can follow, as an ``EpisodeEnd`` in small letters."""


class TaskConfig(OpenTable):
    """``[task]``: the entry point in group ``robotsac.tasks``, what all tasks share, and the task's own parameters."""

    name: str = "reach"
    episode_s: Positive = 2.0
    # How many past applied actions the observation holds; covers the delay from state to torque.
    history_steps: Annotated[int, Field(ge=0, le=32)] = 2
    # An episode starts where the last one ended; every this many episodes the arm goes home first. 1 = always.
    home_every_episodes: Annotated[int, Field(ge=1)] = 10
    # And after episodes that ended so: [] for never, left out for what the task itself has; reach has time_limit, its misses.
    # On a real arm and the twin a way home takes robot.guard.move_duration_s at least, and is not counted as a step.
    home_after: tuple[EndName, ...] | None = None
    seed: int = 0


class PolicyConfig(Table):
    """``[policy]``: what a policy bundle must respect on the robot."""

    size_max_bytes: Annotated[int, Field(gt=0, le=1_000_000_000)] = 16_000_000
    latency_max_ms: Positive = 4.0
    golden_tolerance: Positive = 1e-4
    threads: Annotated[int, Field(ge=1)] = 1


class CollectConfig(Table):
    """``[collect]``: the robot side's processes."""

    # Records the actor may be ahead of the uplink before collection stops; shared memory, never blocks the loop. At most
    # 1.5 h at 50 Hz and 60 MB of arm0's: containers often have 64 MB of it.
    ring_records: Annotated[int, Field(ge=64, le=262_144)] = 8192
    # Records that may pile up on the robot while no learner answers; then collection stops in order.
    offline_records_max: Annotated[int, Field(ge=1)] = 180_000
    # Correlation time of the random actions used before the first policy arrives.
    random_hold_s: Positive = 0.2
    # How long a policy's exploration noise stays as it was drawn; 0 = anew at each step. White noise is hard on gears.
    noise_hold_s: NotNegative = 0.0
    realtime_priority: Annotated[int, Field(ge=0, le=90)] = 70
    wait_for_learner_s: Positive = 120.0


class SpoolConfig(Table):
    """``[spool]``: the durable store of records on the robot."""

    size_max_mb: Positive = 2000.0
    # Collection refuses to start, or stops in order, below this much free disk.
    free_min_mb: Positive = 64.0
    commit_ms: Positive = 20.0
    # Acknowledged records kept for inspection and for a learner that lost its disk.
    keep_acked_mb: NotNegative = 256.0


class LinkConfig(Table):
    """``[link]``: the ZeroMQ conversation."""

    address: str = "tcp://127.0.0.1:5757"
    batch_records: Annotated[int, Field(ge=1, le=1000)] = 32
    # A batch is sent when this old even if not full.
    batch_ms: Positive = 200.0
    window_batches: Annotated[int, Field(ge=1, le=1000)] = 16
    heartbeat_ms: Positive = 200.0
    dead_ms: Positive = 1000.0
    resend_ms: Positive = 1000.0
    message_max_bytes: Annotated[int, Field(gt=0, le=1_000_000_000)] = 32_000_000
    robots_max: Annotated[int, Field(ge=1, le=10_000)] = 64

    def learn_command(self, command: str = "robotsac learn") -> str:
        """The command that starts a learner where a robot of this table looks for one."""
        return command + self._unless_usual("--set link.address=")

    def collect_command(self, robot: str) -> str:
        """The command with which ``robot`` finds a learner of this table."""
        return f"robotsac collect --robot {shlex.quote(robot)}" + self._unless_usual("--learner ")

    def _unless_usual(self, option: str) -> str:
        usual = self.address == type(self).model_fields["address"].default
        return "" if usual else f" {option}{shlex.quote(self.address)}"


class Config(Table):
    """Everything, resolved."""

    robot: RobotConfig
    task: TaskConfig = TaskConfig()
    policy: PolicyConfig = PolicyConfig()
    collect: CollectConfig = CollectConfig()
    spool: SpoolConfig = SpoolConfig()
    link: LinkConfig = LinkConfig()
    learn: LearnConfig = LearnConfig()

    @model_validator(mode="after")
    def _horizon(self) -> Self:
        if wrong := self.learn.horizon_too_short(self.robot.control_rate_hz):
            raise ValueError(f"{wrong}: the discount would be 0 or below")
        return self

    def digest(self) -> str:
        """sha256 of the resolved tree."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class LearnerSettings(Table):
    """The part of the tree that the learner reads; it needs no robot file."""

    link: LinkConfig = LinkConfig()
    learn: LearnConfig = LearnConfig()


class GymSettings(LearnerSettings):
    """The part that ``train --sync`` reads for an environment that is no arm; of ``[collect]``, ``noise_hold_s`` counts."""

    collect: CollectConfig = CollectConfig()
