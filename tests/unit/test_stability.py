"""Whether gains suit the bus rate: the criterion, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from robotsac.config import load_config
from robotsac.dynamics import RigidBody
from robotsac.env.arm_env import ArmEnv
from robotsac.env.stability import check_gains, largest_inertias, overshoot_rad, stable
from robotsac.errors import ConfigError


@given(a=st.floats(0.0, 2.0), b=st.floats(0.0, 1.0))
def test_the_criterion_is_the_spectral_radius_of_the_loop(a, b):
    """State: position, velocity times dt, torque of the round before."""
    radius = max(abs(np.linalg.eigvals(np.array([[1.0, 1.0, 0.5], [0.0, 1.0, 1.0], [-b, -a, 0.0]]))))
    if b == 0.0:  # the position runs free: an eigenvalue of 1 that is not the loop's
        radius = max(abs(np.roots([1.0, -1.0, a])))
        assume(a > 0.0)
    assume(abs(radius - 1.0) > 1e-6)
    assert stable(a, b) == (radius < 1.0)


def warnings(*overrides: str) -> list[str]:
    robot = load_config("arm0", overrides=list(overrides)).robot
    body = RigidBody.from_config(robot)
    return check_gains(robot, body, largest_inertias(robot, body))


def test_the_gains_of_arm0_suit_its_bus():
    assert warnings() == []


def test_a_slower_bus_makes_the_same_gains_worth_a_word():
    told = warnings("robot.bus_rate_hz=50", "robot.driver.watchdog_ms=500")
    assert "joint 0 (base_yaw): hold_stiffness_nm_rad 20 with damping_nm_s_rad 2" in told[0]
    assert "50 Hz" in told[0] and "0.0604 kg·m²" in told[0]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("wrist_roll.hold_stiffness_nm_rad=50", "hold_stiffness_nm_rad 50 with damping_nm_s_rad 0.2 is unstable"),
        ("wrist_roll.damping_nm_s_rad=2", "would be unstable at 2 times that"),
        ("wrist_roll.policy_damping_nm_s_rad=2", "policy_damping_nm_s_rad 2 would be unstable at 2 times that"),
    ],
)
def test_weak_gains_are_told_and_not_refused(override, words):
    (told,) = warnings(f"robot.joints.{override}")
    assert told.startswith("joint 5 (wrist_roll): ") and words in told


@pytest.mark.parametrize("joint", range(6))
@pytest.mark.parametrize("key", ["hold_stiffness_nm_rad", "damping_nm_s_rad"])
def test_a_gain_a_thousand_times_too_high_is_refused_with_value_and_limit(joint, key):
    value = 1000 * getattr(load_config("arm0-sim").robot.joints[joint], key)
    config = load_config("arm0-sim", overrides=[f"robot.joints.{joint}.{key}={value}"])
    with pytest.raises(ConfigError, match=f"joint {joint} .*: {key} {value:g} N·m.* > .* N·m.*unstable") as caught:
        ArmEnv(config)
    assert "250 Hz" in caught.value.reason and "kg·m²" in caught.value.reason


def test_what_is_refused_is_beyond_twice_the_limit_and_not_before():
    limit = 0.25 * 0.0120047 * 250**2
    assert warnings(f"robot.joints.5.hold_stiffness_nm_rad={1.99 * limit}")
    with pytest.raises(ConfigError, match="> 188 N·m/rad"):
        warnings(f"robot.joints.5.hold_stiffness_nm_rad={2.01 * limit}")


def test_the_inertia_is_the_mass_matrix_diagonal():
    """By energy: 1/2 I dq² for one joint that moves alone, the gravity of a pose left out."""
    import mujoco

    robot = load_config("arm0").robot
    body = RigidBody.from_config(robot)
    q = np.array([0.3, -0.5, 0.4, 0.7, -0.2, 1.0])
    model = mujoco.MjModel.from_xml_path(str(robot.model))
    model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_ENERGY
    for joint, inertia in enumerate(body.inertia(q)):
        data = mujoco.MjData(model)
        data.qpos[:] = q
        data.qvel[joint] = 2.0
        mujoco.mj_forward(model, data)
        assert data.energy[1] == pytest.approx(0.5 * inertia * 4.0)


# --- braking -----------------------------------------------------------------------------------------------------


def test_damping_that_cannot_stop_a_joint_before_its_hard_limit_is_refused_and_what_is_suggested_is_taken():
    with pytest.raises(ConfigError) as caught:
        warnings("robot.joints.base_yaw.damping_nm_s_rad=0.6")
    said = str(caught.value)
    assert "joint 0 (base_yaw): at full speed damping_nm_s_rad 0.6 N·m·s/rad stops it" in said
    assert "the hard limit is at 0.12 rad" in said
    option = caught.value.command.removeprefix("--set ")
    assert warnings(option) == []


def test_damping_that_needs_more_than_half_the_margin_is_told():
    (told,) = warnings("robot.joints.base_yaw.damping_nm_s_rad=1.1")
    assert "beyond its soft limit of the 0.12 rad to the hard limit" in told


def test_a_deceleration_that_the_torque_cannot_give_is_refused_and_what_is_suggested_is_taken():
    with pytest.raises(ConfigError) as caught:
        warnings("robot.joints.wrist_roll.ddq_brake_rad_s2=200")
    assert "joint 5 (wrist_roll): ddq_brake_rad_s2 200 needs" in str(caught.value)
    assert "tau_max_nm 1.8" in str(caught.value)
    warnings(caught.value.command.removeprefix("--set "))


def test_a_joint_without_inertia_stops_at_its_limit_and_a_heavier_one_later():
    joint = load_config("arm0").robot.joints[0]
    found = [overshoot_rad(joint, inertia) for inertia in (0.0, 0.05, 0.1, 0.2)]
    assert found[0] == 0.0
    assert found == sorted(found)
