"""The contract of a robot and its task, from configuration alone: no arm is opened."""

from __future__ import annotations

from robotsac.arm import ArmSpec
from robotsac.config import Config
from robotsac.contract import Contract
from robotsac.dynamics import RigidBody
from robotsac.env.checked_task import open_task
from robotsac.env.codec import Codec
from robotsac.env.task import task_parameters


def robot_contract(config: Config) -> Contract:
    """What :class:`robotsac.env.arm_env.ArmEnv` would put into every record and demand of every policy."""
    spec = ArmSpec.from_config(config.robot)
    task = open_task(config.task, config.robot, RigidBody.from_config(config.robot))
    parameters = task_parameters(config.task, task)
    return Codec(spec, task.name, parameters, task.channels, config.task.history_steps).contract
