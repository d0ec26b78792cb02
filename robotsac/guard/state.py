"""What is to be known of the guard from outside: the state it is in, and what one control period brought."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from robotsac.arm import JointState, Vector
from robotsac.records import Flag


class GuardState(enum.Enum):
    """What the guard is doing with the arm."""

    DISARMED = "disarmed"
    HOLD = "hold"
    ACTIVE = "active"
    STOPPING = "stopping"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class ControlTick:
    """What one control period brought.

    Attributes:
        state: joint state at its end.
        tau_policy: policy torque that was really applied (n,), N·m: mean over the bus ticks of what the joints were told,
            with gravity compensation and policy damping taken off.
        flags: every limit that acted, and LATE / STALE.
        admit_ns, exchange_ns: time spent in limits and dynamics, and on the bus.
        done_ns: ``time.perf_counter_ns`` when the last bus round was complete.
    """

    state: JointState
    tau_policy: Vector
    flags: Flag
    admit_ns: int
    exchange_ns: int
    done_ns: int
