"""The simulated arm: the ``Arm`` port on the plant, in lockstep.

Time is the plant's: ``clock.sleep_until`` runs the physics there, as fast as the machine goes, and nothing moves between
calls. Torque written by ``exchange`` acts from that moment on, as on a bus with no delay.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from robotsac.arm import ArmSpec, ArmState, JointState, LimitedTorque
from robotsac.config.loading import validate
from robotsac.config.schema import RobotConfig
from robotsac.errors import AGAIN, ArmSetupError, ArmStateError
from robotsac_sim.plant import Plant, build_plant

Vector = NDArray[np.float64]
IDLE_SLEEP_S = 0.0005
ROOM_C = 25.0


class MujocoParams(BaseModel):
    """``[robot.driver]`` of driver ``mujoco``."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PlantClock:
    """The plant's time."""

    free_running = False

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._now_ns = plant.t_ns

    def now_ns(self) -> int:
        """The plant's time, ns."""
        return self._now_ns

    def sleep_until(self, t_ns: int) -> None:
        """Run the physics up to ``t_ns``."""
        if t_ns > self._now_ns:
            self._plant.advance_to(t_ns)
            self._now_ns = t_ns

    def idle(self) -> None:
        """Let other processes of this computer run; the plant stands still."""
        time.sleep(IDLE_SLEEP_S)


class MujocoArm:
    """See module docstring; the lifecycle is ``robotsac.arm.Arm``'s.

    Args:
        spec: of the robot.
        plant: the world; owned by this arm.
        supply_v: what ``volt_v`` reads.
    """

    def __init__(self, spec: ArmSpec, plant: Plant, supply_v: float) -> None:
        self.spec = spec
        self.clock = PlantClock(plant)
        self._plant = plant
        self._state = ArmState.DISCONNECTED
        self._seq = 0
        self._zero = np.zeros(spec.n)
        self._command = self._zero.copy()
        self._temp = np.full(spec.n, ROOM_C)
        self._volt = np.full(spec.n, supply_v)
        self._fresh = np.ones(spec.n, dtype=np.bool_)
        self._faults = np.zeros(spec.n, dtype=np.uint16)

    @property
    def state(self) -> ArmState:
        """Where in the lifecycle the arm is."""
        return self._state

    def connect(self) -> None:
        """DISCONNECTED → IDLE. There is nothing to open. Raises ArmStateError."""
        self._require(ArmState.DISCONNECTED, "connect")
        self._state = ArmState.IDLE

    def energize(self) -> None:
        """IDLE → ENERGIZED, with zero torque.

        Raises:
            ArmSetupError: a joint is outside its hard limits.
            ArmStateError: not IDLE.
        """
        self._require(ArmState.IDLE, "energize")
        q, spec = self._plant.q, self.spec
        outside = (q < spec.q_min - spec.hard_margin) | (q > spec.q_max + spec.hard_margin)
        if outside.any():
            joint = int(np.argmax(outside))
            raise ArmSetupError(
                f"joint {joint} ({spec.joint_names[joint]}): position {q[joint]:.3f} rad is outside "
                f"[{spec.q_min[joint]:.3f}, {spec.q_max[joint]:.3f}] rad",
                reason="torque is switched on only inside the limits: move the arm there by hand",
                command=AGAIN,
            )
        self._command = self._zero.copy()
        self._plant.set_torque(self._command)
        self._state = ArmState.ENERGIZED

    def exchange(self, torque: LimitedTorque) -> JointState:
        """ENERGIZED: ``torque`` (n,), N·m, acts from now on; the state is of now, since no time passes. Raises ArmStateError."""
        self._require(ArmState.ENERGIZED, "exchange")
        self._command = np.array(torque, dtype=np.float64)
        self._plant.set_torque(self._command)
        return self._observe()

    def read(self) -> JointState:
        """IDLE: the present state. Raises ArmStateError."""
        self._require(ArmState.IDLE, "read")
        return self._observe()

    def place(self, q: Vector) -> JointState:
        """See :class:`robotsac.arm.PlaceableArm`."""
        self._require(ArmState.ENERGIZED, "place")
        self._plant.place(q)
        self._command = self._zero.copy()
        return self._observe()

    def stop(self) -> None:
        """Any state: zero torque. Idempotent; never raises."""
        self._command = self._zero.copy()
        self._plant.set_torque(self._command)
        if self._state is ArmState.ENERGIZED:
            self._state = ArmState.IDLE

    def close(self) -> None:
        """Any state → DISCONNECTED, through :meth:`stop`. Idempotent; never raises."""
        self.stop()
        self._state = ArmState.DISCONNECTED

    def torque_is_off(self) -> bool:
        """Whether the plant is left to itself. Never raises."""
        return self._state is not ArmState.ENERGIZED

    def _observe(self) -> JointState:
        self._seq += 1
        return JointState(
            t_ns=self.clock.now_ns(),
            seq=self._seq,
            q=self._plant.q,
            dq=self._plant.dq,
            tau=self._plant.tau,
            tau_cmd=self._command,
            temp_c=self._temp,
            volt_v=self._volt,
            fresh=self._fresh,
            faults=self._faults,
        )

    def _require(self, state: ArmState, call: str) -> None:
        if self._state is not state:
            raise ArmStateError(f"{call}() needs the arm {state.value}; it is {self._state.value}")


def open_mujoco_arm(robot: RobotConfig) -> MujocoArm:
    """Entry point ``mujoco`` of group ``robotsac.arms``.

    Raises:
        ConfigError: a parameter, the model or a motor is wrong.
    """
    validate(MujocoParams, robot.driver.params(), "robot.driver")
    return MujocoArm(ArmSpec.from_config(robot), build_plant(robot), float(robot.sim.get("supply_v", 12.0)))
