"""The twin as a process: what it announces, how it ends, what it does when the host is gone."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import serial
from twin_process import PATIENCE_S, TwinProcess, wait_for

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from twin_world import instruction, statuses, word

from robotsac_sim.twin.protocol import BROADCAST_ID, Op
from robotsac_sim.twin.pty_port import PtyPort
from robotsac_sim.twin.table import Reg

BAUD = 3_000_000


class Host:
    """A host on a serial port."""

    def __init__(self, port: str, baud: int = BAUD) -> None:
        self.serial = serial.Serial(port, baud, timeout=0.01)

    def ask(self, frame: bytes, count: int = 1) -> list[bytes]:
        """Send; the data of ``count`` statuses."""
        self.serial.reset_input_buffer()
        self.serial.write(frame)
        stream, end_s = b"", time.monotonic() + PATIENCE_S
        while len(statuses(stream)) < count and time.monotonic() < end_s:
            stream += self.serial.read(4096)
        return [each.data for each in statuses(stream)]

    def write(self, device_id: int, reg: int, value: int, size: int = 1) -> None:
        assert self.ask(instruction(device_id, Op.WRITE, word(reg) + word(value, size))) == [b""]

    def read(self, device_id: int, reg: int, size: int = 1) -> int:
        return int.from_bytes(self.ask(instruction(device_id, Op.READ, word(reg) + word(size)))[0], "little")

    def energize(self, device_id: int, *, watchdog: int) -> None:
        self.write(device_id, Reg.OPERATING_MODE, 0)
        self.write(device_id, Reg.GOAL_CURRENT, 0, 2)
        self.write(device_id, Reg.TORQUE_ENABLE, 1)
        self.write(device_id, Reg.BUS_WATCHDOG, watchdog)


def test_it_announces_its_port_and_who_is_on_it() -> None:
    with TwinProcess() as twin:
        announced = twin.announced
        assert announced["robot"] == "arm0"
        assert announced["pid"] == twin.process.pid
        assert announced["baud"] == BAUD
        assert [servo["id"] for servo in announced["servos"]] == [1, 2, 3, 4, 5, 6]
        assert announced["scheduling"]
        assert len(Host(twin.port).ask(instruction(BROADCAST_ID, Op.PING), 6)) == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(number: signal.Signals, tmp_path: Path) -> None:
    link = tmp_path / "arm"
    with TwinProcess(link=link) as twin:
        assert os.fspath(link.readlink()) == twin.port
        assert len(Host(str(link)).ask(instruction(1, Op.PING))) == 1
        os.kill(twin.process.pid, number)
        summary = twin.finish()
    assert not link.is_symlink()
    assert summary["packets"] == 1
    assert summary["crc_errors"] == 0
    assert summary["torque_on"] == []


def test_when_the_parent_dies_it_stays_to_see_the_watchdogs_act() -> None:
    with TwinProcess() as twin:
        Host(twin.port).energize(4, watchdog=5)
        assert twin.process.stdin is not None
        started_s = time.monotonic()
        twin.process.stdin.close()
        twin.process.stdin = None
        summary = twin.finish()
    assert time.monotonic() - started_s >= 1.9
    assert summary["watchdog_expiries"] == 1
    assert summary["torque_on"] == [4]


def test_a_host_that_comes_back_finds_the_watchdog_expired() -> None:
    with TwinProcess() as twin:
        host = Host(twin.port)
        host.energize(1, watchdog=3)
        host.serial.close()
        time.sleep(0.2)
        host = Host(twin.port)
        assert host.read(1, Reg.BUS_WATCHDOG) == 0xFF
        assert host.read(1, Reg.GOAL_CURRENT, 2) == 0


def test_a_host_at_the_wrong_baud_rate_hears_nothing() -> None:
    with TwinProcess() as twin:
        wrong = Host(twin.port, 1_000_000)
        wrong.serial.write(instruction(1, Op.PING))
        assert wrong.serial.read(100) == b""
        time.sleep(0.1)
        assert wrong.serial.read(100) == b""
        wrong.serial.close()
        assert len(Host(twin.port).ask(instruction(1, Op.PING))) == 1


def test_a_stopped_twin_does_not_let_watchdogs_expire() -> None:
    with TwinProcess() as twin:
        host = Host(twin.port)
        host.energize(1, watchdog=50)
        # Silence longer than the watchdog's second that is the twin's own fault; the host did ask.
        os.kill(twin.process.pid, signal.SIGSTOP)
        host.serial.write(instruction(1, Op.PING))
        time.sleep(1.5)
        os.kill(twin.process.pid, signal.SIGCONT)
        wait_for(lambda: host.serial.in_waiting >= 14, "the answer after the pause")
        assert host.read(1, Reg.BUS_WATCHDOG) == 50
        os.kill(twin.process.pid, signal.SIGTERM)
        summary = twin.finish()
    assert summary["slips"] >= 1
    assert summary["slipped_ms"] > 1000


@pytest.mark.parametrize("paused_s", [0.0, 2.5])  # longer than the twin stays on after the host has gone
def test_an_unplugged_adapter_is_gone_for_the_host_and_watchdogs_still_act(paused_s: float) -> None:
    overrides = (
        "robot.sim.allow_faults=true",
        'robot.sim.faults=[{kind = "unplug", at_ns = 3_000_000_000}]',
    )
    with TwinProcess(*overrides) as twin:
        host = Host(twin.port)
        host.energize(2, watchdog=5)

        def gone() -> bool:
            try:
                host.serial.write(instruction(1, Op.PING))
                host.serial.read(100)
            except (serial.SerialException, OSError):
                return True
            return False

        wait_for(gone, "the port went away")
        os.kill(twin.process.pid, signal.SIGSTOP)
        time.sleep(paused_s)
        os.kill(twin.process.pid, signal.SIGCONT)
        summary = twin.finish()
    assert summary["watchdog_expiries"] == 1


def test_bytes_that_nobody_fetches_are_lost_and_do_not_block() -> None:
    port = PtyPort(BAUD)
    try:
        for _ in range(100):
            port.write(bytes(1000))
        assert port.lost > 0
        assert port.baud() == BAUD
    finally:
        port.close()
        port.close()
