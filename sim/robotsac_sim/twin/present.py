"""The registers that show the present: 120-146, written in one piece when somebody looks."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from robotsac_sim.twin.protocol import POSITION_MODES
from robotsac_sim.twin.table import Reg

if TYPE_CHECKING:
    from robotsac_sim.twin.servo import Servo

NS_PER_MS = 1_000_000
TICK_WRAP = 32_768
IN_POSITION, PROFILE_RUNNING = 0x01, 0x02
INT16_MAX = 0x7FFF
# Tick, moving, moving status, PWM, current, velocity, position, velocity and position trajectory, voltage, temperature.
LAYOUT = struct.Struct("<HBBhhiiiiHB")


def write_present(servo: Servo, t_ns: int) -> None:
    """Bring ``servo``'s memory up to ``t_ns``."""
    encoder, controller, health = servo.encoder, servo.controller, servo.health
    velocity, position = encoder.velocity, encoder.position
    pwm = controller.pwm(servo.current_a, encoder.omega, health.volt_v) if servo.torque else 0
    current = round(servo.current_a / servo.model.current_unit_a)
    LAYOUT.pack_into(
        servo.registers.memory,
        Reg.REALTIME_TICK,
        (t_ns - servo.boot_ns) // NS_PER_MS % TICK_WRAP,
        int(abs(velocity) > servo.configured.moving_threshold),
        _moving_status(servo, position),
        pwm,
        max(-INT16_MAX, min(INT16_MAX, current)),
        velocity,
        position,
        int(controller.velocity_trajectory),
        int(controller.position_trajectory),
        round(health.volt_v * 10.0),
        round(health.temperature_c),
    )
    servo.registers.memory[Reg.REGISTERED_INSTRUCTION] = int(servo.registered is not None)


def _moving_status(servo: Servo, position: int) -> int:
    if servo.configured.mode not in POSITION_MODES:
        return 0
    left = abs(servo.controller.settings.goal_position - position)
    status = IN_POSITION if left <= servo.assumed.in_position else 0
    return status | (PROFILE_RUNNING if servo.controller.profile_running else 0)
