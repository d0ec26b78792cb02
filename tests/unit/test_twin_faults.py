"""Faults on order: each does what it says, when it says, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from test_twin_bus import fast_blocks
from twin_world import MS, XM430, Bench, instruction, statuses, word

from robotsac.errors import BusLost, ConfigError
from robotsac_sim.twin.faults import (
    KINDS,
    Babble,
    BrownOut,
    CorruptReply,
    DelayReply,
    DropReply,
    HardwareError,
    Mute,
    Overheat,
    RebootServo,
    StuckEncoder,
    TruncateReply,
    Unplug,
    parse_fault,
)
from robotsac_sim.twin.protocol import BROADCAST_ID, Cause, Op
from robotsac_sim.twin.table import Reg

ALL = instruction(BROADCAST_ID, Op.FAST_SYNC_READ, word(Reg.ID) + word(1) + bytes((1, 2, 3)))


def three() -> Bench:
    return Bench(XM430, XM430, XM430, allow_faults=True)


def pings(bench: Bench, count: int) -> list[bool]:
    return [bool(bench.ask(1, Op.PING, wait_ms=2)) for _ in range(count)]


def test_the_nth_replies_are_dropped() -> None:
    bench = three()
    bench.bus.inject(DropReply(nth=1, count=2))
    assert pings(bench, 5) == [True, False, False, True, True]


@pytest.mark.parametrize("index", range(14))
def test_one_flipped_bit_anywhere_spoils_a_reply(index: int) -> None:
    bench = three()
    bench.bus.inject(CorruptReply(index=index, mask=0x20))
    assert pings(bench, 2) == [False, True]


def test_a_delayed_reply_comes_late() -> None:
    bench = three()
    bench.bus.inject(DelayReply(delay_ns=5 * MS))
    bench.port.write(instruction(1, Op.PING))
    assert bench.port.read(100, 5 * MS) == b""
    assert len(bench.port.read(100, 6 * MS)) == 14


@pytest.mark.parametrize("devices", [0, 1, 2])
def test_a_fast_read_is_cut_after_some_devices(devices: int) -> None:
    bench = three()
    bench.bus.inject(TruncateReply(devices=devices))
    reply = bench.raw(ALL, wait_ms=2)
    assert [each.id for each in fast_blocks(reply, 1)] == [1, 2, 3][:devices] if devices else reply == b""
    assert len(fast_blocks(bench.raw(ALL), 1)) == 3


def test_a_mute_servo_obeys_but_is_silent_for_its_time() -> None:
    bench = three()
    bench.bus.inject(Mute(id=2, duration_ns=50 * MS))
    assert bench.ask(2, Op.WRITE, word(Reg.LED) + b"\x01", wait_ms=10) == []
    assert [each.id for each in fast_blocks(bench.raw(ALL), 1)] == [1]
    bench.sleep(30)
    assert bench.read(Reg.LED, device_id=2) == 1


def test_a_rebooted_servo_is_away_and_comes_back_without_torque() -> None:
    bench = three()
    bench.torque_mode(current=50)
    bench.bus.inject(RebootServo(id=1, at_ns=bench.bus.t_ns + 10 * MS))
    bench.sleep(9)
    assert bench.physics.tau[0] > 0.0
    bench.sleep(5)
    assert bench.physics.tau[0] == 0.0
    assert pings(bench, 1) == [False]
    bench.sleep(310)
    assert bench.read(Reg.TORQUE_ENABLE) == 0
    assert bench.read(Reg.REALTIME_TICK) < 30


@pytest.mark.parametrize("cause", [Cause.OVERHEATING, Cause.OVERLOAD, Cause.ELECTRICAL_SHOCK])
def test_a_hardware_error_shuts_its_servo_down(cause: Cause) -> None:
    bench = three()
    bench.torque_mode(current=50, device_id=2)
    bench.bus.inject(HardwareError(id=2, causes=cause))
    bench.sleep(5)
    assert bench.physics.tau[1] == 0.0
    assert bench.read(Reg.HARDWARE_ERROR_STATUS, device_id=2) == cause
    assert [each.error for each in fast_blocks(bench.raw(ALL), 1)] == [0, 0x80, 0]


def test_heat_trips_the_servos_own_limit() -> None:
    bench = three()
    bench.bus.inject(Overheat(id=3, temperature_c=90.0))
    bench.sleep(20)
    assert bench.read(Reg.HARDWARE_ERROR_STATUS, device_id=3) == Cause.OVERHEATING
    assert bench.read(Reg.PRESENT_TEMPERATURE, device_id=3) == 90


def test_low_voltage_is_reported_and_a_brown_out_resets_everything() -> None:
    bench = three()
    bench.set(led=1)
    bench.bus.inject(BrownOut(volt_v=9.0, duration_ns=30 * MS))
    bench.sleep(50)
    assert bench.read(Reg.HARDWARE_ERROR_STATUS) == Cause.INPUT_VOLTAGE
    bench.bus.inject(BrownOut(volt_v=3.0, duration_ns=30 * MS))
    bench.sleep(15)
    assert bench.ask(BROADCAST_ID, Op.PING, wait_ms=5) == []
    bench.sleep(400)
    assert len(bench.ask(BROADCAST_ID, Op.PING)) == 3
    assert (bench.read(Reg.LED), bench.read(Reg.HARDWARE_ERROR_STATUS)) == (0, 0)


def test_a_stuck_encoder_shows_the_past() -> None:
    bench = three()
    bench.bus.inject(StuckEncoder(id=1, duration_ns=200 * MS))
    bench.physics.place(np.full(3, 0.5))
    bench.sleep(100)
    assert [bench.read(Reg.PRESENT_POSITION, device_id=k) for k in (1, 2)] == [2048, 2374]
    bench.sleep(150)
    assert bench.read(Reg.PRESENT_POSITION) == 2374


def test_babble_is_heard_and_garbles_a_reply_under_it() -> None:
    bench = three()
    bench.bus.inject(Babble(size=20))
    assert len(bench.port.read(100, bench.clock.now_ns() + 5 * MS)) == 20
    bench.bus.inject(Babble(size=200))
    assert pings(bench, 1) == [False]
    bench.sleep(5)
    bench.port.discard_input()
    assert pings(bench, 1) == [True]


def test_an_unplugged_port_is_lost_and_the_servos_watchdogs_act() -> None:
    bench = three()
    bench.torque_mode(current=50)
    bench.set(bus_watchdog=2)
    bench.bus.inject(Unplug())
    with pytest.raises(BusLost):
        bench.port.write(b"\0")
    with pytest.raises(BusLost):
        bench.port.read(1, 10**9)
    bench.sleep(60)
    assert bench.bus.world.watchdog_expiries == 1
    assert bench.physics.tau[0] == 0.0


def test_a_reply_that_an_unplugged_port_will_never_take_is_not_what_comes_next() -> None:
    """It would stay the next event for ever, and real time, which waits for what is overdue, would stand still."""
    bench = three()
    bench.port.write(instruction(1, Op.PING))
    while bench.bus.wire.next_burst_ns() is None:
        bench.bus.advance(bench.bus.t_ns + MS // 100)
    assert bench.bus.next_event_ns(whole_bursts=True) is not None
    bench.bus.inject(Unplug())
    assert bench.bus.next_event_ns(whole_bursts=True) is None and bench.bus.next_event_ns() is None


def test_a_fault_of_a_servo_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no servo with id 9"):
        three().bus.inject(Mute(id=9))


def test_faults_can_be_written_in_a_config() -> None:
    assert parse_fault({"kind": "reboot_servo", "id": 3, "at_ns": 5}) == RebootServo(id=3, at_ns=5)
    with pytest.raises(ConfigError, match="no fault 'nonsense'"):
        parse_fault({"kind": "nonsense"})
    with pytest.raises(ConfigError, match="babble"):
        parse_fault({"kind": "babble", "sise": 3})
    assert len(KINDS) == 12


def test_two_dropped_replies_do_not_disturb_the_stream_behind_them() -> None:
    bench = three()
    bench.bus.inject(DropReply(), CorruptReply(nth=1))
    streams = [statuses(bench.raw(instruction(k, Op.PING), wait_ms=2)) for k in (1, 2, 3)]
    assert [len(stream) for stream in streams] == [0, 0, 1]
