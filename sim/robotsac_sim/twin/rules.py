"""What a write may do. Source: e-manual, "DYNAMIXEL Protocol 2.0", error field of the status packet.

Which of Data Range and Data Limit Error a register answers with is not published register by register: Range is taken for
what lies outside the table's own range, Limit for what lies outside a *configured* limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robotsac_sim.twin.protocol import ErrorCode
from robotsac_sim.twin.table import GOALS, RAM_START, Item, Reg

if TYPE_CHECKING:
    from robotsac_sim.twin.servo import Servo


def check_write(servo: Servo, address: int, data: bytes) -> list[tuple[Item, int]] | ErrorCode:
    """The registers and values that a write would set, or why it is refused as a whole."""
    plan = servo.registers.plan(address, len(data))
    if isinstance(plan, ErrorCode):
        return plan
    parsed = []
    for item, at in plan:
        value = int.from_bytes(data[at : at + item.size], "little", signed=item.signed)
        if error := _refusal(servo, item, value):
            return error
        parsed.append((item, value))
    return parsed


def _refusal(servo: Servo, item: Item, value: int) -> ErrorCode:
    address = item.address
    if not item.writable or (servo.torque and address < RAM_START):
        return ErrorCode.ACCESS
    if not item.accepts(value):
        return ErrorCode.DATA_RANGE
    if address in GOALS:
        if servo.watchdog.expired:
            return ErrorCode.DATA_RANGE
        low, high = servo.configured.goal_limits[address]
        return ErrorCode.OK if low <= value <= high else ErrorCode.DATA_LIMIT
    if address == Reg.BUS_WATCHDOG and not servo.watchdog.accepts(value):
        return ErrorCode.DATA_RANGE
    return ErrorCode.OK
