"""Registers: what may be read and written, and what a mistake is answered with."""

from __future__ import annotations

import pytest
from twin_world import MS, XM430, XM540, Bench, Status, word

from robotsac_sim.twin.protocol import ErrorCode, Op
from robotsac_sim.twin.table import INDIRECT_ADDRESSES, INDIRECT_DATA, TABLE_SIZE, Reg, build_table

READ_ONLY = [
    Reg.MODEL_NUMBER,
    Reg.FIRMWARE_VERSION,
    Reg.REGISTERED_INSTRUCTION,
    Reg.HARDWARE_ERROR_STATUS,
    Reg.REALTIME_TICK,
    Reg.MOVING,
    Reg.PRESENT_CURRENT,
    Reg.PRESENT_POSITION,
    Reg.BACKUP_READY,
]


@pytest.mark.parametrize("model", [XM430, XM540])
def test_registers_do_not_overlap_and_stay_inside_the_table(model) -> None:  # type: ignore[no-untyped-def]
    taken: set[int] = set()
    for item in build_table(model).values():
        span = set(range(item.address, item.address + item.size))
        assert not span & taken
        taken |= span
    assert max(taken) == TABLE_SIZE - 1


@pytest.mark.parametrize(
    ("model", "number", "current", "velocity"), [(XM430, 1020, 1193, 200), (XM540, 1120, 2047, 128)]
)
def test_factory_values_of_the_models(model, number: int, current: int, velocity: int) -> None:  # type: ignore[no-untyped-def]
    bench = Bench(model)
    assert bench.read(Reg.CURRENT_LIMIT) == current
    assert bench.read(Reg.VELOCITY_LIMIT) == velocity
    assert bench.read(Reg.SHUTDOWN) == 0x34
    assert bench.read(Reg.TEMPERATURE_LIMIT) == 80
    assert bench.read(Reg.MAX_VOLTAGE_LIMIT) == 160
    assert bench.read(Reg.MIN_VOLTAGE_LIMIT) == 95
    assert bench.read(Reg.OPERATING_MODE) == 3
    assert bench.read(Reg.GOAL_CURRENT) == current
    assert bench.one(1, Op.PING).data == word(number) + bytes((46,))


def test_external_ports_exist_on_the_xm540_only() -> None:
    assert Bench(XM540).one(1, Op.READ, word(56) + word(1)).data == b"\x03"
    assert Bench(XM430).one(1, Op.READ, word(56) + word(1)) == Status(1, ErrorCode.ACCESS, b"")


@pytest.mark.parametrize("reg", READ_ONLY)
def test_a_read_only_register_refuses_writes(reg: Reg) -> None:
    assert Bench().write(reg, 0) == ErrorCode.ACCESS


@pytest.mark.parametrize("address", [14, 66, 71, 92, 148, 300, 661 + 1])
def test_an_undefined_address_refuses_reads_and_writes(address: int) -> None:
    bench = Bench()
    assert bench.one(1, Op.READ, word(address) + word(1)) == Status(1, ErrorCode.ACCESS, b"")
    assert bench.one(1, Op.WRITE, word(address) + b"\0").error == ErrorCode.ACCESS


def test_a_read_beyond_the_table_brings_no_data() -> None:
    assert Bench().one(1, Op.READ, word(660) + word(3)) == Status(1, ErrorCode.ACCESS, b"")


def test_a_read_across_a_hole_brings_zeros_there() -> None:
    assert Bench().one(1, Op.READ, word(64) + word(5)).data == b"\0\0\0\0\x02"


def test_a_write_shorter_than_its_register_is_a_length_error() -> None:
    bench = Bench()
    assert bench.write(Reg.GOAL_POSITION, 0, size=2) == ErrorCode.DATA_LENGTH
    assert bench.write(Reg.GOAL_CURRENT, 0, size=1) == ErrorCode.DATA_LENGTH
    assert bench.one(1, Op.WRITE, word(Reg.LED)).error == ErrorCode.DATA_LENGTH


def test_one_write_may_set_neighbouring_registers() -> None:
    bench = Bench()
    assert bench.one(1, Op.WRITE, word(Reg.GOAL_PWM) + word(100) + word(-7)).error == 0
    assert (bench.read(Reg.GOAL_PWM), bench.read(Reg.GOAL_CURRENT)) == (100, -7)


def test_a_write_that_is_refused_in_part_changes_nothing() -> None:
    bench = Bench()
    assert bench.one(1, Op.WRITE, word(Reg.GOAL_PWM) + word(100) + word(1194)).error == ErrorCode.DATA_LIMIT
    assert bench.read(Reg.GOAL_PWM) == 885


@pytest.mark.parametrize(
    ("reg", "good", "bad"),
    [
        (Reg.ID, 252, 253),
        (Reg.BAUD_RATE, 3, 8),
        (Reg.RETURN_DELAY_TIME, 254, 255),
        (Reg.OPERATING_MODE, 16, 2),
        (Reg.HOMING_OFFSET, -1_044_479, -1_044_480),
        (Reg.TEMPERATURE_LIMIT, 100, 101),
        (Reg.PWM_LIMIT, 885, 886),
        (Reg.CURRENT_LIMIT, 1193, 1194),
        (Reg.VELOCITY_LIMIT, 1023, 1024),
        (Reg.MAX_POSITION_LIMIT, 4095, 4096),
        (Reg.STARTUP_CONFIGURATION, 3, 4),
        (Reg.TORQUE_ENABLE, 1, 2),
        (Reg.STATUS_RETURN_LEVEL, 2, 3),
        (Reg.BUS_WATCHDOG, 127, 128),
        (Reg.POSITION_P_GAIN, 16_383, 16_384),
        (Reg.PROFILE_VELOCITY, 32_767, 32_768),
    ],
)
def test_range_is_checked_on_both_sides_of_its_edge(reg: Reg, good: int, bad: int) -> None:
    assert Bench().write(reg, bad) == ErrorCode.DATA_RANGE
    assert Bench().write(reg, good) == 0


@pytest.mark.parametrize(
    ("limit", "goal", "value"),
    [
        (Reg.CURRENT_LIMIT, Reg.GOAL_CURRENT, 300),
        (Reg.PWM_LIMIT, Reg.GOAL_PWM, 300),
        (Reg.VELOCITY_LIMIT, Reg.GOAL_VELOCITY, 100),
    ],
)
def test_goals_keep_to_their_configured_limits(limit: Reg, goal: Reg, value: int) -> None:
    bench = Bench()
    assert bench.write(limit, value) == 0
    for sign in (1, -1):
        assert bench.write(goal, sign * value) == 0
        assert bench.write(goal, sign * (value + 1)) == ErrorCode.DATA_LIMIT
        assert bench.read(goal) == sign * value


def test_position_limits_hold_in_position_mode_only() -> None:
    bench = Bench()
    bench.set(min_position_limit=1000, max_position_limit=3000)
    assert bench.write(Reg.GOAL_POSITION, 3001) == ErrorCode.DATA_LIMIT
    bench.set(operating_mode=4)
    assert bench.write(Reg.GOAL_POSITION, 3001) == 0
    assert bench.write(Reg.GOAL_POSITION, 1_048_576) == ErrorCode.DATA_RANGE


@pytest.mark.parametrize("reg", [Reg.ID, Reg.OPERATING_MODE, Reg.CURRENT_LIMIT, Reg.SHUTDOWN, Reg.RETURN_DELAY_TIME])
def test_eeprom_is_locked_while_torque_is_on(reg: Reg) -> None:
    bench = Bench()
    before = bench.read(reg)
    bench.set(torque_enable=1)
    assert bench.write(reg, before) == ErrorCode.ACCESS
    bench.set(torque_enable=0)
    assert bench.write(reg, before) == 0


def test_eeprom_survives_a_reboot_and_ram_does_not() -> None:
    bench = Bench()
    bench.set(current_limit=321, led=1, bus_watchdog=5)
    bench.one(1, Op.REBOOT)
    bench.sleep(400)
    assert bench.read(Reg.CURRENT_LIMIT) == 321
    assert (bench.read(Reg.LED), bench.read(Reg.BUS_WATCHDOG)) == (0, 0)


def test_indirect_blocks_lie_where_the_e_manual_has_them() -> None:
    assert {168, 222, 578, 632} <= INDIRECT_ADDRESSES
    assert {224, 251, 634, 661} <= INDIRECT_DATA
    bench = Bench()
    for address, default in ((168, 224), (222, 251), (578, 634), (632, 661)):
        assert bench.one(1, Op.READ, word(address) + word(2)).data == word(default)


@pytest.mark.parametrize(("addresses", "data"), [(168, 224), (578, 634)])
def test_indirect_reads_are_byte_by_byte(addresses: int, data: int) -> None:
    bench = Bench(q=0.3)
    for k, target in enumerate((Reg.PRESENT_POSITION + 1, Reg.PRESENT_POSITION, Reg.BUS_WATCHDOG)):
        assert bench.one(1, Op.WRITE, word(addresses + 2 * k) + word(target)).error == 0
    bench.set(bus_watchdog=9)
    position = word(bench.read(Reg.PRESENT_POSITION), 4)
    assert bench.one(1, Op.READ, word(data) + word(3)).data == bytes((position[1], position[0], 9))


def test_indirect_writes_reach_their_registers_with_all_their_rules() -> None:
    bench = Bench()
    for k in range(2):
        bench.one(1, Op.WRITE, word(168 + 2 * k) + word(Reg.GOAL_CURRENT + k))
    assert bench.one(1, Op.WRITE, word(224) + word(-55)).error == 0
    assert bench.read(Reg.GOAL_CURRENT) == -55
    assert bench.one(1, Op.WRITE, word(224) + word(1194)).error == ErrorCode.DATA_LIMIT
    assert bench.one(1, Op.WRITE, word(224) + b"\0").error == ErrorCode.DATA_LENGTH
    bench.one(1, Op.WRITE, word(168) + word(Reg.MOVING))
    assert bench.one(1, Op.WRITE, word(224) + b"\0").error == ErrorCode.ACCESS


@pytest.mark.parametrize("target", [0, 63, 662])
def test_indirect_addresses_reach_ram_only(target: int) -> None:
    assert Bench().one(1, Op.WRITE, word(168) + word(target)).error == ErrorCode.DATA_RANGE


def test_indirect_addresses_are_lost_on_reboot() -> None:
    bench = Bench()
    bench.one(1, Op.WRITE, word(578) + word(Reg.PRESENT_POSITION))
    bench.one(1, Op.REBOOT)
    bench.sleep(400)
    assert bench.one(1, Op.READ, word(578) + word(2)).data == word(634)


def test_realtime_tick_counts_milliseconds_and_wraps_after_32767() -> None:
    bench = Bench()
    bench.clock.sleep_until(32_766 * MS)
    assert bench.read(Reg.REALTIME_TICK) == 32_766
    bench.clock.sleep_until(32_769 * MS)
    assert bench.read(Reg.REALTIME_TICK) == 1


def test_mode_change_resets_gains_and_raises_the_goals_to_their_limits() -> None:
    bench = Bench()
    bench.set(position_p_gain=123, profile_velocity=7, current_limit=400, goal_current=0, goal_pwm=0)
    bench.set(operating_mode=0)
    assert bench.read(Reg.POSITION_P_GAIN) == 800
    assert bench.read(Reg.PROFILE_VELOCITY) == 0
    assert bench.read(Reg.GOAL_CURRENT) == 400
    assert bench.read(Reg.GOAL_PWM) == 885


def test_reg_write_waits_for_action() -> None:
    bench = Bench()
    assert bench.one(1, Op.ACTION).error == ErrorCode.INSTRUCTION
    assert bench.one(1, Op.REG_WRITE, word(Reg.LED) + b"\x01").error == 0
    assert (bench.read(Reg.LED), bench.read(Reg.REGISTERED_INSTRUCTION)) == (0, 1)
    assert bench.one(1, Op.ACTION).error == 0
    assert (bench.read(Reg.LED), bench.read(Reg.REGISTERED_INSTRUCTION)) == (1, 0)
    assert bench.one(1, Op.ACTION).error == ErrorCode.INSTRUCTION


def test_reg_write_is_checked_when_it_is_given() -> None:
    bench = Bench()
    assert bench.one(1, Op.REG_WRITE, word(Reg.GOAL_CURRENT) + word(2000)).error == ErrorCode.DATA_LIMIT
    assert bench.read(Reg.REGISTERED_INSTRUCTION) == 0


@pytest.mark.parametrize(("option", "kept"), [(0xFF, ()), (0x01, ("id",)), (0x02, ("id", "baud"))])
def test_factory_reset_keeps_what_it_says(option: int, kept: tuple[str, ...]) -> None:
    bench = Bench(ids=(9,), presets={Reg.CURRENT_LIMIT: 50, Reg.SHUTDOWN: 0})
    assert bench.one(9, Op.FACTORY_RESET, bytes((option,))).error == 0
    assert bench.ask(9, Op.PING) == []
    bench.sleep(1100)
    bench.bus.host_baud = 1_000_000 if "baud" in kept else 57_600
    device_id = 9 if "id" in kept else 1
    # 57 600 bit/s and the factory's return delay take their time.
    assert bench.read(Reg.CURRENT_LIMIT, device_id=device_id, wait_ms=20) == 1193
    assert bench.read(Reg.SHUTDOWN, device_id=device_id, wait_ms=20) == 0x34


def test_backup_brings_the_eeprom_back() -> None:
    bench = Bench()
    assert bench.one(1, Op.BACKUP, b"\x02CTRL").error == ErrorCode.RESULT_FAIL
    bench.set(current_limit=77)
    assert bench.one(1, Op.BACKUP, b"\x01CTRL").error == 0
    assert bench.read(Reg.BACKUP_READY) == 1
    bench.set(current_limit=88)
    assert bench.one(1, Op.BACKUP, b"\x02CTRL").error == 0
    bench.sleep(400)
    assert bench.read(Reg.CURRENT_LIMIT) == 77
    assert bench.one(1, Op.BACKUP, b"\x01NOPE").error == ErrorCode.DATA_RANGE


def test_startup_configuration_turns_torque_on_and_restores_ram() -> None:
    bench = Bench(presets={Reg.STARTUP_CONFIGURATION: 3})
    bench.set(led=1, position_p_gain=321)
    bench.one(1, Op.BACKUP, b"\x01CTRL")
    bench.one(1, Op.REBOOT)
    bench.sleep(400)
    assert (bench.read(Reg.TORQUE_ENABLE), bench.read(Reg.LED), bench.read(Reg.POSITION_P_GAIN)) == (1, 1, 321)


def test_unknown_instruction_is_an_instruction_error() -> None:
    assert Bench().one(1, 0x77).error == ErrorCode.INSTRUCTION
