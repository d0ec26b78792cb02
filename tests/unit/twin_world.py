"""What the twin's tests share: a bus of servos on inertias that a test can check by hand, and the host's side of the wire."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robotsac.clock import ManualClock
from robotsac_sim.motors import MOTORS, MotorBank
from robotsac_sim.twin.assumed import ASSUMED, Assumptions
from robotsac_sim.twin.bus import Overlap, VirtualBus
from robotsac_sim.twin.codec import crc16, stuff, unstuff
from robotsac_sim.twin.memory_port import MemoryPort
from robotsac_sim.twin.models import MODELS, ServoModel
from robotsac_sim.twin.physics import FreeInertia
from robotsac_sim.twin.protocol import BROADCAST_ID, Op
from robotsac_sim.twin.servo import Servo
from robotsac_sim.twin.table import Reg, build_table

MS = 1_000_000
XM430, XM540 = MODELS["XM430-W350"], MODELS["XM540-W270"]
# A shaft that nothing moves.
HELD = 1e9
TABLE = build_table(XM540)


@dataclass(frozen=True)
class Status:
    """One status packet as the host reads it."""

    id: int
    error: int
    data: bytes


def instruction(device_id: int, op: int, params: bytes = b"") -> bytes:
    body = stuff(bytes((op,)) + params)
    frame = b"\xff\xff\xfd\x00" + bytes((device_id,)) + (len(body) + 2).to_bytes(2, "little") + body
    return frame + crc16(frame).to_bytes(2, "little")


def word(value: int, size: int = 2) -> bytes:
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def statuses(stream: bytes) -> list[Status]:
    """Every intact status packet in a stream of plain (not fast) replies."""
    found = []
    at = stream.find(b"\xff\xff\xfd\x00")
    while at >= 0 and len(stream) >= at + 7:
        size = 7 + int.from_bytes(stream[at + 5 : at + 7], "little")
        frame = stream[at : at + size]
        if len(frame) == size and crc16(frame[:-2]) == int.from_bytes(frame[-2:], "little"):
            body = unstuff(frame[7:-2])
            found.append(Status(frame[4], body[1], body[2:]))
            at = stream.find(b"\xff\xff\xfd\x00", at + size)
        else:
            at = stream.find(b"\xff\xff\xfd\x00", at + 4)
    return found


class Bench:
    """A bus on a manual clock, with a host.

    Args:
        models: one per joint; ids count from 1.
        inertia: of every joint, kg·m².
    """

    def __init__(
        self,
        *models: ServoModel,
        inertia: float = HELD,
        damping: float = 0.0,
        baud: int = 1_000_000,
        ids: tuple[int, ...] = (),
        presets: dict[Reg, int] | None = None,
        reversed_mount: bool = False,
        zero_count: int = 2048,
        saturate: bool = False,
        assumed: Assumptions = ASSUMED,
        overlap: Overlap = Overlap.COLLIDE,
        allow_faults: bool = False,
        q: float = 0.0,
        supply_v: float = 12.0,
    ) -> None:
        models = models or (XM430,)
        n = len(models)
        motors = [MOTORS[model.name] for model in models]
        self.physics = FreeInertia(
            np.full(n, inertia),
            np.array([motor.torque_constant_nm_a for motor in motors]),
            damping=np.full(n, damping),
            q=np.full(n, q),
            motors=MotorBank(motors, supply_v) if saturate else None,
        )
        self.servos = [
            Servo(
                model,
                ids[k] if ids else k + 1,
                baud=baud,
                presets={Reg.RETURN_DELAY_TIME: 0, **(presets or {})},
                reversed_mount=reversed_mount,
                zero_count=zero_count,
                volt_v=supply_v,
                assumed=assumed,
            )
            for k, model in enumerate(models)
        ]
        self.bus = VirtualBus(
            self.servos, self.physics, supply_v=supply_v, assumed=assumed, overlap=overlap, allow_faults=allow_faults
        )
        self.clock = ManualClock(on_advance=self.bus.advance)
        self.port = MemoryPort(self.bus, self.clock)

    @property
    def servo(self) -> Servo:
        return self.servos[0]

    def raw(self, data: bytes, wait_ms: float = 20.0) -> bytes:
        """Send bytes; everything that comes back within ``wait_ms``."""
        self.port.write(data)
        deadline_ns = self.clock.now_ns() + int(wait_ms * MS)
        out = b""
        while self.clock.now_ns() < deadline_ns:
            out += self.port.read(4096, deadline_ns)
        return out

    def ask(self, device_id: int, op: int, params: bytes = b"", wait_ms: float = 20.0) -> list[Status]:
        return statuses(self.raw(instruction(device_id, op, params), wait_ms))

    def one(self, device_id: int, op: int, params: bytes = b"", wait_ms: float = 5.0) -> Status:
        (status,) = self.ask(device_id, op, params, wait_ms)
        return status

    def write(self, reg: int, value: int, *, device_id: int = 1, size: int | None = None, wait_ms: float = 2.0) -> int:
        """Write a register; the error byte."""
        width = TABLE[reg].size if size is None else size
        return self.one(device_id, Op.WRITE, word(reg) + word(value, width), wait_ms).error

    def read(self, reg: int, *, device_id: int = 1, wait_ms: float = 2.0) -> int:
        """Read a register's value; errors fail the test."""
        status = self.one(device_id, Op.READ, word(reg) + word(TABLE[reg].size), wait_ms)
        assert status.error & 0x7F == 0
        return int.from_bytes(status.data, "little", signed=TABLE[reg].signed)

    def set(self, device_id: int = 1, /, **registers: int) -> None:
        """Write registers by name, in order; each must be accepted."""
        for name, value in registers.items():
            error = self.write(Reg[name.upper()], value, device_id=device_id)
            assert error & 0x7F == 0, f"{name} = {value}: error {error}"

    def torque_mode(self, *, current: int = 0, device_id: int = 1) -> None:
        """Current mode, torque on, with a goal."""
        self.set(device_id, operating_mode=0, goal_current=current, torque_enable=1)

    def sync_write(self, reg: int, values: dict[int, int]) -> None:
        size = TABLE[reg].size
        params = word(reg) + word(size) + b"".join(bytes((k,)) + word(v, size) for k, v in values.items())
        assert self.ask(BROADCAST_ID, Op.SYNC_WRITE, params, wait_ms=2.0) == []

    def sleep(self, ms: float) -> None:
        self.clock.advance(int(ms * MS))
