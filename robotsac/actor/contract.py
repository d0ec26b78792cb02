"""The contract of a robot and its task, from configuration alone: no arm is opened."""

from __future__ import annotations

from robotsac.arm import ArmSpec
from robotsac.config import Config
from robotsac.contract import Contract
from robotsac.dynamics import RigidBody
from robotsac.env.codec import Codec
from robotsac.env.task import open_task, task_parameters


def robot_contract(config: Config) -> Contract:
    """What :class:`robotsac.env.arm_env.ArmEnv` would put into every record and demand of every policy."""
    spec = ArmSpec.from_config(config.robot)
    task = open_task(config.task, config.robot, RigidBody(config.robot.model, spec.joint_names, config.robot.tip_site))
    return Codec(spec, task.name, task_parameters(config.task), task.channels, config.task.history_steps).contract
