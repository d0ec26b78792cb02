"""The Dynamixel driver on the twin, in memory, on a clock turned by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from robotsac.arm import ArmSpec, JointState, LimitedTorque, Vector
from robotsac.clock import ManualClock
from robotsac.config import load_config
from robotsac.config.schema import RobotConfig
from robotsac_hardware.dynamixel_arm import DynamixelArm
from robotsac_hardware.params import read_params
from robotsac_sim.twin.faults import Fault
from robotsac_sim.twin.memory_port import MemoryPort
from robotsac_sim.twin.physics import FreeInertia
from robotsac_sim.twin.servo import Servo
from robotsac_sim.twin.setup import build_bus
from robotsac_sim.twin.table import Reg

PERIOD_NS = 4_000_000


def robot(
    name: str = "arm0-twin",
    *,
    driver: dict[str, Any] | None = None,
    sim: dict[int, dict[str, Any]] | None = None,
) -> RobotConfig:
    """A robot with keys of ``[robot.driver]`` and of single ``[[robot.sim.servos]]`` replaced."""
    tree = load_config(name).robot.model_dump()
    tree["driver"].update(driver or {})
    for index, changes in (sim or {}).items():
        tree["sim"]["servos"][index].update(changes)
    return RobotConfig.model_validate(tree)


class Rig:
    """A driver, a bus of six servos on free inertias, and a record of every register write that was accepted."""

    def __init__(self, config: RobotConfig | None = None, *, byte_by_byte: bool = False) -> None:
        self.config = config if config is not None else robot()
        constant = np.array([servo.torque_constant_nm_a for servo in read_params(self.config).servos])
        # Heavy and damped: torques of the order of the limits move it by fractions of a radian in a test.
        self.physics = FreeInertia(np.full(len(constant), 0.5), constant, damping=np.full(len(constant), 0.5))
        self.bus = build_bus(self.config, physics=self.physics, allow_faults=True)
        self.clock = ManualClock(on_advance=self.bus.advance)
        self.byte_by_byte = byte_by_byte
        self.writes: list[tuple[int, int, int]] = []
        self.torque_on: list[tuple[int, int, int]] = []
        self.bus.watch(self._record)
        self.arm = self.new_arm()

    def new_arm(self) -> DynamixelArm:
        """A fresh driver on the same servos."""
        spec, params = ArmSpec.from_config(self.config), read_params(self.config)
        return DynamixelArm(
            spec, params, self.clock, lambda: MemoryPort(self.bus, self.clock, byte_by_byte=self.byte_by_byte)
        )

    def _record(self, t_ns: int, servo: Servo, address: int, value: int) -> None:
        self.writes.append((servo.configured.id, address, value))
        if address == Reg.TORQUE_ENABLE and value and servo.torque:
            get = servo.registers.get
            self.torque_on.append((get(Reg.GOAL_CURRENT), get(Reg.OPERATING_MODE), get(Reg.DRIVE_MODE)))

    def energized(self) -> Rig:
        """Connected and energised."""
        self.arm.connect()
        self.arm.energize()
        return self

    def round(self, tau: Vector | float = 0.0) -> JointState:
        """One exchange at the next point of the grid."""
        self.clock.sleep_until((self.clock.now_ns() // PERIOD_NS + 1) * PERIOD_NS)
        return self.arm.exchange(LimitedTorque(np.broadcast_to(tau, self.arm.spec.n).astype(np.float64)))

    def rest(self) -> None:
        """Put the joints back at zero, at rest: nothing brakes a free inertia."""
        self.physics.place(np.zeros(len(self.bus.servos)))
        self.clock.advance(1_000_000)

    def inject(self, *faults: Fault) -> None:
        """Let faults happen from now on."""
        self.bus.inject(*faults)

    def servo(self, joint: int) -> Servo:
        """The emulated servo of a joint."""
        return self.bus.servos[joint]

    def any_torque(self) -> bool:
        """Whether any motor is really on."""
        return any(servo.torque for servo in self.bus.servos)

    def goals(self, joint: int) -> list[int]:
        """Every goal current this joint's servo accepted."""
        dxl_id = self.servo(joint).configured.id
        return [value for one, address, value in self.writes if one == dxl_id and address == Reg.GOAL_CURRENT]
