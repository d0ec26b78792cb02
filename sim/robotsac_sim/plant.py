"""The plant: an arm's MJCF in MuJoCo, driven by joint torque, with motors that saturate.

Torque is applied to the named joints directly, so any MJCF arm will do; actuators that the file may define stay at zero.
Friction and armature are the file's. MuJoCo's automatic reset is off: a state that diverges is an error here, never a
silent jump back to the start.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from robotsac.config.loading import validate
from robotsac.config.schema import RobotConfig
from robotsac.dynamics import joint_indices, load_model
from robotsac.errors import ArmError, ConfigError
from robotsac.quiet_mujoco import mujoco
from robotsac_sim.motors import MOTORS, MotorBank

Vector = NDArray[np.float64]
NS_PER_US = 1000
# The motors' voltage limit is looked at anew at least this often.
SATURATION_PERIOD_NS = 4_000_000
# Long enough for an arm to fall from its park pose onto its stops and come to rest.
SETTLE_NS = 5_000_000_000
# Four orders of magnitude above what the motors can do to the lightest link.
DIVERGED_RAD_S2 = 1e8


class SimServo(BaseModel):
    """``[[robot.sim.servos]]``: the servo that really drives a joint in the simulated world."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str


class SimTable(BaseModel):
    """The part of ``[robot.sim]`` that concerns the plant; further keys belong to the twin."""

    model_config = ConfigDict(extra="allow", frozen=True)

    timestep_us: int = Field(default=1000, ge=50, le=10_000)
    supply_v: float = Field(default=12.0, gt=0)
    servos: tuple[SimServo, ...] = ()


class Plant:
    """One arm in its own world.

    Args:
        model: MJCF file.
        joint_names: driven joints, in config order.
        timestep_ns: physics step.
        motors: saturation of the joints' motors; ``None`` for ideal torque sources.
        start: joint positions (n,), rad, at time zero.

    Raises:
        ConfigError: the model does not load or lacks a joint.
    """

    def __init__(
        self,
        model: Path,
        joint_names: tuple[str, ...],
        *,
        timestep_ns: int,
        motors: MotorBank | None,
        start: Vector,
    ) -> None:
        self._model = load_model(model)
        self._model.opt.timestep = timestep_ns * 1e-9
        self._model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self._data = mujoco.MjData(self._model)
        self._q_index, self._dof = joint_indices(self._model, joint_names, model)
        self._timestep_ns = timestep_ns
        self._motors = motors
        self._command = np.zeros(len(joint_names))
        self._delivered = np.zeros(len(joint_names))
        self.t_ns = 0
        self.place(start)

    @property
    def q(self) -> Vector:
        """Joint positions (n,), rad."""
        return np.array(self._data.qpos[self._q_index])

    @property
    def dq(self) -> Vector:
        """Joint velocities (n,), rad/s."""
        return np.array(self._data.qvel[self._dof])

    @property
    def tau(self) -> Vector:
        """Torque the motors delivered in the last physics step (n,), N·m."""
        return self._delivered.copy()

    @property
    def current(self) -> Vector:
        """Phase current (n,), A; with ideal torque sources, 1 A per N·m."""
        return self._delivered / self._motors.torque_constant if self._motors is not None else self._delivered.copy()

    def set_torque(self, tau: Vector) -> None:
        """Ask the motors for ``tau`` (n,), N·m, from now on. Not finite is refused: MuJoCo would swallow it.

        Raises:
            ArmError: a value is not finite.
        """
        if not np.isfinite(tau).all():
            raise ArmError(f"the plant was asked for torque {tau} N·m", reason="a value is not finite")
        self._command[:] = tau

    def advance_to(self, t_ns: int) -> None:
        """Let physics run up to ``t_ns``: whole steps, the rest waits for the next call.

        Raises:
            ArmError: the simulation diverged.
        """
        while (steps := (t_ns - self.t_ns) // self._timestep_ns) > 0:
            steps = min(int(steps), max(1, SATURATION_PERIOD_NS // self._timestep_ns))
            if self._motors is not None:
                self._delivered = self._motors.deliver(self._command, self._data.qvel[self._dof])
            else:
                self._delivered = self._command.copy()
            self._data.qfrc_applied[self._dof] = self._delivered
            mujoco.mj_step(self._model, self._data, nstep=steps)
            self.t_ns += steps * self._timestep_ns
        self._check()

    def place(self, q: Vector) -> None:
        """The arm is at ``q`` (n,), rad, at rest, with no torque; nothing is remembered but the time."""
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[self._q_index] = q
        self._command[:] = 0.0
        self._delivered[:] = 0.0
        mujoco.mj_forward(self._model, self._data)

    def settle(self) -> None:
        """Fall to where the arm lies without torque, and call that time zero."""
        self.place(self.q)
        self.advance_to(self.t_ns + SETTLE_NS)
        self.place(self.q)
        self.t_ns = 0

    def _check(self) -> None:
        peak = np.abs(self._data.qacc).max()
        if not peak < DIVERGED_RAD_S2:  # also true of a NaN
            raise ArmError(
                f"the simulated arm diverged at {self.t_ns * 1e-9:.3f} s of its time: acceleration {peak:.3g} rad/s²",
                reason="torque, inertia or timestep make the model unstable",
                command="--set robot.sim.timestep_us=500",
            )


def build_plant(robot: RobotConfig) -> Plant:
    """The plant that ``[robot]`` and ``[robot.sim]`` describe, lying where it falls from the park pose.

    Raises:
        ConfigError: a servo model without figures, or a servo list of the wrong length.
    """
    table = validate(SimTable, robot.sim, "robot.sim")
    motors = None
    if table.servos:
        if len(table.servos) != len(robot.joints):
            raise ConfigError(
                f"robot.sim.servos has {len(table.servos)} entries for {len(robot.joints)} joints",
                reason="there is one servo per joint, in joint order; without any, motors are ideal torque sources",
            )
        unknown = sorted({servo.model for servo in table.servos} - set(MOTORS))
        if unknown:
            raise ConfigError(f"robot.sim.servos: no motor figures for {unknown}", reason=f"known: {sorted(MOTORS)}")
        motors = MotorBank([MOTORS[servo.model] for servo in table.servos], table.supply_v)
    plant = Plant(
        robot.model,
        tuple(joint.name for joint in robot.joints),
        timestep_ns=table.timestep_us * NS_PER_US,
        motors=motors,
        start=np.array(robot.park_rad),
    )
    plant.settle()
    return plant
