"""The manufacturer's SDK as a second opinion on our bytes, where it follows its own specification."""

from __future__ import annotations

import random

import pytest

from robotsac_hardware import frames
from robotsac_hardware.crc import crc16

dynamixel_sdk = pytest.importorskip("dynamixel_sdk")


class Recorder:
    """Takes the place of the SDK's port handler and keeps what it is given to send."""

    def __init__(self) -> None:
        self.is_using = False
        self.sent = b""

    def clearPort(self) -> None: ...  # noqa: N802  the SDK's name

    def setPacketTimeout(self, length: int) -> None: ...  # noqa: N802

    def writePort(self, packet: list[int]) -> int:  # noqa: N802
        self.sent = bytes(packet)
        return len(packet)


@pytest.fixture
def port() -> Recorder:
    return Recorder()


def test_crc_agrees_on_random_bytes() -> None:
    handler, generator = dynamixel_sdk.PacketHandler(2.0), random.Random(3)
    for size in range(64):
        data = generator.randbytes(size)
        assert crc16(data) == handler.updateCRC(0, list(data), size)


def test_ping_read_write_reboot_agree(port: Recorder) -> None:
    handler = dynamixel_sdk.PacketHandler(2.0)
    handler.txPacket(port, [0, 0, 0, 0, 5, 3, 0, 1, 0, 0])
    assert port.sent == frames.ping(5)
    port.is_using = False
    handler.readTx(port, 5, 132, 4)
    assert port.sent == frames.read(5, 132, 4)
    port.is_using = False
    handler.writeTxOnly(port, 5, 102, 2, [0x12, 0x34])
    assert port.sent == frames.write(5, 102, b"\x12\x34")


@pytest.mark.parametrize("fast", [True, False])
def test_sync_read_requests_agree(port: Recorder, fast: bool) -> None:
    group = dynamixel_sdk.GroupSyncRead(port, dynamixel_sdk.PacketHandler(2.0), 224, 18)
    for dxl_id in (1, 2, 6):
        group.addParam(dxl_id)
    group.fastSyncReadTxPacket() if fast else group.txPacket()
    build = frames.fast_sync_read if fast else frames.sync_read
    assert port.sent == build(224, 18, [1, 2, 6])


def test_sync_write_agrees(port: Recorder) -> None:
    group = dynamixel_sdk.GroupSyncWrite(port, dynamixel_sdk.PacketHandler(2.0), 102, 2)
    group.addParam(1, [1, 2])
    group.addParam(6, [3, 4])
    group.txPacket()
    assert port.sent == frames.sync_write(102, 2, {1: b"\1\2", 6: b"\3\4"})
