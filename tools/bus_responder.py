"""Six servo memories behind a pty, for benchmarks: the cheapest thing that can stand at the other end of a bus.

    python tools/bus_responder.py --robot arm0 --delay-s 0.0017

Prints ``{"port": "/dev/pts/N"}`` and answers until it is killed. Nothing moves, nothing fails, no rule of the firmware is
kept: for those there is the twin.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import time
import tty

from robotsac.config.loading import load_config
from robotsac.config.schema import RobotConfig
from robotsac_hardware import control_table as table
from robotsac_hardware import fast_reply, frames
from robotsac_hardware.params import read_params

INDIRECT = table.MODELS["XM430-W350"].indirect_block(45)


class Responder:
    """Answers ping, read, write, sync read and fast sync read.

    Args:
        robot: whose servos.
        delay_s: how long joint replies are held back.
    """

    def __init__(self, robot: RobotConfig, delay_s: float) -> None:
        self._delay_s = delay_s
        self._memory: dict[int, bytearray] = {}
        self._cache: dict[bytes, bytes] = {}
        for servo in read_params(robot).servos:
            self._memory[servo.id] = memory = bytearray(1024)
            for register, value in (
                (table.MODEL_NUMBER, table.MODELS[servo.model].number),
                (table.FIRMWARE_VERSION, 45),
                (table.SECONDARY_ID, 255),
                (table.TEMPERATURE_LIMIT, 80),
                (table.SHUTDOWN, table.SHUTDOWN_CAUSES_NEEDED),
                (table.PRESENT_POSITION, 2048),
                (table.PRESENT_INPUT_VOLTAGE, 120),
                (table.PRESENT_TEMPERATURE, 35),
            ):
                memory[register.address : register.address + register.size] = register.encode(value)

    def serve(self) -> None:
        """Print the name of the pty, then answer for ever."""
        master, slave = os.openpty()  # the slave stays open here: a pty without one reports a hang-up
        tty.setraw(slave)
        print(json.dumps({"port": os.ttyname(slave)}), flush=True)
        pending = b""
        while True:
            pending += os.read(master, 4096)
            while len(pending) >= 7 and len(pending) >= (size := 7 + int.from_bytes(pending[5:7], "little")):
                frame, pending = pending[:size], pending[size:]
                if answer := self._cache.get(frame):
                    self._wait()
                    os.write(master, answer)
                elif answer := self._answer(frame):
                    os.write(master, answer)

    def _wait(self) -> None:
        """Hold a joint reply back as a bus would."""
        if self._delay_s:
            time.sleep(self._delay_s)

    def _answer(self, frame: bytes) -> bytes:
        dxl_id, code, params = frame[4], frame[7], frames.unstuff(frame[8:-2])
        if code == frames.Instruction.SYNC_WRITE:
            self._sync_write(params)
            return b""
        if code in (frames.Instruction.SYNC_READ, frames.Instruction.FAST_SYNC_READ):
            self._cache[frame] = answer = self._joint_answer(code, params)
            return answer
        memory = self._memory.get(dxl_id)
        if memory is None:
            return b""
        if code == frames.Instruction.PING:
            return frames.status(dxl_id, 0, bytes(memory[0:2] + memory[6:7]))
        address = int.from_bytes(params[:2], "little")
        if code == frames.Instruction.READ:
            return frames.status(dxl_id, 0, bytes(memory[address : address + int.from_bytes(params[2:4], "little")]))
        memory[address : address + len(params) - 2] = params[2:]
        self._cache.clear()
        return frames.status(dxl_id, 0)

    def _sync_write(self, params: bytes) -> None:
        address, size = struct.unpack_from("<HH", params)
        for at in range(4, len(params), size + 1):
            self._memory[params[at]][address : address + size] = params[at + 1 : at + 1 + size]
        if address != table.GOAL_CURRENT.address:
            self._cache.clear()

    def _joint_answer(self, code: int, params: bytes) -> bytes:
        address, size = struct.unpack_from("<HH", params)
        assert address == INDIRECT.data_at
        blocks = []
        for dxl_id in params[4:]:
            memory = self._memory[dxl_id]
            sources = struct.unpack_from(f"<{size}H", memory, INDIRECT.address_at)
            blocks.append((dxl_id, 0, bytes(memory[source] for source in sources)))
        if code == frames.Instruction.FAST_SYNC_READ:
            return fast_reply.build(blocks)
        return b"".join(frames.status(*block) for block in blocks)


def main() -> None:
    """Parse and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", default="arm0")
    parser.add_argument("--delay-s", type=float, default=0.0)
    options = parser.parse_args()
    Responder(load_config(options.robot).robot, options.delay_s).serve()


if __name__ == "__main__":
    main()
