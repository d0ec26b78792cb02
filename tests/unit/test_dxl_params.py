"""What [robot.driver] of a Dynamixel arm refuses, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from robotsac.config.loading import load_config
from robotsac.config.schema import RobotConfig
from robotsac.errors import ConfigError
from robotsac_hardware.params import read_params


def robot(**driver: Any) -> RobotConfig:
    """arm0 with some keys of [robot.driver] replaced."""
    tree = load_config("arm0").robot.model_dump()
    tree["driver"].update(driver)
    return RobotConfig.model_validate(tree)


def with_servo(index: int, **changes: Any) -> RobotConfig:
    servos = [dict(servo) for servo in load_config("arm0").robot.driver.params()["servos"]]
    servos[index].update(changes)
    return robot(servos=servos)


@pytest.mark.parametrize("name", ["arm0", "arm0-twin"])
def test_shipped_configs_are_accepted(name: str) -> None:
    config = load_config(name).robot
    params = read_params(config)
    assert len(params.servos) == len(config.joints)
    assert bool(params.port) != bool(params.port_command)


def refused(config: RobotConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        read_params(config)
    return f"{caught.value.message} {caught.value.reason}"


def test_an_unknown_key_names_the_nearest() -> None:
    assert "'read_deadline_ms'" in refused(robot(read_deadlin_ms=2.0))


def test_port_and_port_command_exclude_each_other() -> None:
    assert "exactly one" in refused(robot(port_command=["robotsac", "twin"]))
    assert "exactly one" in refused(robot(port=""))


def test_a_rate_no_servo_knows_is_refused() -> None:
    assert "baud 500000" in refused(robot(baud=500_000))


def test_a_rate_this_model_does_not_run_at_is_refused() -> None:
    words = refused(
        RobotConfig.model_validate(
            with_servo(5, model="XC330-T288", current_max_a=0.9, torque_constant_nm_a=2.5).model_dump()
            | {"driver": with_servo(5, model="XC330-T288", current_max_a=0.9).driver.model_dump() | {"baud": 4_500_000}}
        )
    )
    assert "XC330-T288 (id 6) does not run at 4500000" in words


@pytest.mark.parametrize("watchdog_ms", [0, 19, 110, 2560])
def test_watchdog_is_a_multiple_of_its_unit(watchdog_ms: int) -> None:
    assert "multiple of 20 ms" in refused(robot(watchdog_ms=watchdog_ms))


def test_watchdog_outlasts_the_longest_gap_the_guard_allows() -> None:
    assert "watchdog_ms 40 ms must exceed" in refused(robot(watchdog_ms=40))


def test_ids_differ() -> None:
    assert "ids must differ" in refused(with_servo(1, id=1))


def test_one_servo_per_joint() -> None:
    servos = load_config("arm0").robot.driver.params()["servos"][:5]
    assert "5 servos for 6 joints" in refused(robot(servos=servos))


def test_a_torque_limit_beyond_the_current_limit_names_joint_value_and_limit() -> None:
    words = refused(with_servo(1, current_max_a=3.0))
    assert "joint 1 (shoulder_pitch): tau_max_nm 8 N·m > 7.227 N·m" in words


def test_a_current_the_servo_does_not_take_is_refused() -> None:
    assert "5.506 A, the most a XM540-W270 takes" in refused(with_servo(0, current_max_a=6.0))


def test_an_unknown_model_is_refused() -> None:
    assert "model 'AX-12'" in refused(with_servo(0, model="AX-12"))


@pytest.mark.parametrize(("zero", "turned"), [(1500, False), (2600, True)])
def test_a_joint_range_across_the_encoder_wrap_is_refused(zero: int, turned: bool) -> None:
    words = refused(with_servo(0, zero_count=zero, reversed=turned))
    assert "joint 0 (base_yaw)" in words
    assert "outside 0…4095" in words


def test_a_bus_round_that_does_not_fit_its_period_gives_both_numbers() -> None:
    words = refused(robot(baud=1_000_000))
    assert "one bus round takes 2.97 ms > 2.80 ms" in words
    assert "192 bytes" in words


def test_a_deadline_shorter_than_a_round_is_refused() -> None:
    assert "read_deadline_ms 1.5 ms < 1.69 ms" in refused(robot(read_deadline_ms=1.5))


def test_a_deadline_that_outlasts_the_guards_patience_is_refused() -> None:
    assert "read_deadline_ms 50 ms must be below robot.guard.gap_max_ms 50 ms" in refused(robot(read_deadline_ms=50.0))


def test_plain_sync_read_costs_more_bytes() -> None:
    fast, plain = read_params(robot()), read_params(robot(fast_sync_read=False, firmware_min=38))
    # n servos of L bytes: write 14 + 3n, request 14 + n, replies 8 + n(L + 4) joint or n(11 + L) apart.
    assert fast.bus_bytes() == 32 + 20 + 8 + 6 * 22
    assert plain.bus_bytes() == 32 + 20 + 6 * 29
