"""Is this a pose in which torque may be switched on?"""

from __future__ import annotations

import numpy as np

from robotsac.clock import NS_PER_S, Clock
from robotsac.errors import ArmSetupError
from robotsac_hardware.bus import Bus, Servo
from robotsac_hardware.control_table import COUNTS_PER_TURN, PRESENT_POSITION
from robotsac_hardware.startup import Setup

# Two looks this far apart: one count between them is 0.03 rad/s.
LOOK_NS = 50_000_000
REST_DQ = 0.1


def refuse_pose(bus: Bus, setup: Setup, clock: Clock) -> None:
    """Raise unless every joint is within one turn of its encoder, inside the hard limits and at rest.

    Raises:
        ArmSetupError: naming the joint, where it is and what was allowed.
        BusError: the bus failed.
    """
    first = np.array([bus.read(servo, PRESENT_POSITION) for servo in setup.servos])
    clock.sleep_until(clock.now_ns() + LOOK_NS)
    counts = np.array([bus.read(servo, PRESENT_POSITION) for servo in setup.servos])
    q = setup.units.position(counts)
    dq = (q - setup.units.position(first)) * NS_PER_S / LOOK_NS
    for servo in setup.servos:
        _refuse_joint(setup, servo, int(counts[servo.joint]), float(q[servo.joint]), float(dq[servo.joint]))


def _refuse_joint(setup: Setup, servo: Servo, count: int, q: float, dq: float) -> None:
    spec = setup.spec
    if not 0 <= count < COUNTS_PER_TURN:
        raise ArmSetupError(
            f"{servo}: encoder count {count} is outside one turn, 0…{COUNTS_PER_TURN - 1}",
            reason="the joint was turned across the encoder's wrap and would jump by a turn at the next reboot; move it "
            "back and power-cycle the arm, or mount the horn elsewhere",
        )
    margin = spec.hard_margin[servo.joint]
    low, high = spec.q_min[servo.joint] - margin, spec.q_max[servo.joint] + margin
    if not low <= q <= high:
        raise ArmSetupError(
            f"{servo}: position {q:.3f} rad is outside the hard limits [{low:.3f}, {high:.3f}] rad",
            reason="move the arm inside by hand, or check zero_count and reversed",
        )
    if abs(dq) > REST_DQ:
        raise ArmSetupError(
            f"{servo}: moves at {dq:.2f} rad/s, at most {REST_DQ} rad/s is at rest",
            reason="torque is switched on at rest only; support the arm and let it settle",
        )
