"""The plant and the simulated arm's clock."""

from __future__ import annotations

import numpy as np
import pytest

from robotsac.arm import open_arm
from robotsac.config import load_config
from robotsac.dynamics import RigidBody
from robotsac.errors import ArmError, ConfigError
from robotsac_sim.motors import MOTORS, MotorBank
from robotsac_sim.plant import Plant, build_plant

ROBOT = load_config("arm0-sim").robot
NAMES = tuple(joint.name for joint in ROBOT.joints)
MS = 1_000_000


def plant(motors: MotorBank | None = None) -> Plant:
    return Plant(ROBOT.model, NAMES, timestep_ns=MS, motors=motors, start=np.array(ROBOT.home_rad))


def test_time_is_whole_steps_and_the_rest_waits():
    world = plant()
    world.advance_to(2_500_000)
    assert world.t_ns == 2 * MS
    world.advance_to(3_000_000)
    assert world.t_ns == 3 * MS


def test_gravity_compensation_holds_the_arm_still():
    world = plant()
    body = RigidBody(ROBOT.model, NAMES, ROBOT.tip_site)
    for k in range(1, 251):
        world.set_torque(body.gravity(world.q))
        world.advance_to(k * 4 * MS)
    np.testing.assert_allclose(world.q, ROBOT.home_rad, atol=1e-3)


def test_without_torque_it_falls():
    world = plant()
    world.advance_to(1000 * MS)
    assert np.abs(world.q - ROBOT.home_rad).max() > 0.3


def test_placing_forgets_everything_but_the_time():
    world = plant()
    world.set_torque(np.full(6, 0.5))
    world.advance_to(100 * MS)
    world.place(np.array(ROBOT.home_rad))
    assert world.t_ns == 100 * MS
    np.testing.assert_array_equal(world.q, ROBOT.home_rad)
    np.testing.assert_array_equal(world.dq, np.zeros(6))
    fresh = plant()
    world.advance_to(200 * MS)
    fresh.advance_to(100 * MS)
    np.testing.assert_array_equal(world.q, fresh.q)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_torque_that_is_not_finite_is_refused_not_swallowed(bad):
    with pytest.raises(ArmError):
        plant().set_torque(np.full(6, bad))


def test_a_diverging_simulation_is_an_error_not_a_jump_back_to_the_start():
    world = plant()
    world.set_torque(np.full(6, 1e12))
    with pytest.raises(ArmError, match="diverged"):
        world.advance_to(1000 * MS)


@pytest.mark.parametrize("name", sorted(MOTORS))
def test_a_motor_reproduces_its_data_sheet(name):
    motor = MOTORS[name]
    bank = MotorBank([motor], 12.0)
    stall = motor.torque_constant_nm_a * 12.0 / motor.resistance_ohm
    np.testing.assert_allclose(bank.deliver(np.array([1e3]), np.zeros(1)), [stall])
    no_load = 12.0 / motor.back_emf_v_s_rad
    np.testing.assert_allclose(bank.deliver(np.array([1e3]), np.array([no_load])), [0.0], atol=1e-9)
    np.testing.assert_allclose(bank.deliver(np.array([0.1]), np.zeros(1)), [0.1])


def test_the_stall_torques_are_those_of_the_data_sheets():
    figures = {name: round(m.torque_constant_nm_a * 12.0 / m.resistance_ohm, 2) for name, m in MOTORS.items()}
    assert figures == {"XM540-W270": 10.6, "XM430-W350": 4.1}


def test_a_built_plant_lies_at_rest_inside_its_hard_limits():
    world = build_plant(ROBOT)
    arm = open_arm(ROBOT)
    assert world.t_ns == 0
    before = world.q
    world.advance_to(1000 * MS)
    np.testing.assert_allclose(world.q, before, atol=0.02)
    spec = arm.spec
    assert ((world.q > spec.q_min - spec.hard_margin) & (world.q < spec.q_max + spec.hard_margin)).all()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("robot.sim.servos=[{id=1,model='XM540-W270'}]", "1 entries for 6 joints"),
        ("robot.sim.timestep_us=1", "timestep_us"),
    ],
)
def test_a_wrong_sim_table_is_refused(override, words):
    with pytest.raises(ConfigError, match=words):
        build_plant(load_config("arm0-sim", overrides=[override]).robot)


def test_a_motor_without_figures_names_the_known_ones():
    servos = ",".join(f"{{id={k},model='XM999'}}" for k in range(1, 7))
    with pytest.raises(ConfigError, match="XM540-W270"):
        build_plant(load_config("arm0-sim", overrides=[f"robot.sim.servos=[{servos}]"]).robot)


def test_any_torque_driven_mjcf_arm_runs_from_configuration_alone(tmp_path):
    (tmp_path / "stick.xml").write_text(
        """<mujoco><worldbody><body pos="0 0 1"><joint name="a" axis="0 1 0" armature="0.01"/>
        <geom type="capsule" fromto="0 0 0 .3 0 0" size=".02" mass=".3"/><body pos=".3 0 0"><joint name="b" axis="0 1 0"
        armature="0.01"/><geom type="capsule" fromto="0 0 0 .2 0 0" size=".02" mass=".2"/><site name="end" pos=".2 0 0"/>
        </body></body></worldbody></mujoco>"""
    )
    joint = """
[[robot.joints]]
name = "{}"
q_min_rad = -2.0
q_max_rad = 2.0
dq_max_rad_s = 3.0
tau_max_nm = 5.0
dtau_max_nm_s = 500.0
ddq_brake_rad_s2 = 10.0
damping_nm_s_rad = 0.5
hold_stiffness_nm_rad = 10.0
action_scale_nm = 1.0
"""
    (tmp_path / "stick.toml").write_text(
        """[robot]
name = "stick"
model = "stick.xml"
tip_site = "end"
bus_rate_hz = 200
control_rate_hz = 20
home_rad = [0.2, 0.2]
park_rad = [1.2, 0.5]
[robot.driver]
name = "mujoco"
"""
        + joint.format("a")
        + joint.format("b")
    )
    from robotsac.env.arm_env import ArmEnv

    env = ArmEnv(load_config(str(tmp_path / "stick.toml")))
    obs, _ = env.reset(seed=0)
    assert obs.shape == (env.contract.obs_dim,)
    for _ in range(20):
        env.step(env.action_space.sample())
    env.close()
