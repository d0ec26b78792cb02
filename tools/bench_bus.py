"""One bus cycle of six servos on a pty: this driver against dynamixel_sdk, alternating in one run.

    python tools/bench_bus.py --json

A cycle writes six goal currents and reads the driver's 18-byte block from six servos. The other end is a bare responder in
a process of its own, the same for every side, that answers from memory and simulates nothing.

    sdk      GroupSyncWrite, GroupSyncRead (fast or plain), getData of every register of every servo: raw integers, no checks
    codec    the same work with this driver's codec: bytes out, bytes in, CRCs checked, raw registers
    arm      the whole DynamixelArm.exchange: also finite check, units, fault checks, velocity, JointState

Two conditions: `immediate`, the reply comes as fast as the responder can, and `paced`, it comes when a bus at the config's
bit rate with one USB latency period would bring it. The SDK polls while it waits, this driver sleeps. A pty has no bit rate
and no USB: this measures software, not a bus.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from robotsac.arm import ArmSpec, LimitedTorque
from robotsac.clock import MonotonicClock
from robotsac.config.loading import load_config
from robotsac.config.schema import RobotConfig
from robotsac.errors import BusError
from robotsac_hardware import control_table as table
from robotsac_hardware.dynamixel_arm import DynamixelArm
from robotsac_hardware.feedback import BLOCK, BLOCK_SIZE, FastReader, GoalWriter, PlainReader, Rows
from robotsac_hardware.params import read_params
from robotsac_hardware.port import SerialPort

DATA_AT = 224
RESPONDER = Path(__file__).with_name("bus_responder.py")
WARM_UP = 200
FAILED_MAX = 20


class ReadFailed(Exception):
    """A side's read brought nothing."""


Cycle = Callable[[int], None]
Side = Callable[[str, RobotConfig, bool], tuple[Cycle, Callable[[], None]]]


def arm(port: str, robot: RobotConfig, fast: bool) -> tuple[Cycle, Callable[[], None]]:
    """The whole driver: one cycle, and how to end."""
    device = _arm(port, robot, fast)
    device.connect()
    device.energize()
    torques = [LimitedTorque(np.full(device.spec.n, 0.01 * k)) for k in range(16)]

    def cycle(k: int) -> None:
        device.exchange(torques[k % 16])

    return cycle, device.close


def codec(port: str, robot: RobotConfig, fast: bool) -> tuple[Cycle, Callable[[], None]]:
    """This driver's bytes alone: one cycle, and how to end."""
    device = _arm(port, robot, fast)
    device.connect()  # maps the block
    device.close()
    clock, params = device.clock, read_params(robot)
    line = SerialPort(port, params.baud, clock, robot.bus_rate_hz)
    ids = [servo.id for servo in params.servos]
    reader = FastReader(ids, DATA_AT) if fast else PlainReader(ids, DATA_AT)
    writer, rows = GoalWriter(ids, reader.request), Rows(ids)
    goals = [np.full(len(ids), float(k)) for k in range(16)]

    def cycle(k: int) -> None:
        rows.begin()
        line.discard_input()
        line.write(writer.frame(goals[k % 16]))
        reader.receive(line, clock.now_ns() + 50_000_000, rows)
        rows.array.tolist()
        if not rows.complete():
            raise ReadFailed("codec")

    return cycle, line.close


def _arm(port: str, robot: RobotConfig, fast: bool) -> DynamixelArm:
    clock = MonotonicClock()
    params = read_params(robot).model_copy(update={"fast_sync_read": fast, "read_deadline_ms": 50.0})
    spec = ArmSpec.from_config(robot)
    return DynamixelArm(spec, params, clock, lambda: SerialPort(port, params.baud, clock, robot.bus_rate_hz))


def sdk(port: str, robot: RobotConfig, fast: bool) -> tuple[Cycle, Callable[[], None]]:
    """dynamixel_sdk's usual API: one cycle, and how to end."""
    import dynamixel_sdk

    handler = dynamixel_sdk.PortHandler(port)
    handler.openPort()
    handler.setBaudRate(robot.driver.params()["baud"])
    protocol = dynamixel_sdk.PacketHandler(2.0)
    writer = dynamixel_sdk.GroupSyncWrite(handler, protocol, table.GOAL_CURRENT.address, 2)
    reader = dynamixel_sdk.GroupSyncRead(handler, protocol, DATA_AT, BLOCK_SIZE)
    ids = [servo.id for servo in read_params(robot).servos]
    for dxl_id in ids:
        writer.addParam(dxl_id, [0, 0])
        reader.addParam(dxl_id)
    offsets = np.cumsum([0] + [register.size for register in BLOCK]).tolist()
    places = [(DATA_AT + offset, register.size) for offset, register in zip(offsets, BLOCK, strict=False)]
    receive = reader.fastSyncRead if fast else reader.txRxPacket

    def cycle(k: int) -> None:
        goal = k % 16
        for dxl_id in ids:
            writer.changeParam(dxl_id, [goal & 0xFF, goal >> 8])
        writer.txPacket()
        if receive() != dynamixel_sdk.COMM_SUCCESS:
            raise ReadFailed("dynamixel_sdk")
        for dxl_id in ids:
            for address, size in places:
                reader.getData(dxl_id, address, size)

    return cycle, handler.closePort


def measure(cycle: Cycle, cycles: int) -> dict[str, float]:
    """µs per cycle: wall p50 and p99, CPU p50 and p99 of this thread; ``failed`` reads are left out and counted.

    A busy machine can hold the responder back for longer than a side waits.
    """
    wall, cpu = np.full(cycles, np.nan), np.full(cycles, np.nan)
    failed = 0
    for k in range(-WARM_UP, cycles):
        wall_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
        try:
            cycle(k)
        except (ReadFailed, BusError) as error:
            failed += 1
            if failed > FAILED_MAX:
                raise SystemExit(f"{error}: {failed} reads failed") from error
            continue
        if k >= 0:
            cpu[k] = (time.thread_time_ns() - cpu_ns) * 1e-3
            wall[k] = (time.perf_counter_ns() - wall_ns) * 1e-3
    quantile = {
        f"{name}_{label}": float(np.nanpercentile(values, q))
        for name, values in (("wall", wall), ("cpu", cpu))
        for label, q in (("p50", 50), ("p99", 99))
    }
    return {key: round(value, 1) for key, value in quantile.items()} | {"failed": failed}


def commit() -> str:
    """The commit measured, or ``unknown``."""
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or "unknown"


def main() -> None:
    """Run all sides alternating, print medians over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", default="arm0")
    parser.add_argument("--cycles", type=int, default=1000, help="per side and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    robot = load_config(options.robot).robot
    conditions = {"immediate": 0.0, "paced": read_params(robot).round_s()}
    medians = {name: run(robot, options, delay_s) for name, delay_s in conditions.items()}
    report(medians, options)


def run(robot: RobotConfig, options: argparse.Namespace, delay_s: float) -> dict[str, dict[str, float]]:
    """Medians over the rounds of every side, against one responder."""
    sides: dict[str, Side] = {"arm": arm, "codec": codec, "sdk": sdk}
    taken: dict[str, list[dict[str, float]]] = {}
    command = [sys.executable, str(RESPONDER), "--delay-s", str(delay_s), "--robot", options.robot]
    responder = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert responder.stdout is not None
    try:
        port = json.loads(responder.stdout.readline())["port"]
        for _ in range(options.rounds):
            for fast in (True, False):
                for name, side in sides.items():
                    cycle, end = side(port, robot, fast)
                    taken.setdefault(f"{name}_{'fast' if fast else 'plain'}", []).append(measure(cycle, options.cycles))
                    end()
    finally:
        responder.kill()
        responder.wait()
    return {
        name: {key: round(statistics.median(one[key] for one in rounds), 1) for key in rounds[0]}
        for name, rounds in taken.items()
    }


def report(medians: dict[str, dict[str, dict[str, float]]], options: argparse.Namespace) -> None:
    """Print the medians, and the ratios of ours to the SDK's."""
    ratios = {
        f"{condition}_{name}_{kind}_{key}": round(median[f"{name}_{kind}"][key] / median[f"sdk_{kind}"][key], 3)
        for condition, median in medians.items()
        for kind in ("fast", "plain")
        for name in ("codec", "arm")
        for key in ("cpu_p50", "wall_p50")
    }
    result = {
        "benchmark": "bus cycle, 6 servos, 18-byte block, pty, µs",
        "median_of_rounds": medians,
        "own_to_sdk": ratios,
        "cycles": options.cycles,
        "rounds": options.rounds,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "load_average_1min": os.getloadavg()[0],
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("dynamixel-sdk", "pyserial", "numpy")},
        "commit": commit(),
    }
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
        return
    for condition, median in medians.items():
        for name, figures in median.items():
            print(f"{condition:10s}{name:12s}" + "  ".join(f"{key} {value:7.1f}" for key, value in figures.items()))
    for name, value in ratios.items():
        print(f"own / sdk  {name:32s} {value}")


if __name__ == "__main__":
    main()
