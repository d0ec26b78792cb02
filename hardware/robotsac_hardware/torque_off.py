"""Torque off, on every servo, as far as the bus still allows; and whether it is certain."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from robotsac.clock import Clock
from robotsac.errors import BusCorrupt, BusTimeout
from robotsac_hardware import control_table as table
from robotsac_hardware import frames
from robotsac_hardware.bus import Bus, Servo
from robotsac_hardware.faults import ALERT

# All of it, however many servos are silent. A stop that hangs is worse than one that says it is not sure.
TOTAL_NS = 300_000_000
ANSWER_NS = 20_000_000


def off_frames(ids: Sequence[int]) -> bytes:
    """Zero goals, then torque off, to all servos in one run of bytes. Goals first: if only the first packet survives the
    wire, the motors are at zero anyway. Servos do not answer it."""
    zeros = frames.sync_write(table.GOAL_CURRENT.address, 2, {dxl_id: b"\0\0" for dxl_id in ids})
    return zeros + frames.sync_write(table.TORQUE_ENABLE.address, 1, {dxl_id: b"\0" for dxl_id in ids})


def torque_off(bus: Bus, servos: Sequence[Servo], clock: Clock) -> bool:
    """Switch torque off and read it back from every servo, again and again for at most 0.3 s.

    Returns:
        Whether every servo was read back with torque off.

    Raises:
        BusLost: the port is gone.
    """
    command = off_frames([servo.dxl_id for servo in servos])
    deadline_ns = clock.now_ns() + TOTAL_NS
    on = list(servos)
    while on and clock.now_ns() < deadline_ns:
        with suppress(BusTimeout):  # nothing left then but to try again before the deadline
            bus.port.write(command)
        on = [servo for servo in on if clock.now_ns() >= deadline_ns or not _is_off(bus, servo)]
    return not on


def _is_off(bus: Bus, servo: Servo) -> bool:
    register = table.TORQUE_ENABLE
    question = frames.read(servo.dxl_id, register.address, register.size)
    try:
        status = bus.ask(servo.dxl_id, question, register.size, tries=1, answer_ns=ANSWER_NS)
    except (BusTimeout, BusCorrupt):
        return False
    return not status.error & ~ALERT and status.params == b"\0"
