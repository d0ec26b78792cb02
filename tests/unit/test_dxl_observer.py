"""What the observer lets through and what it refuses, block by block."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import numpy as np
import pytest

from robotsac.arm import JointState
from robotsac.errors import BusCorrupt, JointFault
from robotsac_hardware import faults
from robotsac_hardware.bus import Servo
from robotsac_hardware.feedback import Rows
from robotsac_hardware.observer import Observer
from robotsac_hardware.params import ServoParams
from robotsac_hardware.units import JointUnits
from robotsac_hardware.velocity import SlopeVelocity

MS = 1_000_000
WATCHDOG = 5


@dataclass(frozen=True)
class Block:
    """One servo's answer."""

    position: int = 2048
    tick: int = 100
    error: int = 0
    hardware: int = 0
    watchdog: int = WATCHDOG
    torque: int = 1

    def row(self, dxl_id: int) -> bytes:
        values = (0, 0, self.position, self.tick, 120, 35, self.hardware, self.watchdog, self.torque)
        return bytes([self.error, dxl_id]) + struct.pack("<hiiHHBBBB", *values) + b"\0\0"


class Bench:
    """An observer of two joints."""

    def __init__(self) -> None:
        params = [ServoParams(id=k, model="XM430-W350", torque_constant_nm_a=1.8, current_max_a=1.0) for k in (1, 2)]
        self.rows = Rows((1, 2))
        servos = [Servo(joint, name, servo) for joint, (name, servo) in enumerate(zip("ab", params, strict=True))]
        self.observer = Observer(servos, JointUnits(params), self.rows, SlopeVelocity(2, 8, 0.064))
        self.observer.expect(energized=True, watchdog_units=WATCHDOG)
        self.seq = 0

    def see(self, t_ms: float, first: Block | None, second: Block | None) -> JointState:
        self.rows.begin()
        for place, block in enumerate((first, second)):
            if block is not None:
                self.rows.store(place, block.row(place + 1))
        self.seq += 1
        t_ns = int(t_ms * MS)
        return self.observer.observe(self.seq, t_ns, t_ns + MS, np.zeros(2))


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.see(100, Block(), Block())
    return bench


def test_a_healthy_round_becomes_a_state(bench: Bench) -> None:
    state = bench.see(104, Block(2058, 104), Block(2048, 104))
    np.testing.assert_allclose(state.q, [10 * 2 * np.pi / 4096, 0])
    assert state.temp_c.tolist() == [35, 35]
    assert state.volt_v.tolist() == [12, 12]
    assert state.fresh.all()
    assert not state.faults.any()
    assert (state.seq, state.t_ns) == (2, 105 * MS)


def test_a_silent_joint_keeps_its_values_and_is_not_fresh(bench: Bench) -> None:
    state = bench.see(104, Block(2058, 104), None)
    assert state.fresh.tolist() == [True, False]
    assert state.q[1] == 0


def test_states_do_not_share_memory_with_later_rounds(bench: Bench) -> None:
    state = bench.see(104, Block(2058, 104), Block(2048, 104))
    copies = {name: getattr(state, name).copy() for name in ("q", "dq", "tau", "temp_c", "volt_v", "fresh", "faults")}
    bench.see(108, Block(2068, 108), None)
    for name, copy in copies.items():
        np.testing.assert_array_equal(getattr(state, name), copy)


@pytest.mark.parametrize(
    ("wrong", "words", "bits"),
    [
        (Block(error=0x80, hardware=0x04), "overheating", 0x84),
        (Block(error=0x00, hardware=0x20), "overload", 0xA0),
        (Block(error=0x80), "alert without", 0x80),
        (Block(error=0x07), "access error", 0),
        (Block(watchdog=0xFF), "watchdog expired", faults.WATCHDOG_EXPIRED),
        (Block(watchdog=0), "watchdog reads 0", faults.WATCHDOG_EXPIRED),
        (Block(torque=0), "torque went off", faults.TORQUE_LOST),
        (Block(tick=50), "rebooted", faults.REBOOTED),
        (Block(tick=99), "rebooted", faults.REBOOTED),
    ],
)
@pytest.mark.parametrize("joint", [0, 1])
def test_a_complaint_of_one_joint_is_a_fault_at_once(
    bench: Bench, wrong: Block, words: str, bits: int, joint: int
) -> None:
    if wrong.tick == 100:
        wrong = replace(wrong, tick=104)
    blocks = [Block(tick=104), Block(tick=104)]
    blocks[joint] = wrong
    with pytest.raises(JointFault, match=words) as caught:
        bench.see(104, *blocks)
    assert (caught.value.joint, caught.value.bits) == (joint, bits)


def test_a_complaint_in_a_block_that_did_not_arrive_is_not_repeated(bench: Bench) -> None:
    """Only what this round brought can be a fault of this round."""
    with pytest.raises(JointFault):
        bench.see(104, Block(tick=104), Block(tick=104, torque=0))
    assert bench.see(108, Block(tick=108), None).fresh.tolist() == [True, False]


def test_the_tick_may_wrap() -> None:
    bench = Bench()
    bench.see(100, Block(tick=32766), Block(tick=32766))
    bench.see(104, Block(tick=2), Block(tick=2))


def test_replies_that_were_held_up_are_no_reboot(bench: Bench) -> None:
    bench.see(104, Block(tick=120), Block(tick=120))
    bench.see(108, Block(tick=124), Block(tick=124))


def test_after_a_long_pause_the_tick_says_nothing(bench: Bench) -> None:
    bench.see(100 + 20_000, Block(tick=5), Block(tick=5))


@pytest.mark.parametrize("position", [2048 + 4096, -2048, 2048 - 1000])
def test_a_step_that_no_motor_makes_is_refused_and_not_remembered(bench: Bench, position: int) -> None:
    with pytest.raises(BusCorrupt, match="joint 1 \\(b\\): encoder went from 2048"):
        bench.see(104, Block(tick=104), Block(position, 104))
    bench.see(108, Block(tick=108), Block(tick=108))


def test_a_fast_joint_is_not_refused(bench: Bench) -> None:
    """50 rad/s at 4 ms is 130 counts."""
    bench.see(104, Block(tick=104), Block(2048 + 130, 104))


def test_at_rest_an_expired_watchdog_is_shown_but_no_fault(bench: Bench) -> None:
    bench.observer.expect(energized=False, watchdog_units=0)
    state = bench.see(104, Block(tick=104, torque=0), Block(tick=104, torque=0, watchdog=0xFF))
    assert state.faults.tolist() == [0, faults.WATCHDOG_EXPIRED]


def test_at_rest_torque_that_is_on_is_a_fault(bench: Bench) -> None:
    bench.observer.expect(energized=False, watchdog_units=0)
    with pytest.raises(JointFault, match="nobody asked"):
        bench.see(104, Block(tick=104, torque=0), Block(tick=104, torque=1))
