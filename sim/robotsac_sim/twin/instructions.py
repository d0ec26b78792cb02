"""What one servo does with one instruction addressed to it, and what it answers."""

from __future__ import annotations

from collections.abc import Callable

from robotsac_sim.twin.protocol import BACKUP_KEY, CLEAR_MULTI_TURN, ErrorCode, Op
from robotsac_sim.twin.rules import check_write
from robotsac_sim.twin.servo import Servo
from robotsac_sim.twin.table import Reg

Answer = tuple[ErrorCode, bytes]
Handler = Callable[[Servo, bytes, int], Answer]

DONE: Answer = (ErrorCode.OK, b"")
STORE, RESTORE = 0x01, 0x02
# Factory Reset: what survives.
KEPT: dict[int, frozenset[Reg]] = {
    0xFF: frozenset(),
    0x01: frozenset((Reg.ID,)),
    0x02: frozenset((Reg.ID, Reg.BAUD_RATE)),
}
# Status Return Level (68) from which on an instruction is answered; everything not named here needs 2.
LEVELS: dict[int, int] = {
    Op.PING: 0,
    Op.READ: 1,
    Op.SYNC_READ: 1,
    Op.BULK_READ: 1,
    Op.FAST_SYNC_READ: 1,
    Op.FAST_BULK_READ: 1,
}
LEVEL_OTHERS = 2


def execute(servo: Servo, op: int, params: bytes, t_ns: int) -> Answer:
    """Let ``servo`` carry out an instruction; whether the answer is sent is for the bus to decide."""
    handler = HANDLERS.get(op)
    return handler(servo, params, t_ns) if handler is not None else (ErrorCode.INSTRUCTION, b"")


def level_needed(op: int) -> int:
    """Status Return Level from which on ``op`` is answered."""
    return LEVELS.get(op, LEVEL_OTHERS)


def read_block(servo: Servo, address: int, size: int) -> Answer:
    """A Read, as any of the reading instructions asks for it."""
    data = servo.read(address, size)
    return (data, b"") if isinstance(data, ErrorCode) else (ErrorCode.OK, data)


def _ping(servo: Servo, params: bytes, t_ns: int) -> Answer:
    get = servo.registers.get
    return ErrorCode.OK, get(Reg.MODEL_NUMBER).to_bytes(2, "little") + bytes((get(Reg.FIRMWARE_VERSION),))


def _read(servo: Servo, params: bytes, t_ns: int) -> Answer:
    if len(params) != 4:
        return ErrorCode.DATA_LENGTH, b""
    return read_block(servo, params[0] | params[1] << 8, params[2] | params[3] << 8)


def _write(servo: Servo, params: bytes, t_ns: int) -> Answer:
    if len(params) < 3:
        return ErrorCode.DATA_LENGTH, b""
    return servo.write(params[0] | params[1] << 8, params[2:], t_ns), b""


def _reg_write(servo: Servo, params: bytes, t_ns: int) -> Answer:
    if len(params) < 3:
        return ErrorCode.DATA_LENGTH, b""
    address, data = params[0] | params[1] << 8, params[2:]
    refusal = check_write(servo, address, data)
    if isinstance(refusal, ErrorCode):
        return refusal, b""
    servo.registered = (address, data)
    return DONE


def _action(servo: Servo, params: bytes, t_ns: int) -> Answer:
    if servo.registered is None:
        return ErrorCode.INSTRUCTION, b""
    address, data = servo.registered
    servo.registered = None
    return servo.write(address, data, t_ns), b""


def _factory_reset(servo: Servo, params: bytes, t_ns: int) -> Answer:
    keep = KEPT.get(params[0]) if len(params) == 1 else None
    if keep is None:
        return ErrorCode.DATA_RANGE, b""
    servo.registers.reset(eeprom=True, keep=keep)
    servo.reboot(t_ns, servo.assumed.factory_reset_ns)
    return DONE


def _reboot(servo: Servo, params: bytes, t_ns: int) -> Answer:
    servo.reboot(t_ns)
    return DONE


def _clear(servo: Servo, params: bytes, t_ns: int) -> Answer:
    if params != CLEAR_MULTI_TURN:
        return ErrorCode.DATA_RANGE, b""
    if abs(servo.encoder.velocity) > servo.assumed.stop_velocity:
        return ErrorCode.RESULT_FAIL, b""
    servo.clear_turns()
    return DONE


def _backup(servo: Servo, params: bytes, t_ns: int) -> Answer:
    if params[1:] != BACKUP_KEY or params[0] not in (STORE, RESTORE):
        return ErrorCode.DATA_RANGE, b""
    done = servo.store_backup() if params[0] == STORE else servo.restore_backup(t_ns)
    return (ErrorCode.OK if done else ErrorCode.RESULT_FAIL), b""


HANDLERS: dict[int, Handler] = {
    Op.PING: _ping,
    Op.READ: _read,
    Op.WRITE: _write,
    Op.REG_WRITE: _reg_write,
    Op.ACTION: _action,
    Op.FACTORY_RESET: _factory_reset,
    Op.REBOOT: _reboot,
    Op.CLEAR: _clear,
    Op.BACKUP: _backup,
}
