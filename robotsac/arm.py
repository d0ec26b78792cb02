"""The arm port: what a driver implements. Read this file first.

An ``Arm`` is one bus round out and one joint state back. It holds no opinion about limits: a driver raises, the guard
decides. Units are SI (rad, rad/s, N·m, V, °C); arrays are float64 of shape (n,) in config joint order; positive is the
positive direction of the MJCF joint axis. Counts, registers and bytes never leave a driver.

    DISCONNECTED ──connect()──► IDLE ──energize()──► ENERGIZED ──stop()──► IDLE ──close()──► DISCONNECTED
"""

from __future__ import annotations

import difflib
import enum
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import NewType, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from robotsac.clock import Clock
from robotsac.config.schema import RobotConfig
from robotsac.errors import ROBOT_FILE, ConfigError, DriverUnavailable

Vector = NDArray[np.float64]

LimitedTorque = NewType("LimitedTorque", Vector)
"""Joint torques (n,), N·m, that the guard has admitted. Only ``robotsac.guard`` constructs one; a test keeps it so."""


class ArmState(enum.Enum):
    """Lifecycle of an arm."""

    DISCONNECTED = "disconnected"
    IDLE = "idle"
    ENERGIZED = "energized"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSpec:
    """What is fixed about an arm. Arrays are (n,) and read-only.

    Attributes:
        q_min, q_max: soft position limits, rad. The hard limits lie ``hard_margin`` beyond.
        dq_max: rad/s.  tau_max: N·m.  dtau_max: N·m/s.  ddq_brake: rad/s².  temp_max: °C.
        damping: N·m·s/rad, gain of the velocity bound and of a stop.
        hold_stiffness: N·m/rad.
        action_scale: N·m for an action of 1.
        policy_damping: N·m·s/rad, added under the policy.
        bus_rate_hz: bus rounds per second; control_rate_hz divides it.
        model_digest: sha256 of everything a policy must agree with.
    """

    name: str
    joint_names: tuple[str, ...]
    q_min: Vector
    q_max: Vector
    hard_margin: Vector
    dq_max: Vector
    tau_max: Vector
    dtau_max: Vector
    ddq_brake: Vector
    damping: Vector
    hold_stiffness: Vector
    action_scale: Vector
    policy_damping: Vector
    temp_max: Vector
    home: Vector
    park: Vector
    bus_rate_hz: int
    control_rate_hz: int
    model_digest: str
    serial_numbers: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Number of joints."""
        return len(self.joint_names)

    @classmethod
    def from_config(cls, robot: RobotConfig) -> ArmSpec:
        """The spec that a resolved config describes."""

        def column(key: str) -> Vector:
            return _frozen([getattr(joint, key) for joint in robot.joints])

        return cls(
            name=robot.name,
            joint_names=tuple(joint.name for joint in robot.joints),
            q_min=column("q_min_rad"),
            q_max=column("q_max_rad"),
            hard_margin=column("hard_margin_rad"),
            dq_max=column("dq_max_rad_s"),
            tau_max=column("tau_max_nm"),
            dtau_max=column("dtau_max_nm_s"),
            ddq_brake=column("ddq_brake_rad_s2"),
            damping=column("damping_nm_s_rad"),
            hold_stiffness=column("hold_stiffness_nm_rad"),
            action_scale=column("action_scale_nm"),
            policy_damping=column("policy_damping_nm_s_rad"),
            temp_max=column("temp_max_c"),
            home=_frozen(robot.home_rad),
            park=_frozen(robot.park_rad),
            bus_rate_hz=robot.bus_rate_hz,
            control_rate_hz=robot.control_rate_hz,
            model_digest=robot.model_digest(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JointState:
    """What one bus round brought back. Arrays are fresh for each state and never written again.

    Attributes:
        t_ns: arm clock when the reply was complete.
        seq: number of the bus round since ``connect``; strictly increasing.
        q, dq: rad, rad/s (dq differentiated from position).
        tau: measured torque, N·m.
        tau_cmd: torque the joints were told in this very round, after the driver's quantisation, N·m.
        temp_c, volt_v: °C, V; may be refreshed at a lower rate.
        fresh: False where this joint's values are older than this round.
        faults: device fault bits, uint16, 0 = none.
    """

    t_ns: int
    seq: int
    q: Vector
    dq: Vector
    tau: Vector
    tau_cmd: Vector
    temp_c: Vector
    volt_v: Vector
    fresh: NDArray[np.bool_]
    faults: NDArray[np.uint16]


class Arm(Protocol):
    """One arm, driven by one owner.

    Every method except ``stop`` and ``close`` raises ``ArmStateError`` outside the states named for it.
    """

    spec: ArmSpec
    clock: Clock

    @property
    def state(self) -> ArmState:
        """Where in the lifecycle the arm is."""
        ...

    def connect(self) -> None:
        """DISCONNECTED → IDLE: open, identify every joint, write and read back its configuration; torque stays off.

        Raises:
            DriverUnavailable: the port is not there or is in use.
            ArmSetupError: a joint is missing, is another model, or did not keep a value.
            BusError: the bus failed.
        """
        ...

    def energize(self) -> None:
        """IDLE → ENERGIZED: zero goal read back, pose inside limits and at rest, torque on and watchdog armed, both
        read back. Until the first ``exchange`` the torque is zero.

        Raises:
            ArmSetupError: pose outside the hard limits, moving, or a read-back that differs.
            JointFault: a joint reports a fault.
            BusError: the bus failed.
        """
        ...

    def exchange(self, torque: LimitedTorque) -> JointState:
        """ENERGIZED: one bus round: write torques, return the newest state before a deadline.

        Raises:
            BusTimeout, BusCorrupt, BusLost: this round brought no trustworthy state.
            JointFault: a joint reports a fault of its own, or has stopped listening.
        """
        ...

    def read(self) -> JointState:
        """IDLE: look, do not touch. Raises as ``exchange``."""
        ...

    def stop(self) -> None:
        """Any state: torque off, read back where the bus allows. Idempotent; never raises."""
        ...

    def close(self) -> None:
        """Any state → DISCONNECTED, through ``stop``. Idempotent; never raises."""
        ...

    def torque_is_off(self) -> bool:
        """Whether every joint was read back with torque off since the last ``stop``. Never raises."""
        ...


@runtime_checkable
class PlaceableArm(Protocol):
    """An arm whose world can put it somewhere: simulations. Resets use it instead of moving there."""

    def place(self, q: Vector) -> JointState:
        """ENERGIZED: the arm is at ``q`` (n,), rad, at rest, with nothing remembered from before."""
        ...


def open_arm(robot: RobotConfig) -> Arm:
    """Load the driver that ``[robot.driver]`` names and build its arm. Opens no port; ``connect`` does.

    Raises:
        ConfigError: no such driver, or its parameters are wrong.
        DriverUnavailable: the driver's extra is not installed.
    """
    group = {point.name: point for point in entry_points(group="robotsac.arms")}
    name = robot.driver.name
    if name not in group:
        known = ", ".join(sorted(group)) or "none"
        nearest = difflib.get_close_matches(name, group, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ConfigError(
            f"robot.driver.name: there is no driver {name!r}{hint}",
            reason=f"installed drivers: {known}",
            command=ROBOT_FILE if nearest else "pip install 'robotsac[robot]'",
        )
    try:
        factory = group[name].load()
    except ImportError as error:
        extra = "sim" if group[name].value.startswith("robotsac_sim") else "robot"
        raise DriverUnavailable(
            f"driver {name!r} cannot be loaded",
            reason=str(error),
            command=f"pip install 'robotsac[{extra}]'",
        ) from error
    arm: Arm = factory(robot)
    return arm


def _frozen(values: object) -> Vector:
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False
    return array
