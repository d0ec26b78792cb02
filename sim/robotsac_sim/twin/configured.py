"""What a servo has been configured to be: the registers that change rarely, taken over all at once."""

from __future__ import annotations

from dataclasses import dataclass

from robotsac_sim.twin.protocol import BAUD_BY_CODE, Mode
from robotsac_sim.twin.registers import Registers
from robotsac_sim.twin.table import Reg

RETURN_DELAY_UNIT_NS = 2_000
HOMING_IN_POSITION_MODE = 1024
REVERSE, TORQUE_ON_BY_GOAL = 0x01, 0x08
ANY_INT32 = 1 << 31


@dataclass(frozen=True, slots=True)
class Configured:
    """One reading of the table. Names are the registers'.

    Attributes:
        direction: -1 where Drive Mode reverses the servo.
        goal_limits: configured (low, high) of each goal register; outside is a Data Limit Error.
    """

    id: int
    baud: int
    return_delay_ns: int
    secondary_id: int
    status_level: int
    mode: int
    direction: int
    torque_on_by_goal: bool
    homing_offset: int
    moving_threshold: int
    temperature_limit_c: int
    volt_min: float
    volt_max: float
    shutdown: int
    goal_limits: dict[int, tuple[int, int]]

    @classmethod
    def read(cls, registers: Registers) -> Configured:
        """Take over the table as it stands."""
        get = registers.get
        drive, mode = get(Reg.DRIVE_MODE), get(Reg.OPERATING_MODE)
        # Only one turn's quarter of homing offset acts in position mode.
        reach = HOMING_IN_POSITION_MODE if mode == Mode.POSITION else ANY_INT32
        return cls(
            id=get(Reg.ID),
            baud=BAUD_BY_CODE[get(Reg.BAUD_RATE)],
            return_delay_ns=get(Reg.RETURN_DELAY_TIME) * RETURN_DELAY_UNIT_NS,
            secondary_id=get(Reg.SECONDARY_ID),
            status_level=get(Reg.STATUS_RETURN_LEVEL),
            mode=mode,
            direction=-1 if drive & REVERSE else 1,
            torque_on_by_goal=bool(drive & TORQUE_ON_BY_GOAL),
            homing_offset=max(-reach, min(reach, get(Reg.HOMING_OFFSET))),
            moving_threshold=get(Reg.MOVING_THRESHOLD),
            temperature_limit_c=get(Reg.TEMPERATURE_LIMIT),
            volt_min=get(Reg.MIN_VOLTAGE_LIMIT) * 0.1,
            volt_max=get(Reg.MAX_VOLTAGE_LIMIT) * 0.1,
            shutdown=get(Reg.SHUTDOWN),
            goal_limits=_goal_limits(registers, mode),
        )


def _goal_limits(registers: Registers, mode: int) -> dict[int, tuple[int, int]]:
    pwm, current = registers.get(Reg.PWM_LIMIT), registers.get(Reg.CURRENT_LIMIT)
    velocity = registers.get(Reg.VELOCITY_LIMIT)
    walls = registers.get(Reg.MIN_POSITION_LIMIT), registers.get(Reg.MAX_POSITION_LIMIT)
    return {
        Reg.GOAL_PWM: (-pwm, pwm),
        Reg.GOAL_CURRENT: (-current, current),
        Reg.GOAL_VELOCITY: (-velocity, velocity),
        Reg.GOAL_POSITION: walls if mode == Mode.POSITION else (-ANY_INT32, ANY_INT32),
    }
