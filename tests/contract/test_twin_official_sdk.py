"""The manufacturer's own SDK talks to the twin: in memory with exact time, and on a pty in real time.

The SDK is a witness from outside for the bytes of both directions. Its known slips (no stuffing when it sends, per-device
errors of a fast read ignored) are tested as what firmware would make of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dynamixel_sdk as sdk
import dynamixel_sdk.port_handler
import pytest
from twin_process import TwinProcess

from robotsac.clock import ManualClock
from robotsac.config import load_config
from robotsac_sim.twin.bus import VirtualBus
from robotsac_sim.twin.memory_port import MemoryPort
from robotsac_sim.twin.setup import build_bus

BAUD = 3_000_000
IDS = (1, 2, 3, 4, 5, 6)
MODEL_XM540, MODEL_XM430 = 1120, 1020
MS = 1_000_000
TORQUE_ENABLE, LED, GOAL_CURRENT, GOAL_POSITION, PRESENT_POSITION = 64, 65, 102, 116, 132


class MemoryPortHandler:
    """The SDK's port handler on a manual clock."""

    def __init__(self, bus: VirtualBus) -> None:
        self.bus = bus
        self.is_using = False
        self.baudrate = BAUD
        self.tx_time_per_byte = 10_000.0 / BAUD
        self._clock = ManualClock(on_advance=bus.advance)
        self._port = MemoryPort(bus, self._clock)
        self._end_ns = 0

    def clearPort(self) -> None:  # noqa: N802
        self._port.discard_input()

    def writePort(self, packet: list[int]) -> int:  # noqa: N802
        self._port.write(bytes(packet))
        return len(packet)

    def readPort(self, length: int) -> bytes:  # noqa: N802
        return self._port.read(length, self._clock.now_ns() + MS // 10)

    def setPacketTimeout(self, length: int) -> None:  # noqa: N802
        self.setPacketTimeoutMillis(self.tx_time_per_byte * length + 34.0)

    def setPacketTimeoutMillis(self, milliseconds: float) -> None:  # noqa: N802
        self._end_ns = self._clock.now_ns() + int(milliseconds * MS)

    def isPacketTimeout(self) -> bool:  # noqa: N802
        return self._clock.now_ns() > self._end_ns

    def getBaudRate(self) -> int:  # noqa: N802
        return self.baudrate

    def pause(self, seconds: float) -> None:
        self._clock.advance(int(seconds * 1e9))


@pytest.fixture(scope="module")
def pty_port() -> Iterator[Any]:
    # The SDK waits 34 ms for a reply; this machine may be busier than that.
    dynamixel_sdk.port_handler.LATENCY_TIMER = 1000
    with TwinProcess() as twin:
        port = sdk.PortHandler(twin.port)
        port.baudrate = BAUD
        assert port.openPort()
        yield port
        port.closePort()
    dynamixel_sdk.port_handler.LATENCY_TIMER = 16


@pytest.fixture(params=["memory", "pty"])
def port(request: pytest.FixtureRequest) -> Any:
    if request.param == "pty":
        return request.getfixturevalue("pty_port")
    return MemoryPortHandler(build_bus(load_config("arm0").robot))


@pytest.fixture
def packets() -> Any:
    return sdk.PacketHandler(2.0)


def written(group: Any, values: dict[int, int], size: int) -> None:
    for device_id, value in values.items():
        assert group.addParam(device_id, list(value.to_bytes(size, "little", signed=True)))
    assert group.txPacket() == sdk.COMM_SUCCESS


def test_ping(port: Any, packets: Any) -> None:
    assert packets.ping(port, 1) == (MODEL_XM540, sdk.COMM_SUCCESS, 0)
    assert packets.ping(port, 6) == (MODEL_XM430, sdk.COMM_SUCCESS, 0)


def test_nobody_answers_to_a_strange_id(packets: Any) -> None:
    port = MemoryPortHandler(build_bus(load_config("arm0").robot))
    assert packets.ping(port, 77)[1] == sdk.COMM_RX_TIMEOUT


def test_broadcast_ping(port: Any, packets: Any) -> None:
    found, result = packets.broadcastPing(port)
    assert result == sdk.COMM_SUCCESS
    assert {device_id: model for device_id, (model, _) in found.items()} == {
        device_id: MODEL_XM540 if device_id <= 3 else MODEL_XM430 for device_id in IDS
    }


def test_reads_of_one_two_and_four_bytes(port: Any, packets: Any) -> None:
    assert packets.read1ByteTxRx(port, 4, 7) == (4, sdk.COMM_SUCCESS, 0)
    assert packets.read2ByteTxRx(port, 4, 38) == (1193, sdk.COMM_SUCCESS, 0)
    position, result, error = packets.read4ByteTxRx(port, 4, PRESENT_POSITION)
    assert (result, error) == (sdk.COMM_SUCCESS, 0)
    assert 0 <= position <= 4095


def test_writes_of_one_two_and_four_bytes(port: Any, packets: Any) -> None:
    assert packets.write1ByteTxRx(port, 2, LED, 1) == (sdk.COMM_SUCCESS, 0)
    assert packets.write2ByteTxRx(port, 2, GOAL_CURRENT, 100) == (sdk.COMM_SUCCESS, 0)
    assert packets.write4ByteTxRx(port, 2, GOAL_POSITION, 2000) == (sdk.COMM_SUCCESS, 0)
    assert packets.read1ByteTxRx(port, 2, LED)[0] == 1
    assert packets.read2ByteTxRx(port, 2, GOAL_CURRENT)[0] == 100
    assert packets.read4ByteTxRx(port, 2, GOAL_POSITION)[0] == 2000


def test_refusals_reach_the_sdk_as_errors(port: Any, packets: Any) -> None:
    assert packets.write2ByteTxRx(port, 5, GOAL_CURRENT, 2000) == (sdk.COMM_SUCCESS, sdk.ERRNUM_DATA_LIMIT)
    assert packets.write1ByteTxRx(port, 5, TORQUE_ENABLE, 7) == (sdk.COMM_SUCCESS, sdk.ERRNUM_DATA_RANGE)
    assert packets.write2ByteTxRx(port, 5, GOAL_POSITION, 7) == (sdk.COMM_SUCCESS, sdk.ERRNUM_DATA_LENGTH)
    assert packets.write1ByteTxRx(port, 5, 122, 1) == (sdk.COMM_SUCCESS, sdk.ERRNUM_ACCESS)


@pytest.mark.parametrize("fast", [False, True])
def test_group_sync_read_and_write(port: Any, packets: Any, fast: bool) -> None:
    goals = {device_id: 10 * device_id - 35 for device_id in IDS}
    written(sdk.GroupSyncWrite(port, packets, GOAL_CURRENT, 2), goals, 2)
    group = sdk.GroupSyncRead(port, packets, GOAL_CURRENT, 2)
    for device_id in IDS:
        assert group.addParam(device_id)
    assert (group.fastSyncRead() if fast else group.txRxPacket()) == sdk.COMM_SUCCESS
    for device_id, goal in goals.items():
        assert group.isAvailable(device_id, GOAL_CURRENT, 2)
        assert group.getData(device_id, GOAL_CURRENT, 2) == goal & 0xFFFF


@pytest.mark.parametrize("fast", [False, True])
def test_group_bulk_read_and_write(port: Any, packets: Any, fast: bool) -> None:
    group = sdk.GroupBulkWrite(port, packets)
    assert group.addParam(1, GOAL_CURRENT, 2, list((77).to_bytes(2, "little")))
    assert group.addParam(5, LED, 1, [1])
    assert group.txPacket() == sdk.COMM_SUCCESS
    read = sdk.GroupBulkRead(port, packets)
    assert read.addParam(1, GOAL_CURRENT, 2)
    assert read.addParam(5, LED, 1)
    assert (read.fastBulkRead() if fast else read.txRxPacket()) == sdk.COMM_SUCCESS
    assert read.getData(1, GOAL_CURRENT, 2) == 77
    assert read.getData(5, LED, 1) == 1


def test_reg_write_and_action(port: Any, packets: Any) -> None:
    assert packets.regWriteTxRx(port, 3, LED, 1, [1]) == (sdk.COMM_SUCCESS, 0)
    assert packets.read1ByteTxRx(port, 3, 69)[0] == 1
    # The SDK awaits no answer to an Action, so it goes to all, who give none.
    packets.action(port, sdk.BROADCAST_ID)
    assert packets.read1ByteTxRx(port, 3, 69)[0] == 0
    assert packets.read1ByteTxRx(port, 3, LED)[0] == 1


def test_reboot_forgets_the_ram(port: Any, packets: Any) -> None:
    packets.write1ByteTxRx(port, 6, LED, 1)
    assert packets.reboot(port, 6) == (sdk.COMM_SUCCESS, 0)
    wait_until_back(port, packets, 6)
    assert packets.read1ByteTxRx(port, 6, LED)[0] == 0


def test_factory_reset_but_for_id_and_baud(port: Any, packets: Any) -> None:
    assert packets.write2ByteTxRx(port, 6, 38, 99) == (sdk.COMM_SUCCESS, 0)
    assert packets.factoryReset(port, 6, 0x02) == (sdk.COMM_SUCCESS, 0)
    wait_until_back(port, packets, 6)
    assert packets.read2ByteTxRx(port, 6, 38)[0] == 1193


def test_clear_multi_turn(port: Any, packets: Any) -> None:
    # Whether it is refused depends on whether the arm still swings; either way the SDK understands the answer.
    result, error = packets.clearMultiTurn(port, 1)
    assert result == sdk.COMM_SUCCESS
    assert error in (0, sdk.ERRNUM_RESULT_FAIL)


def test_a_write_the_sdk_does_not_stuff_is_lost_as_on_real_firmware(packets: Any) -> None:
    port = MemoryPortHandler(build_bus(load_config("arm0").robot))
    # 0x00FDFFFF goes out as FF FF FD 00: a header.
    result, _ = packets.write4ByteTxRx(port, 1, GOAL_POSITION, 0x00FDFFFF)
    assert result == sdk.COMM_RX_TIMEOUT
    assert port.bus.parser.resyncs == 1
    assert packets.ping(port, 1)[1] == sdk.COMM_SUCCESS


def wait_until_back(port: Any, packets: Any, device_id: int) -> None:
    """A servo that boots says nothing; on the pty that takes real time."""
    for _ in range(10):
        if isinstance(port, MemoryPortHandler):
            port.pause(0.2)
        if packets.ping(port, device_id)[1] == sdk.COMM_SUCCESS:
            return
    raise AssertionError(f"servo {device_id} did not come back")
