"""Counts ↔ SI and the register tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robotsac_hardware import control_table as table
from robotsac_hardware import faults
from robotsac_hardware.feedback import BLOCK, BLOCK_SIZE, ROW, indirect_addresses
from robotsac_hardware.params import ServoParams
from robotsac_hardware.units import JointUnits

UNITS = JointUnits(
    [
        ServoParams(id=1, model="XM540-W270", torque_constant_nm_a=2.0, current_max_a=2.69, zero_count=2048),
        ServoParams(
            id=2, model="XC330-T288", torque_constant_nm_a=1.0, current_max_a=0.5, zero_count=1000, reversed=True
        ),
    ]
)

floats = st.floats(-100, 100)


def test_current_limit_is_the_configured_one_in_the_models_unit() -> None:
    assert UNITS.current_limit.tolist() == [1000, 500]


def test_torque_quantum_is_current_unit_times_torque_constant() -> None:
    np.testing.assert_allclose(UNITS.torque_per_count, [2.69e-3 * 2.0, 1e-3])


def test_a_reversed_joint_turns_every_sign() -> None:
    counts = np.array([100, 100])
    assert (np.sign(UNITS.torque(counts)) == [1, -1]).all()
    assert (np.sign(UNITS.velocity(counts)) == [1, -1]).all()
    assert (np.sign(UNITS.goal(np.array([1.0, 0.2]))) == [1, -1]).all()
    np.testing.assert_allclose(UNITS.position(np.array([2048 + 1024, 1000 + 1024])), [math.pi / 2, -math.pi / 2])


@given(floats, floats)
def test_goals_are_whole_counts_within_the_limit(first: float, second: float) -> None:
    goal = UNITS.goal(np.array([first, second]))
    assert (goal == np.rint(goal)).all()
    assert (np.abs(goal) <= UNITS.current_limit).all()


@given(st.floats(-5.3, 5.3), st.floats(-0.49, 0.49))
def test_told_torque_is_within_half_a_quantum_of_the_asked_one(first: float, second: float) -> None:
    asked = np.array([first, second])
    told = UNITS.torque(UNITS.goal(asked))
    assert (np.abs(told - asked) <= UNITS.torque_per_count * 0.5001).all()


@given(st.integers(0, 4095), st.integers(0, 4095))
def test_position_and_count_are_inverse(first: int, second: int) -> None:
    counts = np.array([first, second])
    np.testing.assert_allclose(UNITS.count_at(UNITS.position(counts)), counts, atol=1e-9)


@given(st.sampled_from(BLOCK), st.data())
def test_registers_encode_and_decode_their_whole_range(register: table.Register, data: st.DataObject) -> None:
    span = 1 << 8 * register.size
    low = -span // 2 if register.signed else 0
    value = data.draw(st.integers(low, low + span - 1))
    assert register.decode(register.encode(value)) == value


def test_block_and_row_agree_on_their_layout() -> None:
    assert ROW.itemsize == BLOCK_SIZE + 4
    assert len(indirect_addresses()) == 2 * BLOCK_SIZE
    assert min(model.indirect_block(60).count for model in table.MODELS.values()) >= BLOCK_SIZE


@pytest.mark.parametrize(
    ("model", "firmware", "data_at"),
    [("XM430-W350", 45, 224), ("XM540-W270", 60, 224), ("XC330-T288", 51, 224), ("XC330-T288", 52, 208)],
)
def test_indirect_data_lies_where_family_and_firmware_put_it(model: str, firmware: int, data_at: int) -> None:
    assert table.MODELS[model].indirect_block(firmware).data_at == data_at


def test_model_numbers_have_names() -> None:
    assert table.model_name(1020) == "XM430-W350"
    assert table.model_name(12) == "model number 12"
    assert len({model.number for model in table.MODELS.values()}) == len(table.MODELS)


def test_hardware_errors_are_put_into_words() -> None:
    assert faults.hardware_error_words(0x24) == "overheating, overload"
    assert faults.hardware_error_words(0x42) == "unknown hardware error 0x42"
    assert faults.hardware_error_words(0) == "alert without a hardware error bit"
    assert faults.status_error_words(0x87) == "access error"
    assert faults.status_error_words(0x80) == "no error"
