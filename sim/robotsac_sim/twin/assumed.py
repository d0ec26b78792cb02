"""Everything the twin had to assume, by name.

None of these figures is published for X-series servos. They are parameters so that a probe on a real arm can replace them,
and so that a test can show that nothing hangs on one of them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """Assumed device behaviour.

    Attributes:
        turnaround_ns: from the end of an instruction to the first byte of the answer, on top of Return Delay Time. Older
            servos: AX-12 about 20 µs (xevelabs notes), MX about 50 µs (resibots/dynamixel_control_hw#7).
        boot_ns: silence after a reboot.
        factory_reset_ns: silence after a factory reset (the LED blinks four times).
        missing_breaks_chain: in sync and bulk reads a device answers only after the one listed before it has; a missing
            device silences all that follow. False: the next one answers in its place.
        velocity_filter_s: time constant of Present Velocity. About 30 ms of lag is reported for XL330 (Rhoban/bam).
        control_period_ns: period of the position, velocity and PWM loops.
        stop_velocity: counts of 0.229 rpm; above it Clear fails as "moving".
        in_position: counts; Moving Status bit 0.
        ambient_c: room temperature.
        overload_share, overload_ns: Overload trips when the current stays above this share of what the supply can push
            through a stalled motor for this long.
        supply_resistance_ohm: cable and supply; makes the bus voltage sag under load.
        brown_out_v: below this the processor resets.
    """

    turnaround_ns: int = 20_000
    boot_ns: int = 300_000_000
    factory_reset_ns: int = 1_000_000_000
    missing_breaks_chain: bool = True
    velocity_filter_s: float = 0.030
    control_period_ns: int = 1_000_000
    stop_velocity: int = 1
    in_position: int = 10
    ambient_c: float = 25.0
    overload_share: float = 0.95
    overload_ns: int = 1_500_000_000
    supply_resistance_ohm: float = 0.05
    brown_out_v: float = 6.0


ASSUMED = Assumptions()
