"""From a robot's config to a bus: arm0 on its MuJoCo plant, and what is refused."""

from __future__ import annotations

import pytest
from twin_world import instruction, statuses, word

from robotsac.clock import ManualClock
from robotsac.config import load_config
from robotsac.config.schema import RobotConfig
from robotsac.errors import ConfigError
from robotsac_sim.twin.encoder import COUNTS_PER_RAD
from robotsac_sim.twin.faults import DropReply
from robotsac_sim.twin.memory_port import MemoryPort
from robotsac_sim.twin.protocol import BROADCAST_ID, Op
from robotsac_sim.twin.setup import build_bus
from robotsac_sim.twin.table import Reg


def robot(*overrides: str) -> RobotConfig:
    return load_config("arm0", (), list(overrides)).robot


def test_arm0s_pose_reads_in_counts_of_its_servos() -> None:
    bus = build_bus(robot())
    clock = ManualClock(on_advance=bus.advance)
    port = MemoryPort(bus, clock)
    port.write(instruction(BROADCAST_ID, Op.SYNC_READ, word(Reg.PRESENT_POSITION) + word(4) + bytes(range(1, 7))))
    stream = b""
    # Factory return delay: half a millisecond for each servo.
    while clock.now_ns() < 10_000_000:
        stream += port.read(1000, 10_000_000)
    counts = [int.from_bytes(each.data, "little", signed=True) for each in statuses(stream)]
    signs = (1, 1, -1, 1, -1, 1)
    expected = [2048 + sign * q * COUNTS_PER_RAD for q, sign in zip(bus.world.physics.q, signs, strict=True)]
    # The arm may still settle while the servos answer one after the other.
    assert counts == pytest.approx(expected, abs=6)


def test_servos_come_from_the_box_but_for_their_baud_rate() -> None:
    bus = build_bus(robot())
    assert [servo.configured.id for servo in bus.servos] == [1, 2, 3, 4, 5, 6]
    assert bus.host_baud == 3_000_000
    for servo in bus.servos:
        assert servo.configured.mode == 3
        assert servo.configured.return_delay_ns == 500_000


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("robot.sim.servos=[]", "0 entries for 6 joints"),
        ("robot.sim.baud=12345", "12345"),
        ("robot.sim.bauds=1", "bauds"),
        ('robot.sim.faults=[{kind="unplug"}]', "allow_faults"),
    ],
)
def test_a_wrong_table_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_bus(robot(override))


def one_servo(**entry: object) -> RobotConfig:
    base = robot()
    servos = [{"id": 1, "model": "XM430-W350", **entry}]
    return base.model_copy(update={"sim": {"servos": servos}, "joints": base.joints[:1]})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"model": "XL330-M288"}, "XL330-M288"),
        ({"id": 253}, "id"),
        ({"registers": {"goal_current": 0}}, "goal_current"),
        ({"registers": {"nonsense": 0}}, "nonsense"),
        ({"registers": {"operating_mode": 2}}, "operating_mode"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_servo_is_refused(entry: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_bus(one_servo(**entry))
    assert message in str(caught.value)


def test_faults_open_through_config_or_argument() -> None:
    build_bus(robot("robot.sim.allow_faults=true")).inject(DropReply())
    build_bus(robot(), allow_faults=True).inject(DropReply())
    with pytest.raises(ConfigError):
        build_bus(robot("robot.sim.allow_faults=true"), allow_faults=False).inject(DropReply())
